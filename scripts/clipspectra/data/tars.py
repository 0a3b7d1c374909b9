"""Files that lie in tar files, read where they are: an index of each tar, and files opened by their names.

A path such as tars/00000.tar/000000012.jpg, where tars/00000.tar.safetensors is the index of a tar, is opened like any
other by `opened`. What is read is checked against the entry's own header, so that a tar that was changed is noticed.
"""

import errno
import hashlib
import os
import posixpath
import tarfile
from array import array
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np

from clipspectra import InputError
from clipspectra.arrays import load_arrays, save_arrays

BLOCK = 512
# How files begin that are no tar, or one that cannot be read in place.
BEGINNINGS = {
    b"\x1f\x8b": "is compressed with gzip, so that no picture can be read in place; unpack it to a .tar first",
    b"BZh": "is compressed with bzip2, so that no picture can be read in place; unpack it to a .tar first",
    b"\xfd7zXZ": "is compressed with xz, so that no picture can be read in place; unpack it to a .tar first",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd, so that no picture can be read in place; unpack it to a .tar first",
    b"PK\x03\x04": "is a zip archive, not a tar",
    b"version https://git-lfs": "is a pointer of Git LFS, not the file itself; fetch it with git lfs pull",
    b"<": "is a page of HTML or XML, not a tar: perhaps its download was refused",
}
# What tarfile raises where the bytes are not what they should be.
DAMAGED = (tarfile.TarError, EOFError, ValueError, OverflowError, IndexError, MemoryError)


@contextmanager
def opened(path):
    """A file opened to read its bytes: one on the disk, or one that lies in an indexed tar.

    Raises OSError as `open` does, and InputError if the tar is not there any more, or not as it was.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115
    except (FileNotFoundError, NotADirectoryError):
        index = _index_above(Path(path))
        if index is None:
            for parent in Path(path).parents:
                if parent.suffix == ".tar" and "tars" in parent.parts and not parent.exists():
                    raise _lacks_index(f"{parent}{INDEX}", "is not there") from None
            raise
        with _opened_member(index, Path(path).relative_to(str(index)[: -len(INDEX)]).as_posix()) as file:
            yield file
        return
    with file:
        yield file


def is_file(path):
    """Whether `opened` finds a file: one on the disk, or a name in an indexed tar."""
    if Path(path).is_file():
        return True
    index = _index_above(Path(path))
    return (
        index is not None and _offset(index, Path(path).relative_to(str(index)[: -len(INDEX)]).as_posix()) is not None
    )


INDEX = ".safetensors"


def _index_above(path):
    """The index of the tar that a path leads into; None if there is none."""
    indexes = (Path(f"{parent}{INDEX}") for parent in path.parents if parent.suffix == ".tar")
    return next((index for index in indexes if index.is_file()), None)


@lru_cache(maxsize=16)
def _load_index(index):
    """(keys of the names, sorted; offsets; path of the tar; its size) of an index."""
    try:
        arrays, metadata = load_arrays(index)
    except InputError as error:
        raise _lacks_index(index, "is damaged") from error
    return (
        arrays["key"],
        arrays["offset"],
        os.path.join(os.path.dirname(index), metadata["tar"]),
        int(metadata["bytes"]),
    )


def _lacks_index(index, what):
    manifest = Path(index[: index.rindex("/tars/")] if "/tars/" in index else Path(index).parent, "manifest.csv")
    return InputError(
        f"{index}, the index of a tar file, {what}. Remove {manifest}, so that the tar files are listed anew, and run "
        "again."
    )


def _offset(index, name):
    """Where an entry of a tar begins; None if the index has no such name."""
    keys, offsets, *_ = _load_index(str(index))
    place = np.searchsorted(keys, np.uint64(_key(name)))
    return int(offsets[place]) if place < len(keys) and keys[place] == _key(name) else None


def _key(name):
    """64 bits that stand for a name; the name itself is compared when the entry is read."""
    return int.from_bytes(hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest(), "big")


@contextmanager
def _opened_member(index, name):
    offset = _offset(index, name)
    *_, tar, size = _load_index(str(index))
    if offset is None:
        raise FileNotFoundError(2, "No such file in the tar", f"{tar}/{name}")
    changed = InputError(f"The tar file {tar} has changed since its images were listed; run again to list them anew.")
    try:
        file = open(tar, "rb")  # noqa: SIM115
    except FileNotFoundError as error:
        raise InputError(f"The tar file {tar}, which holds {name}, is not there any more.") from error
    with file:
        if os.fstat(file.fileno()).st_size != size:
            raise changed
        file.seek(offset)
        try:
            archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115
            member = archive.next()
        except DAMAGED as error:
            raise changed from error
        if member is None or not is_plain(member) or member_name(member) != name:
            raise changed
        with archive, archive.extractfile(member) as content:
            yield content


def member_name(member):
    """An entry's name as a path has it: without the ./ that `tar cf x.tar .` puts before it, with single slashes."""
    return posixpath.normpath(member.name)


