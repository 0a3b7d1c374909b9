"""The user's files: listing them, and noticing changes. Imports neither numpy nor torch: the rules use it too."""

import csv
import hashlib
import os
import unicodedata
from pathlib import Path

# Names of files and folders that systems and programs put beside a user's pictures.
SYSTEM_NAMES = {
    *("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"),
    *("Thumbs.db", "ehthumbs.db", "desktop.ini"),
}


def visible_files(folder, parents=()):
    """Files below a folder, sorted, following links; hidden files and those of systems and programs are left out.

    parents: real paths of the folders above it, where links back end. Raises OSError for a folder that cannot be read.
    """
    real, result = os.path.realpath(folder), []
    if real in parents:
        return result
    for entry in os.scandir(folder):
        if not is_visible(entry.name):
            continue
        if entry.is_dir():
            result += visible_files(entry.path, (*parents, real))
        else:
            result.append(Path(entry.path))
    return sorted(result)


def is_visible(name):
    """Whether a file or folder is the user's, by its name: neither hidden nor made by a system or program."""
    return not name.startswith(".") and name not in SYSTEM_NAMES


def stamp(paths):
    """Digest of the names, sizes and times of the files that exist: notices a replaced file without reading it."""
    digest = hashlib.sha256()
    for path in sorted(map(str, paths)):
        try:
            status = os.stat(path)
        except OSError:
            continue
        digest.update(f"{os.path.basename(path)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="replace"))
    return digest.hexdigest()[:12]


def manifest_files(path, column):
    """The files that a manifest names in a column, see manifest_names, in the Unicode form that the disk has."""
    return [as_stored(os.path.join(os.path.dirname(path), name)) for name in manifest_names(path, column)]


def manifest_names(path, column):
    """What a manifest has in a column, once; none if it cannot be read, which the job that reads it reports."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
        index = [cell.strip() for cell in rows[0]].index(column)
    except (OSError, ValueError, IndexError, csv.Error):
        return set()
    return {row[index] for row in rows[1:] if len(row) > index} - {""}


def as_stored(path):
    """A path in the Unicode form that the disk has: ä may be one character or two, and a table may differ."""
    forms = [path, *(unicodedata.normalize(form, path) for form in ("NFC", "NFD"))]
    return next((form for form in forms if os.path.exists(form)), path)
