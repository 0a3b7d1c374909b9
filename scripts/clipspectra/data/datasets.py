"""A dataset is its manifest: a table with one row per image. Everything after it is the same for all datasets.

Columns: image and mask (paths relative to the manifest's folder), label (whole numbers that order the classes), class
(its name), group, split, and any number of factor columns. All but label are texts. mask and group may be empty.
"""

import hashlib
import json
import mimetypes
import os
import re
import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from clipspectra import InputError
from clipspectra.arrays import load_arrays
from clipspectra.data.files import as_stored, is_visible, visible_files
from clipspectra.data.own_tables import invisible_blank, own_table_pieces
from clipspectra.data.tars import opened

REQUIRED_COLUMNS = ["image", "label", "class", "group", "split", "mask"]
# Names of splits, such as train, val2017, seg_test and test_set.
SPLIT_NAME = re.compile(
    r"([a-z]+[_-])?(train|training|val|valid|validation|dev|test|testing|eval|holdout)"
    r"([_-]?(set|split|data|images)|\d+)?",
    re.IGNORECASE,
)
# Formats that Pillow knows by name and cannot decode by itself.
UNDECODABLE_FORMATS = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS", "PDF"}


def read_manifest(path):
    """A manifest as a pandas table, checked as Manifest does; its index is the row.

    Raises InputError that names the line, the column and the value, also for an image named twice.
    """
    table = pd.concat(Manifest(path))
    refuse_twice(path, table["image"][table["image"].duplicated()])
    return table


def refuse_twice(path, names):
    """Raise InputError if a manifest names images twice; names: those of them that come again, in order.

    path: None of a table in memory
    """
    for name in names:
        raise InputError(f"The manifest{f' {path}' if path else ''} names {name} twice.")


class Manifest:
    """The rows of a manifest piece by piece, as often as they are read: tables whose index is the row.

    Memory grows with the number of classes alone. Iterating raises InputError that names the line, the column and the
    value. Refused: missing columns, labels that are not whole numbers, labels and classes that are not one to one,
    classes that only some rows have, values with invisible blanks at their ends; but not an image named twice.
    """

    def __init__(self, path):
        self.path = path

    def __iter__(self):
        count, pairs, blank, first_blank = 0, [], 0, None
        for piece in own_table_pieces(self.path):
            self._check_columns(piece)
            self._normalise(piece)
            if len(nameless := piece.index[piece["image"] == ""]):
                raise InputError(f"The manifest {self.path} names no image in line {nameless[0]}.")
            pairs = [pd.concat([*pairs, piece[["label", "class"]]]).drop_duplicates()]
            lines = piece.index[piece["class"] == ""]
            blank, first_blank = blank + len(lines), next(iter(lines), None) if first_blank is None else first_blank
            piece.index = pd.RangeIndex(count, count + len(piece))
            count += len(piece)
            yield piece
        self._check_classes(pairs[0])
        if 0 < blank < count:
            raise InputError(f"The manifest {self.path} has no class in {blank} rows, the first in line {first_blank}.")

    def _check_columns(self, piece):
        missing = [column for column in REQUIRED_COLUMNS if column not in piece.columns]
        if missing:
            raise InputError(
                f"The manifest {self.path} lacks the columns {', '.join(missing)}; it has {', '.join(piece.columns)}. "
                "Values of group, split and mask may be empty."
            )
        if piece.empty:
            raise InputError(f"The manifest {self.path} has no rows.")
        for column in sorted({"row", "role", "image_sha256"} & set(piece.columns)):
            raise InputError(
                f"The manifest {self.path} has a column '{column}', a name that the workflow needs; rename it."
            )

    def _normalise(self, piece):
        """Check values and bring them into one form in place: labels whole numbers, ä one character."""
        for column in piece.columns.drop(["image", "mask", "label"]):
            if blank := invisible_blank(piece[column].drop_duplicates()):
                raise InputError(
                    f"The manifest {self.path}, line {blank[0]}, has {column} {blank[1]!r}, which begins or ends with "
                    "an invisible blank; remove it."
                )
        for column in piece.columns.drop(["image", "mask"]):
            forms = {value: unicodedata.normalize("NFC", value) for value in piece[column].unique()}
            piece[column] = piece[column].map(forms)
        for line, label in piece["label"].drop_duplicates().items():
            if not re.fullmatch(r"[+-]?\d+(\.0*)?", label.strip()):
                raise InputError(
                    f"The manifest {self.path} has labels that are not whole numbers, the first in line {line}: "
                    f"{label!r}."
                )
        labels = {label: int(label.strip().split(".")[0]) for label in piece["label"].unique()}
        piece["label"] = piece["label"].map(labels)

    def _check_classes(self, pairs):
        for key, partner in (("label", "class"), ("class", "label")):
            ambiguous = pairs[pairs[key].duplicated(keep=False)]
            if len(ambiguous):
                value = ambiguous[key].tolist()[0]
                partners = ", ".join(map(repr, ambiguous.loc[ambiguous[key] == value, partner].tolist()))
                raise InputError(f"The manifest {self.path} gives {key} {value!r} more than one {partner}: {partners}.")


