"""Files of the user's own: which there are, and whether they changed. Without numpy or torch: the rules read it too."""

import csv
import hashlib
import os
import unicodedata
from pathlib import Path

# What systems and programs put beside a user's pictures.
NOT_THEIRS = {
    *("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"),
    *("Thumbs.db", "ehthumbs.db", "desktop.ini"),
}


def visible_files(folder, above=()):
    """Files below a folder, links followed, sorted; none that is hidden or not the user's, nor in such a folder.

    above: the folders that it lies in, for links that lead back. Raises OSError for a folder that cannot be read.
    """
    real, result = os.path.realpath(folder), []
    if real in above:
        return result
    for entry in os.scandir(folder):
        if not is_visible(entry.name):
            continue
        if entry.is_dir():
            result += visible_files(entry.path, (*above, real))
        else:
            result.append(Path(entry.path))
    return sorted(result)


def is_visible(name):
    """Whether a file or folder is the user's, by its name, and no copy or note that a program keeps beside it."""
    return not name.startswith(".") and name not in NOT_THEIRS


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
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
        place = [cell.strip() for cell in rows[0]].index(column)
    except (OSError, ValueError, IndexError, csv.Error):
        return []
    names = {row[place] for row in rows[1:] if len(row) > place}
    return [as_stored(os.path.join(os.path.dirname(path), name)) for name in names if name]


def as_stored(path):
    """A path as the disk has it: systems write ä as one letter or as two, and a table may have the other form."""
    forms = [path, *(unicodedata.normalize(form, path) for form in ("NFC", "NFD"))]
    return next((form for form in forms if os.path.exists(form)), path)
