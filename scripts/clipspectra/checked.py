"""Stored files that hold digests of themselves, so that a damaged one is noticed when it is read, and is no result.

Digests are CRC-32, which notices every damage of up to 32 neighbouring bits and all but one of four billion others, and
costs little. They are no protection from a file that someone has made on purpose.

Arrays (safetensors): the metadata begins with "digests", in hex: of the header, with zeros in their place, and of each
PIECE of what follows it. Parquet: "digest" in its metadata, of the file with zeros in its place.
"""

import json
import os
import re
import zlib

from safetensors import SafetensorError, safe_open

from clipspectra import InputError

PIECE = 2**20  # bytes of arrays that have a digest of their own: what is not read is not checked
IN_ARRAYS = re.compile(rb'"digests": "([0-9a-f]*)"')
IN_PARQUET = b"\x18\x06digest\x18\x08"  # the key as Parquet writes it, before eight digits


def digits(digests):
    """Digests as hex digits, eight for each."""
    return "".join(f"{digest:08x}" for digest in digests)


class open_arrays:
    """`with open_arrays(path) as file`: a file of save_arrays, read as with safetensors' safe_open, but checked.

    Each PIECE is checked when it is first read in a process. Raises InputError for a file that is cut off or damaged,
    lacks an array, or has no digests, as those of versions before 0.9.
    """

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        self.raw = open(self.path, "rb")
        try:
            status = os.fstat(self.raw.fileno())
            stamp = status.st_ino, status.st_size, status.st_mtime_ns
            if _CHECKED.get(str(self.path), [None])[0] != stamp:
                _CHECKED[str(self.path)] = [stamp, *self._read_header(status.st_size)]
            _, self.entries, self.digests, self.checked, self.start = _CHECKED[str(self.path)]
            self.file = safe_open(self.path, "np").__enter__()
        except SafetensorError as error:
            self.raw.close()
            raise _damaged(self.path) from error
        except BaseException:
            self.raw.close()
            raise
        return self

    def __exit__(self, *error):
        self.raw.close()
        self.file.__exit__(*error)

    def _read_header(self, size):
        """(entries of the header by name, digests, whether each piece was checked, where the arrays start)."""
        start = 8 + int.from_bytes(self.raw.read(8), "little")
        encoded = self.raw.read(min(start, size) - 8) if size > 8 else b""
        if not (match := IN_ARRAYS.search(encoded)) or not match[1] or len(match[1]) % 8:
            raise _damaged(self.path)
        first, *digests = [int(match[1][place : place + 8], 16) for place in range(0, len(match[1]), 8)]
        blank = encoded[: match.start(1)] + b"0" * len(match[1]) + encoded[match.end(1) :]
        if zlib.crc32(blank) != first or len(digests) != -(-(size - start) // PIECE):
            raise _damaged(self.path)
        return json.loads(encoded), digests, bytearray(len(digests)), start

    def keys(self):
        """The names of the arrays."""
        return [name for name in self.entries if name != "__metadata__"]

    def metadata(self):
        """The metadata, a dict of strings."""
        return {key: value for key, value in self.entries["__metadata__"].items() if key != "digests"}

    def get_tensor(self, name):
        """A whole array."""
        self.check(name)
        return self.file.get_tensor(name)

    def get_slice(self, name):
        """An array of which parts can be read, file.get_slice(name)[5:10, 3]; get_shape() and get_dtype() of it."""
        return _Slice(self, name)

    def check(self, name, rows=slice(None)):
        """Compare the pieces that rows of an array lie in with their digests."""
        if name not in self.entries:
            raise _damaged(self.path)
        start, stop = self.entries[name]["data_offsets"]
        if shape := self.entries[name]["shape"]:
            first, last, _ = rows.indices(shape[0])
            start, stop = (start + (stop - start) * row // max(shape[0], 1) for row in (first, last))
        for number in range(start // PIECE, -(-stop // PIECE) if stop > start else 0):
            if not self.checked[number]:
                self.raw.seek(self.start + number * PIECE)
                if zlib.crc32(self.raw.read(PIECE)) != self.digests[number]:
                    raise _damaged(self.path)
                self.checked[number] = True


_CHECKED = {}  # what this process knows of a file, by its path: stamp, entries, digests, checked, start


class _Slice:
    def __init__(self, file, name):
        file.check(name, slice(0))
        self.file, self.name, self.slice = file, name, file.file.get_slice(name)
        self.get_shape, self.get_dtype = self.slice.get_shape, self.slice.get_dtype

    def __getitem__(self, index):
        rows = index[0] if isinstance(index, tuple) else index
        self.file.check(self.name, rows if isinstance(rows, slice) else slice(rows, rows + 1))
        return self.slice[index]


class ArrayWriter:
    """Writes a file of arrays from its header, {name: entry, "__metadata__": …}, and its bytes one after the other."""

    def __init__(self, file, header, size):
        """file: open for writing; size: of all arrays, in bytes"""
        zeros = digits([0] * (1 + -(-size // PIECE)))
        header = header | {"__metadata__": {"digests": zeros} | header["__metadata__"]}
        encoded = json.dumps({"__metadata__": header["__metadata__"]} | header).encode()
        encoded += b" " * (-len(encoded) % 8)
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        self.file, self.digests, self.filled = file, [zlib.crc32(encoded)], 0
        self.place = 8 + IN_ARRAYS.search(encoded).start(1)

    def write(self, content):
        """Append bytes of the arrays."""
        self.file.write(content)
        for start in range(-(self.filled % PIECE), len(content), PIECE):  # where pieces start
            if start >= 0:
                self.digests.append(0)
            self.digests[-1] = zlib.crc32(memoryview(content)[max(start, 0) : start + PIECE], self.digests[-1])
        self.filled += len(content)

    def finish(self):
        """Write the digests, once all arrays are there."""
        self.file.seek(self.place)
        self.file.write(digits(self.digests).encode())


def write_parquet(path, table):
    """Write a pandas table as Parquet with its digest."""
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pandas(table, preserve_index=False)
    parquet.write_table(table.replace_schema_metadata(table.schema.metadata | {b"digest": digits([0])}), path)
    content = bytearray(path.read_bytes())
    place = content.rindex(IN_PARQUET) + len(IN_PARQUET)
    content[place : place + 8] = digits([zlib.crc32(content)]).encode()
    path.write_bytes(content)


def read_parquet(path):
    """The bytes of a file of write_parquet, checked. Raises InputError for a damaged one."""
    with open(path, "rb") as file:
        content = bytearray(file.read())
    place = content.rfind(IN_PARQUET) + len(IN_PARQUET)
    digest, content[place : place + 8] = content[place : place + 8], digits([0]).encode()
    if digits([zlib.crc32(content)]).encode() != digest:
        raise _damaged(path)
    return content


def _damaged(path):
    return InputError(f"{path} is damaged, or of an older version; remove it, and run again.")
