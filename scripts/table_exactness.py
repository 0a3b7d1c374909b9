"""How exactly the stored contributions of every shard add up to the model's own embedding."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from clipspectra.arrays import load_arrays, save_table
from clipspectra.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def exactness(path):
    """One row of the table, from a shard's metadata."""
    arrays, metadata = load_arrays(path, "row")
    row = {key: metadata[key] for key in ("model", "dataset", "seed")}
    row |= {"shard": Path(path).stem, "images": len(arrays["row"]), "largest_sum_error": float(metadata["sum_error"])}
    return row | {key: metadata[key] for key in ("dtype", "sha256", "torch", "open_clip_torch")}


if __name__ == "__main__":
    with job(snakemake.log[0]):
        save_table(snakemake.output[0], pd.DataFrame([exactness(path) for path in snakemake.input]))
