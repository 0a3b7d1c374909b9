"""Files that appear whole or not at all: arrays as safetensors, tables as CSV or Parquet, and what they came from."""

import json
import os
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open
from safetensors.numpy import save_file

NAMES = ("image", "mask", "class", "group", "split", "text")  # columns of names, whatever they look like


@contextmanager
def whole(path):
    """A path to write to; moved to `path` at the end, removed after an error."""
    path = Path(path)
    part = path.with_name(f".part-{path.name}")
    try:
        yield part
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)  # safetensors writes files that nobody else may read
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def versions(*packages):
    """{"package": "version"} of installed packages, for metadata."""
    return {package: version(package) for package in packages}


def save_arrays(path, arrays, metadata):
    """Write named arrays with metadata (a flat dict of JSON values) as safetensors."""
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in sorted(metadata.items())}
    with whole(path) as part:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, part, metadata=text)


def load_arrays(path, *names):
    """(dict of the named arrays, all by default; metadata dict of strings)."""
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in names or file.keys()}, file.metadata() or {}


def save_table(path, table):
    """Write a pandas table without its index, as CSV or Parquet by the path's ending. Floats in CSV keep 6 digits."""
    with whole(path) as part:
        if str(path).endswith(".parquet"):
            table.to_parquet(part, index=False)
        else:
            table.to_csv(part, index=False, float_format="%.6g")


def load_table(path):
    """Read a table that save_table wrote. Names stay text, a class "007" or "NA" too."""
    if str(path).endswith(".parquet"):
        return pd.read_parquet(path)
    return pd.read_csv(path, keep_default_na=False, dtype=dict.fromkeys(NAMES, str))
