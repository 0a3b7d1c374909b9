"""Files that appear whole or not at all: arrays as safetensors, tables as CSV or Parquet, and what they came from."""

import csv
import fcntl
import io
import json
import os
import re
import tempfile
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.checked import ArrayWriter, open_arrays, read_parquet, write_parquet

UNFINISHED = ".unfinished-"  # how the names of files begin that are being written
ROWS = 1000  # of large arrays in memory at a time
P_VALUES = ("p", "p_holm")  # columns of tests
# Columns of names, whatever they look like.
NAMES = ("model", "dataset", "texts", "image", "mask", "class", "group", "split", "text", "opposite", "topic", "name")
NAMES += ("value", "seeds", "factor", "intervention", "unit", "transfer", "from", "comparison", "other_model")


@contextmanager
def atomic_write(path):
    """A path to write to, of this writer alone; moved to `path` at the end, removed after an error.

    What killed writers of the same file left is removed first.
    """
    path = Path(path)
    _remove_leftovers(path)
    file, part = _locked_part(path)
    try:
        yield part
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)  # nobody else may read it yet
        os.fsync(file)  # a power cut after the move could leave an empty file otherwise
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
        os.close(file)


def _locked_part(path):
    """A new file beside `path` with a name of its own, open and locked until its writer ends: (file, its path)."""
    while True:
        file, part = tempfile.mkstemp(prefix=UNFINISHED, suffix=f"-{path.name}", dir=path.parent)
        with suppress(OSError):  # of file systems without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.path.exists(part):
            return file, Path(part)
        os.close(file)  # another writer, that looked before it was locked, has removed it