def is_plain(member):
    """Whether an entry is a file whose bytes lie in the tar as they are: no link, device, folder or sparse file."""
    return member.isreg() and not member.issparse()


def members(path):
    """Yield (TarInfo, TarFile) of each entry of a tar in order, then (None, TarFile); memory does not grow.

    Raises InputError if the file is not there, is no plain tar, is damaged or cut off, or has more after its end.
    """
    with _open_plain(path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in walk(tar):
                    tar.members.clear()  # or it keeps them all
                    yield member, tar
                yield None, tar  # still open, for what is read of the last entries
        except DAMAGED as error:
            reason = str(error).splitlines()[0].rstrip(":.") if str(error) else type(error).__name__
            raise InputError(f"The tar file {path} is damaged or cut off: {reason}. Fetch it again.") from error
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise InputError(
                f"The tar file {path} is damaged: an entry has an impossible size. Fetch it again."
            ) from error


@contextmanager
def _open_plain(path):
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError as error:
        raise InputError(f"The tar file {path} is not there.") from error
    with file:
        start = file.read(BLOCK).lstrip()
        for beginning, what in BEGINNINGS.items():
            if start.startswith(beginning):
                raise InputError(f"{path} {what}.")
        file.seek(0)
        yield file


def walk(tar):
    """Yield each entry of an open tarfile in order, and read what follows to the file's end, which must be zeros.

    tarfile itself takes a damaged header, and any end of the file, for the tar's end: here they raise ReadError.
    """
    last = -1
    while (member := tar.next()) is not None:
        if member.offset <= last or member.size < 0:
            raise tarfile.ReadError(f"the header at byte {member.offset} has a negative size")
        last = member.offset
        yield member
    tar.fileobj.seek(tar.offset)
    rest = tar.fileobj.read(BLOCK)
    if len(rest) < BLOCK:
        raise tarfile.ReadError("it has no mark of its end")
    if any(rest):
        raise tarfile.ReadError(f"there is no header at byte {tar.offset}")
    while rest := tar.fileobj.read(2**20):
        if rest.count(0) < len(rest):
            raise tarfile.ReadError("it goes on after its end, as if several tar files had been joined")


class TarIndex:
    """The index of a tar while it is listed: 16 bytes for each name that is to be read."""

    def __init__(self):
        self.keys, self.offsets = array("Q"), array("Q")

    def add(self, member):
        self.keys.append(_key(member_name(member)))
        self.offsets.append(member.offset)

    def save(self, index, tar):
        """Write it; index: path, which is the tar's name in the dataset with INDEX; tar: where the file is.

        Raises InputError if a name was added twice.
        """
        keys, offsets = np.array(self.keys, np.uint64), np.array(self.offsets, np.uint64)
        order = np.argsort(keys, kind="stable")
        keys, offsets = keys[order], offsets[order]
        twice = np.flatnonzero(keys[1:] == keys[:-1])
        if len(twice):
            with open(tar, "rb") as file:
                file.seek(int(offsets[twice[0]]))
                name = tarfile.open(fileobj=file, mode="r:").next().name  # noqa: SIM115
            raise InputError(f"The tar file {tar} holds {name} twice.")
        index = Path(index)
        index.parent.mkdir(parents=True, exist_ok=True)
        # A path in the working directory is stored as seen from the index, so that both can be moved together.
        real = os.path.join(os.path.realpath(os.path.dirname(tar)), os.path.basename(tar))
        stored = str(tar) if os.path.isabs(tar) else os.path.relpath(real, os.path.realpath(index.parent))
        metadata = {"tar": stored, "bytes": os.path.getsize(tar)}
        save_arrays(index, {"key": keys, "offset": offsets}, metadata)
