"""What may be too large for memory: rows that SQLite sorts and compares on disk, and arrays in temporary files.

Both lie where programs keep temporary files, in a job of Snakemake the folder of its resource tmpdir, and end with the
process.
"""

import errno
import os
import sqlite3
import tempfile
from collections import Counter
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter

import numpy as np

CACHE = 16_000  # KiB that SQLite holds in memory


@contextmanager
def database(*tables):
    """An empty SQLite database on disk with these tables, each "name (column type, …)".

    Raises OSError where the disk is full, or cannot be written.
    """
    connection = sqlite3.connect("")
    try:
        for pragma in (f"cache_size = {-CACHE}", "journal_mode = OFF", "temp_store = FILE"):
            connection.execute(f"PRAGMA {pragma}")
        for table in tables:
            connection.execute(f"CREATE TABLE {table}")
        yield connection
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise
        raise _no_room(error) from error
    finally:
        connection.close()


def _no_room(error):
    """The OSError of a full disk, or of a file that cannot be written: of a used-up quota SQLite says only that."""
    if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), tempfile.gettempdir())
    reason = "a temporary file cannot be written; is a quota used up, or is the disk damaged?"
    return OSError(errno.EIO, reason, tempfile.gettempdir())


def pieces_of(cursor, rows=50_000):
    """The rows of a query as columns, some rows at a time: tuples of values, by column."""
    while piece := cursor.fetchmany(rows):
        yield tuple(zip(*piece))


def array_on_disk(count, dtype):
    """An array of zeros [count] in a temporary file: what of it is in memory, the system may write back.

    Raises OSError where the disk is full.
    """
    if not count:
        return np.zeros(0, dtype)
    with tempfile.TemporaryFile() as file:  # stays as long as it is mapped
        if hasattr(os, "posix_fallocate"):  # not on a Mac; a full disk would end the process later, without a word
            os.posix_fallocate(file.fileno(), 0, count * np.dtype(dtype).itemsize)
        return np.asarray(np.memmap(file, dtype, "w+", shape=count))


def common(sets):
    """How many texts each two of several sets have in common, int [set, set]; on the diagonal how many each has.

    sets: iterables of texts, in which a text may come again
    """
    with database("texts (text TEXT, number INTEGER)") as rows:
        count = 0
        for number, texts in enumerate(sets):
            rows.executemany("INSERT INTO texts VALUES (?, ?)", ((text, number) for text in texts))
            count = number + 1
        ordered = rows.execute("SELECT DISTINCT text, number FROM texts ORDER BY text, number")
        members = Counter(tuple(number for _, number in group) for _, group in groupby(ordered, itemgetter(0)))
    numbers = np.zeros((count, count), int)
    for inside, texts in members.items():
        numbers[np.ix_(inside, inside)] += texts
    return numbers