def _remove_leftovers(path):
    """Remove the parts of a file whose writers are dead: those that nobody holds the lock of."""
    is_part = re.compile(rf"{re.escape(UNFINISHED)}\w{{8}}-{re.escape(path.name)}").fullmatch
    for part in [path.with_name(name) for name in os.listdir(path.parent) if is_part(name)]:
        with suppress(OSError), open(part, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def versions(*packages):
    """{"package": "version"} of installed packages, for metadata."""
    return {package: version(package) for package in packages}


def save_arrays(path, arrays, metadata):
    """Write named arrays with metadata (a flat dict of JSON values) as safetensors, always as the same bytes."""
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    shapes = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    _write_arrays(path, shapes, metadata, lambda name: [arrays[name].tobytes()])


def _write_arrays(path, shapes, metadata, parts):
    """Write a safetensors file. safetensors' own writer puts the metadata in an order of its own each time.

    shapes: {name: (dtype, shape)}; parts: name -> the array's bytes, in parts
    """
    names = sorted(shapes, key=lambda name: (-shapes[name][0].itemsize, name))  # aligned
    header, start = {"__metadata__": as_text(metadata)}, 0
    for name in names:
        dtype, shape = shapes[name]
        end = start + dtype.itemsize * int(np.prod(shape))
        header[name] = {"dtype": _SAFETENSORS[dtype.name], "shape": list(shape), "data_offsets": [start, end]}
        start = end
    with atomic_write(path) as part, open(part, "wb") as file:
        writer = ArrayWriter(file, header, start)
        for name in names:
            for content in parts(name):
                writer.write(content)
        writer.finish()


class ArrayStream:
    """Arrays that grow row by row on disk, [image, …]: memory does not grow with the number of images."""

    def __init__(self, folder):
        self.folder, self.files, self.arrays = folder, {}, {}

    def append(self, arrays):
        """Add rows to each of the named arrays; shapes [image, …] agree but for the number of rows."""
        for name, rows in arrays.items():
            if name not in self.files:  # without a name on disk, it goes with the process
                self.files[name] = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115
            dtype, shape = rows.dtype, rows.shape
            self.files[name].write(np.ascontiguousarray(rows))
            count = self.arrays[name][1][0] if name in self.arrays else 0
            self.arrays[name] = dtype, (count + shape[0], *shape[1:])

    def save(self, path, metadata, order_by=None):
        """Write all as one safetensors file, as save_arrays does; order_by: the array [image] that sorts the rows."""
        count = len(self.column(next(iter(self.arrays))))
        order = np.arange(count) if order_by is None else np.argsort(self.column(order_by), kind="stable")

        def parts(name):
            for start in range(0, count, ROWS):  # mapped anew each time: what was read counts as memory
                yield self.column(name)[order[start : start + ROWS]].tobytes()

        _write_arrays(path, self.arrays, metadata, parts)

    def column(self, name):
        """The rows of an array so far, read from disk when they are used; none if it has none."""
        dtype, shape = self.arrays.get(name, (np.dtype(float), (0,)))
        if not np.prod(shape):
            return np.empty(shape, dtype)
        self.files[name].flush()
        return np.memmap(self.files[name], dtype, "r", shape=shape)


_SAFETENSORS = {f"float{bits}": f"F{bits}" for bits in (16, 32, 64)} | {"bool": "BOOL"}
_SAFETENSORS |= {f"{kind}int{bits}": f"{kind or 'i'}{bits}".upper() for kind in ("", "u") for bits in (8, 16, 32, 64)}


def as_text(metadata):
    """Metadata as a file holds it: {key: text}, JSON where the value is no text."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in sorted(metadata.items())}


def load_arrays(path, *names):
    """(dict of the named arrays, all by default; metadata dict of strings). Raises InputError as open_arrays."""
    with open_arrays(path) as file:
        return {name: file.get_tensor(name) for name in names or file.keys()}, file.metadata()


def load_metadata(path):
    """The metadata of a file of arrays, a dict of strings, without reading the arrays."""
    with open_arrays(path) as file:
        return file.metadata()


def save_table(path, table):
    """Write a pandas table without its index, as CSV or Parquet by the path's ending. Floats in CSV keep 6 digits."""
    with atomic_write(path) as part:
        if str(path).endswith(".parquet"):
            write_parquet(part, table)
        else:
            table.to_csv(part, index=False, float_format="%.6g")


def save_pieces(path, pieces):
    """Write a CSV as save_table does, from tables of the same columns that follow each other, one at least."""
    with atomic_write(path) as part, open(part, "w", encoding="utf-8", newline="") as file:
        for number, piece in enumerate(pieces):
            piece.to_csv(file, index=False, float_format="%.6g", header=not number)


def save_latex(path, table):
    """Write a pandas table for a paper, two digits: "x" with its interval, "x_low" to "x_high", or with its "x_sd"."""
    shown = {}
    for name, values in table.items():
        base = name.removesuffix("_low").removesuffix("_high").removesuffix("_sd")
        if base != name and base in table and not (name.endswith("_sd") and f"{base}_low" in table):
            continue
        if pd.api.types.is_float_dtype(values):
            notes = [""] * len(table)
            if f"{name}_low" in table:
                bounds = zip(table[f"{name}_low"], table[f"{name}_high"])
                notes = ["" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]" for low, high in bounds]
            elif f"{name}_sd" in table:
                notes = ["" if np.isnan(spread) else f" ± {spread:.2f}" for spread in table[f"{name}_sd"]]
            if name in P_VALUES:
                values = ["" if np.isnan(p) else f"{p:.4f}" if p >= 5e-5 else "<0.0001" for p in values]
            else:
                values = ["" if np.isnan(value) else f"{value:.2f}{note}" for value, note in zip(values, notes)]
        elif values.dtype == object or pd.api.types.is_string_dtype(values):  # TeX stops at control characters
            values = values.map(_printable)
        shown[name.replace("_", " ")] = values
    text = pd.DataFrame(shown).to_latex(index=False, escape=True)
    with atomic_write(path) as part:
        for plain, latex in (("±", r"$\pm$"), ("–", "--"), ("<", "$<$"), (">", "$>$")):
            text = text.replace(plain, latex)
        part.write_text(text, encoding="utf-8")


def _printable(value):
    """A text with blanks for control characters; any other value as it is."""
    is_text = isinstance(value, str)
    return "".join(character if character.isprintable() else " " for character in value) if is_text else value


def over_seeds(table, scores, means=()):
    """One row for each combination of the other columns: mean and sample sd over seeds of scores, the mean of means.

    The bounds of intervals, "x_low" and "x_high", are averaged; of p values the largest counts, so that what they show
    holds for every seed. The sd of one seed is blank. The number of images, where a seed may lack unreadable ones, is a
    mean too and keeps its place.
    """
    bounds = [column for column in table.columns if column.endswith(("_low", "_high"))]
    values = {*scores, *means, *bounds, *P_VALUES}
    keys = [column for column in table.columns if column not in {"seed", "images", *values}]
    grouped = table.groupby(keys, sort=False, dropna=False)
    summary = {"seeds": grouped["seed"].agg(lambda seeds: ", ".join(map(str, sorted(set(seeds)))))}
    for column in (column for column in table.columns if column in values):
        known = grouped[column].count() == grouped.size()  # blank for one seed is blank for all
        summary[column] = grouped[column].agg("max" if column in P_VALUES else "mean").where(known)
        if column in scores:
            summary[f"{column}_sd"] = grouped[column].std()
    summary = pd.DataFrame(summary).reset_index()
    if "images" in table.columns and "images" not in means:
        images = grouped["images"].mean().to_numpy()
        place = sum(column in keys for column in table.columns[: table.columns.get_loc("images")])
        summary.insert(place, "images", images.astype(int) if (images % 1 == 0).all() else images)
    return summary


def with_source(table, source):
    """The table with the columns of `source` ({column: value}) in front: what it was computed from."""
    return table.assign(**source)[[*source, *(column for column in table.columns if column not in source)]]


def split_names(images):
    """The splits of a table of images in one word, such as "test+train"."""
    return "+".join(sorted(set(images["split"])))


def load_table(path, numbers=(), **selection):
    """Read a table that save_table wrote. Names stay text, a class "007" or "NA" too.

    Numbers may be blank in the columns `numbers`, and in those of intervals, deviations and tests, and what these
    belong to. selection: columns and filters of pd.read_parquet. Raises InputError for a damaged table.
    """
    if str(path).endswith(".parquet"):
        return pd.read_parquet(io.BytesIO(read_parquet(path)), **selection)
    with _damage_named(path):
        return pd.read_csv(path, **_reading(path, numbers))


def table_chunks(path, rows=100_000):
    """The rows of a CSV that save_table wrote as load_table reads them, some at a time; its columns alone if empty."""
    with _damage_named(path):
        yield from pd.read_csv(path, chunksize=rows, **_reading(path))


def first_row(path):
    """(number of rows of a CSV that save_table wrote, the first as a dict, empty without rows)."""
    count, first = 0, {}
    for chunk in table_chunks(path):
        first = first or next(iter(chunk.head(1).to_dict("records")), {})
        count += len(chunk)
    return count, first


@contextmanager
def _damage_named(path):
    """Raise InputError, naming a CSV, for what pandas cannot read of it."""
    try:
        yield
    except (StopIteration, ValueError, csv.Error) as error:  # pandas' own errors of CSV are ValueErrors
        reason = " ".join(str(error).split()).rstrip(".") or "it is empty"
        raise InputError(f"{path} is damaged: {reason}; remove it, and run again.") from error


def _reading(path, numbers=()):
    """How pandas reads a CSV of save_table, see load_table."""
    with open(path, encoding="utf-8", newline="") as file:
        header = next(csv.reader(file, strict=True))
    texts = [*NAMES, *(column for column in header if column.startswith(("high_", "low_")))]  # values of factors
    if {"image", "label", "class", "split"} <= set(header):  # of a manifest, whose factors are texts too
        texts = [column for column in header if column not in ("label", "row", "of_role")]
    bounded = [column for column in header if f"{column}_low" in header]
    numbers = [*numbers, *bounded, *P_VALUES, *(name for name in header if name.endswith(("_low", "_high", "_sd")))]
    return {
        "keep_default_na": False,
        "dtype": dict.fromkeys(texts, str),
        "na_values": {name: [""] for name in numbers},
    }
