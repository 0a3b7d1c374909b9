"""How exactly the stored parts of every shard add up to the model's embedding, and which images it lacks."""

import json
from itertools import chain
from pathlib import Path

import pandas as pd

from clipspectra.arrays import load_arrays, save_table
from clipspectra.jobs import job

ERRORS = ("sum_error", "stored_sum_error", "model_error")


def exactness(path):
    """(one row of the table of errors, rows of the table of skipped images), from a shard's metadata."""
    arrays, metadata = load_arrays(path, "row")
    source, skipped = {key: metadata[key] for key in ("model", "dataset", "seed")}, json.loads(metadata["skipped"])
    row = source | {"shard": Path(path).stem, "images": len(arrays["row"]), "skipped": len(skipped)}
    row |= {f"largest_{name}": float(metadata[name]) for name in ERRORS}
    row |= {key: metadata[key] for key in ("precision", "dtype", "sha256", "torch", "open_clip_torch")}
    return row, [source | image for image in skipped]


if __name__ == "__main__":
    with job(snakemake.log[0]):
        rows, skipped = zip(*(exactness(path) for path in snakemake.input))
        save_table(snakemake.output.csv, pd.DataFrame(rows))
        columns = ["model", "dataset", "seed", "image", "reason"]
        save_table(snakemake.output.skipped, pd.DataFrame(chain.from_iterable(skipped), columns=columns))
