"""The files that the page reads: script files, because a page opened from disk may load scripts and pictures alone.

A part is one call, part("key", value), in a file named as its key. Values are JSON without blanks, numbers rounded, so
that the same results give the same bytes.
"""

import json
from pathlib import Path

import numpy as np

from clipspectra import InputError
from clipspectra.contributions.stored import EMBEDDING

VERSION = 1  # of the layout of the files; explorer/app/data.js has the one that the page reads
DIGITS = 3  # significant, of numbers


def write_part(folder, key, value):
    """Write a value of dicts, lists, texts and numbers as the part `key` below a folder, which it makes."""
    path = Path(folder, f"{key}.js")
    path.parent.mkdir(parents=True, exist_ok=True)
    arguments = ",".join(
        json.dumps(argument, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
        for argument in (key, value)
    )
    path.write_bytes(f"part({arguments});\n".encode("utf-8", "replace"))  # names of files may hold any bytes


def _plain(value):
    """What json does not know of: arrays, and numpy's numbers."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    raise TypeError(f"a part holds no {type(value).__name__}")


def rounded(values, digits=DIGITS):
    """A number or an array as plain numbers of so many significant digits, whole ones without a point; NaN as None."""
    if np.ndim(values):
        return [rounded(value, digits) for value in values]
    value = float(values)
    if not np.isfinite(value):
        return None
    value = float(f"{value:.{digits}g}")
    return int(value) if value.is_integer() else value


def unit_name(layer, head):
    """A head in addresses and file names: "3.1", or "embedding" for the whole embedding."""
    return "embedding" if layer == EMBEDDING else f"{layer}.{head}"


def is_head(unit):
    """Whether a unit, (layer, head), is a head, not the whole embedding."""
    return unit[0] != EMBEDDING


def run_folder(model, dataset, seed, texts):
    """Folder of the parts of one run: a model, a dataset, a seed and a text pool."""
    return f"runs/{model}/{dataset}/seed-{seed}/{texts}"


def require_columns(table, columns, path):
    """Raise InputError unless a stored table has all columns: one of an older version lacks some."""
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(
            f"{path} was written by an older version of the code, without the column {missing[0]}; remove it, and run "
            "again."
        )
