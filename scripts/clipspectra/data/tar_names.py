"""The tar files of a WebDataset, as a config names them: braces, names, digests. No numpy here: the rules use it."""

import itertools
import os
import posixpath
import re
import string
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from clipspectra import InputError

MOST = 1_000_000  # tar files of a dataset
COMPRESSED = (".gz", ".tgz", ".bz2", ".xz", ".zst")
INTEGERS = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?")
LETTERS = re.compile(r"([a-z])\.\.([a-z])|([A-Z])\.\.([A-Z])")
SUM = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+)")


class Tar(NamedTuple):
    """A tar file: its name in the dataset, where it is (a path or an address), and the split of its images."""

    name: str
    place: str
    split: str

    @property
    def is_remote(self):
        return "://" in self.place


def expand_braces(pattern):
    """The texts that a pattern stands for, as WebDataset expands it: {000..331}, {0..10..2}, {a..c}, {x,y}; in order.

    Raises InputError for braces inside braces, braces that do not close, and what is neither a range nor a list.
    """
    parts = re.split(r"\{([^{}]*)\}", pattern)
    if any(mark in part for part in parts[::2] for mark in "{}"):
        raise InputError(f"{pattern!r} has braces that do not close, or braces inside braces")
    choices = [[part] if number % 2 == 0 else _choices(part, pattern) for number, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MOST:
        raise InputError(f"{pattern!r} stands for {count} files, more than {MOST}")
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _choices(inside, pattern):
    """What stands between two braces, as a sequence of texts."""
    if match := INTEGERS.fullmatch(inside):
        first, last, step = match.groups()
        # As in bash: one number with a leading zero pads all to the longer of the two.
        padded = any(re.match("-?0.", number) for number in (first, last))
        width = max(len(first), len(last)) if padded else 0
        numbers = _steps(int(first), int(last), step)
        if len(numbers) > MOST:
            raise InputError(f"{pattern!r} stands for {len(numbers)} files, more than {MOST}")
        return [f"{number:0{width}d}" for number in numbers]
    if match := LETTERS.fullmatch(inside):
        first, last = (string.ascii_letters.index(letter) for letter in match.groups() if letter)
        return [string.ascii_letters[number] for number in _steps(first, last, None)]
    if "," not in inside:
        raise InputError(
            f"{pattern!r} has {{{inside}}}, which is neither a range like {{000..331}} nor a list like {{a,b}}"
        )
    return inside.split(",")


def _steps(first, last, step):
    step = int(step or 1) or 1
    return range(first, last + 1, step) if first <= last else range(first, last - 1, -step)


def tar_files(shards):
    """The tar files that a dataset's `shards` name, in order: a pattern, or {split: pattern}.

    Patterns are expanded by expand_braces; "::" stands between several. A tar file is named by its path without the
    folders that all paths, or all addresses, have in common. Raises InputError for what cannot be read in place, and
    for a file named twice.
    """
    patterns = {"all": shards} if isinstance(shards, str) else shards
    places, splits = [], []
    for split, pattern in patterns.items():
        for part in pattern.split("::"):
            expanded = expand_braces(part.strip())
            places += expanded
            splits += [split] * len(expanded)
    parts = [_parts(place) for place in places]
    names = [""] * len(places)
    for remote in (False, True):
        chosen = [number for number, place in enumerate(places) if ("://" in place) == remote]
        common = _common([parts[number][:-1] for number in chosen])
        for number in chosen:
            names[number] = "/".join(part for part in parts[number][common:] if part not in ("", ".."))
    place_of = {}
    for name, place in zip(names, places):
        if name in place_of:
            raise InputError(
                f"{place} is named twice"
                if place == place_of[name]
                else f"{place} and {place_of[name]} are both {name}"
            )
        place_of[name] = place
    return [Tar(*row) for row in zip(names, map(os.path.expanduser, places), splits)]


def _common(folders):
    """How many parts all folders have in common at their beginnings."""
    columns = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*folders))
    return len(list(columns))


def _parts(place):
    """The parts of a path or address, the last of them the file's name. Raises InputError if that is not of a tar."""
    path = place
    if re.match(r"[a-z][a-z0-9+.-]*:", place):
        if not place.startswith(("http://", "https://")):
            raise InputError(f"{place} is neither a file nor an address that begins with http; fetch it yourself first")
        address = urlsplit(place)
        path = f"{address.netloc}/{unquote(address.path)}"
        if ".." in path.split("/"):
            raise InputError(f"{place} holds '..'")
    path = posixpath.normpath(os.path.expanduser(path))
    if not os.path.exists(path) and path == place and re.search(r"[*?\[]", path):
        raise InputError(f"{place} has a wildcard; name the files with braces, such as {{00000..00331}}.tar")
    if path.lower().endswith(COMPRESSED):
        raise InputError(f"{place} is compressed, so that no picture can be read in place; unpack it to a .tar first")
    if os.path.isdir(path):
        raise InputError(f"{place} is a folder; name its tar files, such as {place.rstrip('/')}/{{00000..00009}}.tar")
    if not path.endswith(".tar"):
        raise InputError(f"{place} does not end in .tar")
    return tuple(path.split("/"))


def read_sums(path):
    """{file: sha256} of a file as sha256sum writes it. Raises InputError for a line that is no digest and a file."""
    sums = {}
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            match = SUM.fullmatch(line.rstrip("\r\n"))
            if match:
                sums[posixpath.normpath(match[2])] = match[1].lower()
            elif line.strip():
                raise InputError(
                    f"{path}, line {number}, is not a digest and a file as sha256sum writes: {line[:80]!r}"
                )
    return sums


def expected_sum(tar, sums):
    """{"sha256": hex} of a tar file from {file: sha256}, by as much of its path as the sums have; {} without sums.

    Raises InputError if it has none.
    """
    if not sums:
        return {}
    parts = _parts(tar.place)
    for start in range(len(parts)):
        if digest := sums.get("/".join(parts[start:])):
            return {"sha256": digest}
    raise InputError(f"there is no digest of {tar.name}")
