"""Results by image in one file that grows: what is stored of a picture is not computed again.

A row belongs to the picture whose file has its digest, wherever the picture stands in the manifest.
"""

import fcntl
import hashlib
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.arrays import ROWS, as_text, table_chunks
from clipspectra.checked import open_arrays


def picture_ids(*digests):
    """An id of each row's files by their content, uint64 [image]; 0 where the first of them could not be read.

    digests: columns of datasets.with_digests
    """
    whole = [hashlib.sha256("".join(row).encode()).hexdigest() if row[0] else "0" for row in zip(*digests)]
    return np.array([int(digest[:16], 16) for digest in whole], np.uint64)


def load_images(path, shard=0, shards=1):
    """The table of a seed's images, of which no more than these are held: those whose row is `shard` modulo `shards`.

    Raises InputError where a column of it is damaged.
    """
    parts = []
    for chunk in table_chunks(path):
        absent = [column for column in ("row", "image", "role", "image_sha256") if column not in chunk]
        if absent or not pd.api.types.is_integer_dtype(chunk["row"]):
            raise InputError(f"{path} is damaged: the column {[*absent, 'row'][0]!r}; remove it, and run again.")
        parts.append(chunk[chunk["row"] % shards == shard])
    table = pd.concat(parts, ignore_index=True)
    if table["row"].duplicated().any():
        raise InputError(f"{path} is damaged: the column 'row'; remove it, and run again.")
    return table


def images_of_seeds(tables, columns=("image_sha256",)):
    """The images that any of several seeds' tables has, once, sorted by row, with their `picture_id`.

    columns: the digests of the files that a result depends on
    """
    images = pd.concat(tables).drop_duplicates("row").sort_values("row", ignore_index=True)
    return images.assign(picture_id=picture_ids(*(images[column] for column in columns)))


@contextmanager
def locked(path, log):
    """Keep other processes from extending the same file, as far as the file system has locks; waits for them."""
    path = Path(path)
    with open(path.with_name(f".{path.name}.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"waiting for another run that extends {path}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            log("the file system has no locks")
        yield


class ImageStore:
    """A safetensors file of arrays [image, …], among them row (in the manifest) and picture_id.

    path: of the file, which need not be there; identity: {key: JSON value} that its metadata must have for its rows to
    be used: a change of the model, the code or the settings never mixes with what was stored before
    metadata: of the file; replaced: in words, why the rows of a file that is there are not used; else empty
    """

    def __init__(self, path, identity):
        self.path, self.metadata, self.replaced = path, {}, ""
        self.rows, self.ids = np.zeros(0, np.int64), np.zeros(0, np.uint64)
        if not os.path.exists(path):
            return
        try:
            with open_arrays(path) as file:
                metadata = file.metadata()
                rows, ids = file.get_tensor("row"), file.get_tensor("picture_id")
        except InputError:
            self.replaced = "it is of an older version, or damaged"
            return
        other = [key for key, value in as_text(identity).items() if metadata.get(key) != value]
        if other:
            self.replaced = f"it was made with another {', '.join(other)}"
        else:
            self.rows, self.ids, self.metadata = rows, ids, metadata

    def values(self, name, images):
        """The stored values of an array [image] for a table of images_of_seeds; nan where an image is not stored."""
        index, values = self._index(images), np.full(len(images), np.nan)
        if len(self.rows):
            with open_arrays(self.path) as file:
                values[index >= 0] = file.get_tensor(name)[index[index >= 0]]
        return values

    def has(self, images):
        """Whether each of the images is stored, in its row of the manifest."""
        stored = set(zip(self.rows.tolist(), self.ids.tolist()))
        return np.array([pair in stored for pair in zip(images["row"], images["picture_id"].tolist())], bool)

    def save(self, stream, images, metadata):
        """Write an ArrayStream's new rows and the stored rows as one file, sorted by row.

        images: all that the file must have, as far as they can be read; other stored rows are kept too. A file without
        any rows has no other arrays than row and picture_id.
        """
        stream.append({"row": np.zeros(0, np.int64), "picture_id": np.zeros(0, np.uint64)})
        new = set(stream.column("row").tolist())
        wanted = ~images["row"].isin(new).to_numpy()
        index, rows = self._index(images)[wanted], images["row"].to_numpy()[wanted]
        kept = pd.DataFrame({"index": index, "row": rows})[index >= 0]
        others = ~np.isin(self.rows, [*images["row"], *new])
        kept = pd.concat([kept, pd.DataFrame({"index": np.flatnonzero(others), "row": self.rows[others]})])
        for start in range(0, len(self.rows), ROWS):
            stop = min(start + ROWS, len(self.rows))
            chunk = kept[kept["index"].between(start, stop - 1)]
            if len(chunk):
                with open_arrays(self.path) as file:
                    arrays = {name: file.get_slice(name)[start:stop] for name in file.keys()}
                arrays = {name: array[chunk["index"] - start] for name, array in arrays.items()}
                stream.append(arrays | {"row": chunk["row"].to_numpy(np.int64)})
        stream.save(self.path, metadata, order_by="row")

    def _index(self, images):
        """Index of each image among the stored rows, by its picture; -1 where it is not stored."""
        by_id = dict(zip(self.ids.tolist(), range(len(self.ids))))
        by_id.pop(0, None)
        exact = dict(zip(zip(self.rows.tolist(), self.ids.tolist()), range(len(self.rows))))
        pairs = zip(images["row"].tolist(), images["picture_id"].tolist())
        return np.array([exact.get(pair, by_id.get(pair[1], -1)) for pair in pairs], int)
