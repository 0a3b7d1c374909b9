"""Which images a shard of an extraction has, and which of them are yet to be extracted."""

import hashlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from clipspectra.arrays import load_table, table_chunks
from clipspectra.data.store import images_of_seeds, load_images, picture_ids

ERRORS = ("sum_error", "stored_sum_error", "model_error")  # of each image, see extraction.extract
CHECKED = 8  # images of each seed and shard that also go through the bare model
# The roles that means and components come from, by protocol.
FITTED = {"held_out": ("fit",), "same": ("fit", "eval")}


def rows_of_shard(table, shard, shards):
    """The rows that one shard has of a table of images, those whose row in the manifest is `shard` modulo `shards`.

    Sorted; the first CHECKED of them are checked.
    """
    return table[table["row"] % shards == shard].sort_values("row")


def images_of_shard(paths, shard, shards):
    """The images that one shard has of several seeds' tables; `checked`: whether an image is to be, for any seed."""
    tables = [load_images(path, shard, shards).sort_values("row") for path in paths]
    images = images_of_seeds(tables)
    checked = pd.concat([table["row"].head(CHECKED) for table in tables])
    return images.assign(checked=images["row"].isin(checked))


def to_extract(store, images):
    """The images that an ImageStore lacks, or has without the check that they should have."""
    absent, unchecked = (np.isnan(store.values(name, images)) for name in ("sum_error", "model_error"))
    return images[absent | (images["checked"] & unchecked)]


def images_to_stream(tables, samples, shard, shards, protocol):
    """(table of the images of one shard that any seed fits or keeps whole, by row; {seed: whether it fits [image]}).

    tables, samples: {seed: path} of the seeds' tables of images, read piece by piece, and of their samples.
    Columns: row, image, picture_id; checked, as in images_of_shard; whole, whether any seed keeps it; and by seed
    role_{seed}, blank unless the seed fits it, and whole_{seed}.
    """
    parts, kept = [], {}
    for seed, path in tables.items():
        sample = load_table(samples[seed])
        kept[seed] = set(sample["row"])
        for chunk in table_chunks(path):
            fits = chunk["role"].isin(FITTED[protocol])
            inside = (chunk["row"] % shards == shard) & (fits | chunk["row"].isin(kept[seed]))
            if parts and not inside.any():
                continue
            part = chunk.loc[inside, ["row", "image"]].assign(role=chunk["role"].where(fits, "")[inside], seed=seed)
            parts.append(part.assign(picture_id=picture_ids(chunk["image_sha256"][inside])))
    parts = pd.concat(parts, ignore_index=True)
    images = parts[["row", "image", "picture_id"]].drop_duplicates("row").sort_values("row", ignore_index=True)
    images["checked"] = images["whole"] = False
    for seed in tables:
        own = parts[parts["seed"] == seed].sort_values("row")
        roles = dict(zip(own["row"], own["role"]))
        images[f"role_{seed}"] = [roles.get(row, "") for row in images["row"]]
        images[f"whole_{seed}"] = images["row"].isin(kept[seed])
        images["whole"] |= images[f"whole_{seed}"]
        images["checked"] |= images["row"].isin(own["row"].head(CHECKED))
    return images, {seed: (images[f"role_{seed}"] != "").to_numpy() for seed in tables}


def shard_numbers(images, skipped, seed, shard):
    """What a file of a shard's sums says of it, see joint.save_sums: covers, counts and skipped.

    images: of images_to_stream; skipped: as in the proof of extraction.extract
    """
    fitted = images[images[f"role_{seed}"] != ""]
    is_skipped = fitted["image"].isin({picture["image"] for picture in skipped})
    counts = fitted[f"role_{seed}"][~is_skipped].value_counts().sort_index()
    return {"covers": [shard, shard + 1], "counts": counts.to_dict(), "skipped": int(is_skipped.sum())}


def file_digest(path):
    """Digest of a file, such as the table of images that sums are over."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def previous_layouts(folder):
    """Folders of stored activations by seed, as versions before 0.3 wrote them; they are not read any more."""
    with suppress(OSError):
        return sorted(path for path in Path(folder).glob("seed-*") if any(path.glob("shard-*.safetensors")))
    return []
