"""How exactly the stored parts of every shard add up to the model's embedding, and which images it lacks."""

import json
from itertools import groupby, product
from pathlib import Path

import numpy as np
import pandas as pd

from clipspectra.arrays import load_arrays, load_table, save_table
from clipspectra.contributions.shards import CHECKED, ERRORS, rows_of_shard
from clipspectra.jobs import job

SOURCE = ("precision", "dtype", "sha256", "torch", "open_clip_torch")


def exactness(path, images, seed):
    """(one row of the table of errors, rows of the table of skipped images) of a seed's images in a shard.

    images: the seed's table
    """
    arrays, metadata = load_arrays(path, "row")
    source = {key: metadata[key] for key in ("model", "dataset")} | {"seed": seed}
    skipped = json.loads(metadata["skipped"])
    if "exactness" in metadata:  # of all images that were streamed, of which those stored are a sample
        errors = json.loads(metadata["exactness"])[str(seed)]
        names = set(errors.pop("skipped"))
        skipped = [image for image in skipped if image["image"] in names]
        row = source | {"shard": Path(path).stem, "images": errors.pop("images"), "skipped": len(skipped)}
        row |= {f"largest_{name}": np.nan if error is None else error for name, error in errors.items()}
        return row | {key: metadata[key] for key in SOURCE}, [source | image for image in skipped]
    names = set(images["image"])
    skipped = [image for image in skipped if image["image"] in names]
    images = rows_of_shard(images, *map(int, Path(path).stem.split("-")[1::2]))
    chosen, checked = (np.isin(arrays["row"], rows) for rows in (images["row"], images["row"].head(CHECKED)))
    row = source | {"shard": Path(path).stem, "images": chosen.sum(), "skipped": len(skipped)}
    stored = load_arrays(path, *ERRORS)[0] if chosen.any() else dict.fromkeys(ERRORS, chosen)  # or none could be read
    # Other images may have been checked for another seed.
    errors = {name: stored[name][checked if name == "model_error" else chosen].astype(float) for name in ERRORS}
    row |= {f"largest_{name}": np.nan if np.isnan(error).all() else np.nanmax(error) for name, error in errors.items()}
    row |= {key: metadata[key] for key in SOURCE}
    return row, [source | image for image in skipped]


if __name__ == "__main__":
    with job(snakemake.log[0]):
        inputs, params = snakemake.input, snakemake.params
        images = dict(zip(product(params.datasets, params.seeds), map(load_table, inputs.images)))
        rows, skipped = [], []
        for folder, shards in groupby(map(Path, inputs.shards), lambda path: path.parent):
            for seed, path in product(params.seeds, list(shards)):
                row, absent = exactness(path, images[folder.name, seed], seed)
                rows.append(row)
                skipped += absent
        save_table(snakemake.output.csv, pd.DataFrame(rows))
        columns = ["model", "dataset", "seed", "image", "reason"]
        save_table(snakemake.output.skipped, pd.DataFrame(skipped, columns=columns))
