"""Which images a shard of an extraction has, and which of them are yet to be extracted."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from clipspectra.data.store import images_of_seeds, load_images

ERRORS = ("sum_error", "stored_sum_error", "model_error")  # of each image, see extraction.extract
CHECKED = 8  # images of each seed and shard that also go through the bare model


def rows_of_shard(table, shard, shards):
    """The rows that one shard has of a table of images, those whose row in the manifest is `shard` modulo `shards`.

    Sorted; the first CHECKED of them are checked.
    """
    return table[table["row"] % shards == shard].sort_values("row")


def images_of_shard(paths, shard, shards):
    """The images that one shard has of several seeds' tables; `checked`: whether an image is to be, for any seed."""
    tables = [rows_of_shard(load_images(path), shard, shards) for path in paths]
    images = images_of_seeds(tables)
    checked = pd.concat([table["row"].head(CHECKED) for table in tables])
    return images.assign(checked=images["row"].isin(checked))


def to_extract(store, images):
    """The images that an ImageStore lacks, or has without the check that they should have."""
    absent, unchecked = (np.isnan(store.values(name, images)) for name in ("sum_error", "model_error"))
    return images[absent | (images["checked"] & unchecked)]


def previous_layouts(folder):
    """Folders of stored activations by seed, as versions before 0.3 wrote them; they are not read any more."""
    with suppress(OSError):
        return sorted(path for path in Path(folder).glob("seed-*") if any(path.glob("shard-*.safetensors")))
    return []
