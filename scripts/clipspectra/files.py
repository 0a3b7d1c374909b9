"""Files of the user's own: which there are, and whether they changed. Without numpy or torch: the rules read it too."""

import csv
import hashlib
import os
from pathlib import Path


def visible_files(folder):
    """Files below a folder, links followed, sorted; none whose name, or a folder's above it, is hidden or __MACOSX."""
    result, entered = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in entered else sorted(filter(is_visible, folders))
        if real not in entered:
            result += [Path(place) / name for name in sorted(filter(is_visible, names))]
        entered.add(real)
    return sorted(result)


def is_visible(name):
    """Whether a file or folder is the user's, and not a copy or note that a program keeps beside it."""
    return not name.startswith(".") and name != "__MACOSX"


def stamp(paths):
    """Digest of the names, sizes and times of files, as far as they are there: a replaced file is noticed, unread."""
    digest = hashlib.sha256()
    for path in sorted(map(str, paths)):
        try:
            about = os.stat(path)
        except OSError:
            continue
        digest.update(f"{os.path.basename(path)}\0{about.st_size}\0{about.st_mtime_ns}\n".encode(errors="replace"))
    return digest.hexdigest()[:12]


def manifest_files(path, column):
    """The files that a manifest names in a column; none if it cannot be read, which the job that reads it says."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            names = {row.get(column) for row in csv.DictReader(file)}
    except (OSError, ValueError, csv.Error):
        return []
    return [os.path.join(os.path.dirname(path), name) for name in names if name]
