"""Archives and pickles of others, which are not trusted.

Entries that point outside their folder or are no plain files are refused, archives may not unpack to far more than they
are, and pickles may hold plain data only.
"""

import gzip
import lzma
import pickle
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from typing import ClassVar

import numpy as np

from clipspectra import InputError
from clipspectra.data.tars import walk
from clipspectra.jobs import progress

UNPACKED = 20  # times its own size: the most that an archive may hold; pictures do not compress


@contextmanager
def open_tar(path):
    """Open a tar archive. Raises InputError if it is not a tar, damaged (by its check sum), cut off or a bomb."""
    try:
        with tarfile.open(path) as tar:
            _check_entries(tar, path)
            yield tar
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        if zipfile.is_zipfile(path):
            raise InputError(f"The archive {path} is a zip archive; the published one is a tar.") from error
        reason = str(error).splitlines()[0].rstrip(":")
        raise InputError(f"The archive {path} is damaged or cut off: {reason}. Fetch it again.") from error


def _check_entries(tar, path):
    """Read the headers of all entries, and what follows to the end, where the check sum of a compressed archive is."""
    total, most = 0, UNPACKED * path.stat().st_size + 2**26
    for entry in walk(tar):
        if not entry.name.isprintable():
            raise InputError(f"The archive {path} holds the name {entry.name!r}, which is no text; it is not trusted.")
        total += entry.size
        if total > most:
            raise InputError(f"The archive {path} would unpack to more than {most:,} bytes; it is not trusted.")


def extract_files(tar, path, folder, ending=""):
    """Write the files of an archive below a folder and list them, as paths from the folder above.

    Raises InputError for an entry that would leave the folder or is not a plain file.
    """
    names = []
    folder.mkdir(parents=True, exist_ok=True)
    with progress(tar, "unpacking", unit="file") as members:
        for member in members:
            if member.isdir():
                continue
            if not member.isfile():
                raise InputError(f"The archive {path} holds {member.name}, not a plain file; it is not trusted.")
            if not member.name.endswith(ending):
                continue
            if member.name.startswith("/") or ".." in member.name.split("/"):
                raise InputError(
                    f"The archive {path} holds {member.name}, which points outside its folder; it is not trusted."
                )
            tar.extract(member, folder, filter="data")
            names.append(f"{folder.name}/{member.name.removeprefix('./')}")
    return names


class _PlainData(pickle.Unpickler):
    """Reads pickles of dicts, lists, numbers, texts and numpy arrays; anything else is refused before it runs."""

    ALLOWED: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),
    }

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise InputError(f"it holds a pickle that calls {module}.{name}, which is not plain data")
        return self.ALLOWED[module, name]


def plain_data(file, path):
    """The dict in a pickle that may hold plain data only. Raises InputError naming the archive for anything else."""
    try:
        content = _PlainData(file, encoding="latin1").load()
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
        return {key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()}
    except InputError as error:
        raise InputError(f"The archive {path} is not trusted: {error}.") from error
    except Exception as error:  # damaged pickles raise errors of every kind
        raise InputError(f"The archive {path} holds a file that is not a CIFAR batch: {error}.") from error
