"""Whether a study gives the same bytes elsewhere: on another path, with other cores, threads, batches and shards.

The small study of tests/clones.py runs once as it is, and once for each row of the table that is printed (`make
test-same`). Every file of its results is compared, but logs, benchmarks and the report, which has Snakemake's times.
What is not the same bytes is compared number by number; the shards of another number of shards, row by row.
"""

import argparse
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from clones import Clone, environment

from clipspectra.arrays import load_arrays

SPECIAL = 'a clone, (its) $path & "all"'  # to the shell
ELSEWHERE = {"PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Pacific/Kiritimati", "HOME": None}
LEFT_OUT = ("logs", "benchmarks", "report.zip")
SAY_SHARDS = ("config.json", "tables/exactness", "explorer/exactness", "paper.pdf")
TOLERANCE = 1e-6  # of a number that is not the same bytes, where docs/environments.md states no other


@dataclass
class Conditions:
    """What differs from the run that all are compared with."""

    changes: dict = field(default_factory=dict)  # entries of the config
    folder: str = "clone"
    cores: int = 2
    variables: dict = field(default_factory=dict)  # of the environment; None takes one away
    umask: int = 0o022
    unlike: tuple = ()  # results that say how the study was run, by the beginnings of their names
    tolerances: dict = field(default_factory=dict)  # {beginning of a name: largest difference}

    def allow(self, name):
        """The largest difference of a result's numbers."""
        return max((most for start, most in self.tolerances.items() if name.startswith(start)), default=TOLERANCE)


CONDITIONS = {
    "again": Conditions(),
    'another path, with blanks and `()$&"`; one core': Conditions(folder=SPECIAL, cores=1),
    "another hash seed, locale, time zone and umask, no HOME": Conditions(variables=ELSEWHERE, umask=0o077),
    # Rounding decides for pixels that were equal: whole pixels of an image, in the scores that are stored.
    "`threads: 2`": Conditions({"threads": 2}, tolerances={"segmentation": 1e-3, "tables/segmentation": 1e-5}),
    "`batch_size: 7`": Conditions({"batch_size": 7}),
    "`shards: 3`": Conditions({"shards": 3}, unlike=SAY_SHARDS),
}


