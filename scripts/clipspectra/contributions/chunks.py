"""Where the images of a seed lie in the shards of an extraction, and reading some of them at a time."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipspectra import InputError
from clipspectra.arrays import load_metadata
from clipspectra.checked import open_arrays
from clipspectra.data.store import picture_ids


@dataclass
class Chunk:
    """Some images, in the order of the manifest, each in one of the shards.

    paths: of the shards; shard, rows: of each image the number of its shard, and its row there, which rise, [image]
    """

    paths: list
    shard: np.ndarray
    rows: np.ndarray

    def read(self, indices):
        """{name: array [image, …]} of the named arrays, each at an index of its further axes: {name: index, a list}."""
        arrays = {}
        for number in np.unique(self.shard):
            places = np.flatnonzero(self.shard == number)
            with open_arrays(self.paths[number]) as file:
                for name, index in indices.items():
                    part = read_rows(file, name, self.rows[places], *index)
                    if name not in arrays:
                        arrays[name] = np.empty((len(self.rows), *part.shape[1:]), part.dtype)
                    arrays[name][places] = part
        return arrays


def check_weights(paths, sha256):
    """Raise InputError unless files of arrays are of the weights with this digest: a tag of the hub may have moved.

    Files that say nothing of weights are passed over.
    """
    for path in paths:
        if load_metadata(path).get("sha256", sha256) != sha256:
            raise InputError(
                f"{path} is of other weights than what it is read with; perhaps a tag on the hub has moved. Set the "
                "model's revision in the config to a commit, or remove the files of this model, and run again."
            )


def read_rows(file, name, rows, *index):
    """Rows of an open safetensors file's array, given by their rising numbers, at an index of the further axes."""
    start = rows[0]
    return file.get_slice(name)[(slice(start, rows[-1] + 1), *index)][rows - start]


def select_images(shards, images):
    """([(path, numbers of rows [image], table of their images)] of the shards that have any images, first layer).

    images: a seed's table. Raises InputError for a shard of an older layout, one that holds another picture in an
    image's row, and images that are neither stored nor were skipped.
    """
    ids, images = picture_ids(images["image_sha256"]), images.set_index("row")
    ids, stored_rows, skipped, selected, first_layer = dict(zip(images.index, ids)), set(), set(), [], 0
    for path in shards:
        with open_arrays(path) as file:
            metadata, rows, stored_ids = file.metadata(), file.get_tensor("row"), file.get_tensor("picture_id")
        skipped |= {picture["image"] for picture in json.loads(metadata.get("skipped", "[]"))}
        numbers = np.flatnonzero(np.isin(rows, images.index))
        for row, stored_id in zip(rows[numbers], stored_ids[numbers]):
            if ids[row] != stored_id:
                name = images.loc[row, "image"]
                raise InputError(f"{path} holds another picture in the row of {name}; remove it, and run again.")
        if len(numbers):
            first_layer = int(metadata.get("first_layer", 0))
            selected.append((path, numbers, images.loc[rows[numbers]].reset_index()))
            stored_rows |= set(rows[numbers])
    absent = images["image"][~images.index.isin(stored_rows) & ~images["image"].isin(skipped)]
    if len(absent):
        raise InputError(
            f"{len(absent)} images are not in the shards of {Path(shards[0]).parent}, the first {absent.iloc[0]}; "
            "remove the shards, and run again."
        )
    if not selected:
        raise InputError(f"None of the {len(images)} images could be read.")
    return selected, first_layer
