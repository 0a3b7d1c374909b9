"""Which images a shard of an extraction has, and which of them are yet to be extracted."""

import numpy as np
import pandas as pd

from clipspectra.arrays import load_table
from clipspectra.data.store import images_of_seeds

ERRORS = ("sum_error", "stored_sum_error", "model_error")  # of each image, see extraction.extract
CHECKED = 8  # images of each seed and shard that also go through the bare model


def images_of_shard(paths, shard, shards):
    """The images that one shard has of several seeds' tables: those whose row is `shard` modulo `shards`.

    `checked`: whether an image is among the first CHECKED of a seed
    """
    tables = [load_table(path) for path in paths]
    tables = [table[table["row"] % shards == shard].sort_values("row") for table in tables]
    images = images_of_seeds(tables)
    checked = pd.concat([table["row"].head(CHECKED) for table in tables])
    return images.assign(checked=images["row"].isin(checked))


def to_extract(store, images):
    """The images that an ImageStore lacks, or has without the check that they should have."""
    absent, unchecked = (np.isnan(store.values(name, images)) for name in ("sum_error", "model_error"))
    return images[absent | (images["checked"] & unchecked)]