def small_clone(place, conditions):
    """A Clone under these conditions, with a Python of its own, so that it is as special to the shell as the path."""
    folder = place / conditions.folder
    folder.mkdir(parents=True)
    clone = Clone(folder)
    (folder / ".venv" / "bin").unlink()
    venv.create(folder / ".venv", symlinks=True)
    (packages,) = (folder / ".venv").glob("lib/python*/site-packages")
    (packages / "shared.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    clone.configure(**conditions.changes)
    return clone


def run(clone, conditions, *targets):
    """Run the workflow of a clone with its own Python; the result of subprocess.run."""
    variables = environment() | conditions.variables
    python = clone.directory / ".venv" / "bin" / "python"
    return subprocess.run(
        [python, "-m", "snakemake", "--cores", str(conditions.cores), "--quiet", "all", "--", *targets],
        cwd=clone.directory,
        env={name: value for name, value in variables.items() if value is not None},
        umask=conditions.umask,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def results_of(clone):
    """{path below results: the file}, hidden ones, logs, benchmarks and the report left out."""
    results = clone.directory / "results"
    paths = {path.relative_to(results): path for path in results.rglob("*") if path.is_file()}
    return {
        str(name): path for name, path in paths.items() if name.parts[0] not in LEFT_OUT and name.name[0] not in "._"
    }


def shards_as_one(files):
    """{folder of activations: {array: rows of all its shards, by row}}."""
    folders = {}
    for name, path in files.items():
        if "/shard-" in name:
            folders.setdefault(name.rpartition("/")[0], []).append(load_arrays(path)[0])
    joined = {}
    for folder, parts in folders.items():
        parts = [part for part in parts if len(part["row"])]
        order = np.argsort(np.concatenate([part["row"] for part in parts]))
        joined[folder] = {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}
    return joined


def difference(first, second):
    """(largest difference of the numbers of two files, beside 1 or their size; what else differs, in words)."""
    if str(first).endswith((".csv", ".parquet")):
        read = pd.read_csv if str(first).endswith(".csv") else pd.read_parquet
        tables = [read(path) for path in (first, second)]
        if list(tables[0]) != list(tables[1]) or len(tables[0]) != len(tables[1]):
            return np.inf, "rows or columns"
        pairs = [[table[column].to_numpy() for table in tables] for column in tables[0]]
    elif str(first).endswith(".safetensors"):
        arrays = [load_arrays(path)[0] for path in (first, second)]
        if {name: array.shape for name, array in arrays[0].items()} != {n: a.shape for n, a in arrays[1].items()}:
            return np.inf, "shapes"
        pairs = [[of_file[name] for of_file in arrays] for name in arrays[0]]
    else:
        return 0.0, "bytes"
    numbers = [pair for pair in pairs if all(np.issubdtype(array.dtype, np.floating) for array in pair)]
    texts = [pair for pair in pairs if not all(np.issubdtype(array.dtype, np.number) for array in pair)]
    largest = max((_largest(*pair) for pair in numbers), default=0.0)
    other = sum(int((a.astype(str) != b.astype(str)).sum()) for a, b in texts)
    return largest, f"{other} texts" if other else ""


def _largest(a, b):
    a, b = a.astype(float), b.astype(float)
    both = np.isfinite(a) & np.isfinite(b)
    if (np.isfinite(a) != np.isfinite(b)).any():
        return np.inf
    return float((np.abs(a - b) / np.maximum(1, np.abs(b)))[both].max(initial=0))


def compare(first, second, unlike=()):
    """(number of files of the second clone, those that are not the same bytes in the first: {name: difference})."""
    files, others = results_of(first), results_of(second)
    names = sorted(name for name in others if "/shard-" not in name and not name.startswith(unlike))
    changed = {}
    for name in names:
        if name not in files:
            changed[name] = (np.inf, "absent")
        elif files[name].read_bytes() != others[name].read_bytes():
            changed[name] = difference(files[name], others[name])
    joined, other_joined = shards_as_one(files), shards_as_one(others)
    for folder, arrays in other_joined.items():
        for name, array in arrays.items():
            if name == "model_error":  # the images that are checked are the first of each shard
                continue
            if array.tobytes() != joined[folder][name].tobytes():
                changed[f"{folder}/shards: {name}"] = (_largest(array, joined[folder][name]), "")
    return len(names) + len(other_joined), changed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", default=["all"], help="what to make, all by default")
    parser.add_argument("--only", action="append", help="a word of the rows to run, all by default")
    options = parser.parse_args()
    print("| conditions | files | not the same bytes | largest difference | texts and bytes |\n|---|---|---|---|---|")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        first = None
        for number, (words, conditions) in enumerate({"as it is": Conditions(), **CONDITIONS}.items()):
            if number and options.only and not any(word in words for word in options.only):
                continue
            clone = small_clone(Path(folder) / str(number), conditions)
            result = run(clone, conditions, *options.targets)
            if result.returncode:
                sys.exit(f"{words}:\n{result.stdout}")
            if first is None:
                first = clone
                continue
            count, changed = compare(first, clone, conditions.unlike)
            largest = max((number for number, _ in changed.values()), default=0)
            other = ", ".join(f"{name}: {what}" for name, (_, what) in changed.items() if what)
            print(f"| {words} | {count} | {len(changed)} | {largest:.1e} | {other or 'none'} |", flush=True)
            for name, (number, what) in changed.items():
                print(f"{name}: {number:.1e} {what}", file=sys.stderr)
            failed |= any(what or number > conditions.allow(name) for name, (number, what) in changed.items())
    sys.exit(failed)


if __name__ == "__main__":
    main()