def folder_manifest(folder):
    """Manifest of a folder with one subfolder per class, numbered in sorted order; absolute paths.

    Hidden files and folders, and __MACOSX, are ignored. Raises InputError for a folder that holds splits, or one
    that has no pictures.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"The image folder {folder} is not there; set the dataset's 'folder' in the config.")
    files = _files_by_class(folder)
    pictures = {name: [path for path in paths if is_picture(path)] for name, paths in files.items()}
    if not any(pictures.values()):
        raise InputError(f"The image folder {folder} has no class folders with images.")
    _refuse_splits(folder, pictures)
    empty = [name for name, paths in pictures.items() if not paths]
    if empty:
        endings = {path.suffix.lower() or "files without ending" for path in files[empty[0]]}
        holds = f" of a supported kind (it holds {', '.join(sorted(endings))})" if endings else ""
        raise InputError(f"The class folder {folder / empty[0]} has no images{holds}; fill it or remove it.")
    rows = [
        {"image": os.path.abspath(path), "label": label, "class": unicodedata.normalize("NFC", name)}
        for label, (name, paths) in enumerate(sorted(pictures.items()))
        for path in paths
    ]
    for row in rows:
        if "\r" in row["image"] or not _is_text(row["image"]):
            raise InputError(f"The picture {row['image']!r} has a name that a table cannot hold; rename it.")
    return pd.DataFrame(rows).assign(group="", split="all", mask="")


def _is_text(name):
    """Whether a file's name is UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def left_out(folder):
    """(pictures, by their ending, that a manifest leaves out; {ending: count} of all files that it leaves out).

    These are pictures that Pillow cannot read, and pictures that lie beside the class folders.
    """
    folder = Path(folder)
    inside = [path for paths in _files_by_class(folder).values() for path in paths if not is_picture(path)]
    beside = [path for path in visible_files(folder) if path.parent == folder]
    paths = inside + beside
    guessed = [path for path in paths if (mimetypes.guess_type(path.name)[0] or "").startswith("image/")]
    raw = [path for path in paths if path.suffix.lower() in {".heic", ".heif", ".jxl", ".dng", ".cr2", ".nef", ".arw"}]
    return sorted({*guessed, *raw}), dict(Counter(path.suffix.lower() or "no ending" for path in paths))


def is_picture(path):
    """Whether Pillow reads files of this ending."""
    Image.init()
    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    return kind in Image.OPEN and kind not in UNDECODABLE_FORMATS


def _files_by_class(folder):
    """{class: its files}, sorted; the classes are the visible subfolders."""
    folders = sorted(entry for entry in folder.iterdir() if entry.is_dir() and is_visible(entry.name))
    return {entry.name: visible_files(entry, (os.path.realpath(folder),)) for entry in folders}


def _refuse_splits(folder, pictures):
    """Raise InputError if the folders are splits: by their names, or if all hold the same folders and no pictures."""
    subfolders = {
        name: {parts[0] for path in paths if len(parts := path.relative_to(folder / name).parts) > 1}
        for name, paths in pictures.items()
    }
    direct = any(path.parent == folder / name for name, paths in pictures.items() for path in paths)
    splits = [name for name in pictures if SPLIT_NAME.fullmatch(name)]
    same = not direct and len(set(map(frozenset, subfolders.values()))) == 1
    if same or len(splits) > 1:
        names = splits if len(splits) > 1 else list(pictures)
        first = "train" if subfolders.get("train") else next((name for name in names if subfolders[name]), names[0])
        inside = f", each with the folders {', '.join(sorted(subfolders[first])[:5])}" if subfolders[first] else ""
        raise InputError(
            f"The folders {', '.join(names)} of {folder} look like splits, not classes{inside}. Set folder to one of "
            f"them, such as {folder / first}, if it has class folders, or write a manifest with a split column."
        )


def own_manifest(path):
    """The user's own manifest, with absolute paths. Raises InputError for files that are not there."""
    table = read_manifest(path)
    for column in ("image", "mask"):
        paths = [os.path.abspath(Path(path).parent / name) if name else "" for name in table[column]]
        table[column] = [as_stored(name) if name else "" for name in paths]
        absent = [name for name in table[column] if name and not Path(name).is_file()]
        if absent:
            raise InputError(
                f"The manifest {path} names {len(absent)} files that are not there, the first {absent[0]!r}."
                + (" Write / between folders, not a backslash." if "\\" in absent[0] else "")
            )
    refuse_twice(path, table["image"][table["image"].duplicated()])
    return table


def masked_rows(chosen):
    """The rows of a seed's table that segmentation is scored on."""
    return chosen[chosen["role"] == "eval"].reset_index(drop=True)


def class_indices(table, column, values, dataset):
    """Index of each row's class, or factor value, among a classifier's columns, int [image]: by name, not by label.

    values: the column's values in the classifier's order. Raises InputError for a value that is none of them.
    """
    unknown = sorted(set(table[column]) - set(values))
    if unknown:
        problem = f"the {column} {unknown[0]!r}, which the classifier lacks" if unknown[0] else f"no {column}"
        raise InputError(f"Images of {dataset} have {problem}, so they cannot be scored.")
    indices = {value: index for index, value in enumerate(values)}
    return np.array([indices[value] for value in table[column]], dtype=int)


def class_labels(path, images, dataset):
    """(classifier [d_embed, class], index of each image's class [image]) from the file of a dataset's classifiers."""
    classes, metadata = load_arrays(path, "class")
    return classes["class"], class_indices(images, "class", json.loads(metadata["values"])["class"], dataset)


def with_digests(table, root, column="image"):
    """The table with the digests of the files that a column names, sha256 in hex, as image_sha256 or mask_sha256.

    Blank for a file that cannot be read, which the job that needs it refuses or skips.
    """
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(_digest, [Path(root) / name for name in table[column]]))
    return table.assign(**{f"{column}_sha256": digests})


def _digest(path):
    with suppress(OSError), opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""
