"""Tables written by hand or with Excel, read strictly: every value is a text, every row has all columns."""

import csv
import io
from itertools import islice

import pandas as pd

from clipspectra import InputError

BLOCK = 2**24  # bytes of a file in memory
CHUNK = 50_000  # rows in memory as Python's texts, at six times the size of a table's
SAVE_AS_UTF8 = "save it as UTF-8 (in Excel: 'CSV UTF-8', with commas)"
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
# Blanks of all kinds and widths, and marks of zero width.
INVISIBLE = "".join(map(chr, [*range(9, 14), *range(28, 33), 0x85, 0xA0, *range(0x2000, 0x2010), 0x2028, 0x2029]))
INVISIBLE += "\u202f\u2060\u3000\ufeff"


def read_own_table(source, name=None, separator=","):
    """A CSV as a table of texts, its index the line where each row ends; arguments as those of own_table_pieces."""
    return pd.concat(own_table_pieces(source, name, separator))


def own_table_pieces(source, name=None, separator=","):
    """Yield the rows of a CSV as tables of texts, CHUNK rows at a time, the index the line where each row ends.

    source: path, or bytes; name: in messages, instead of the path; separator: between values

    Blank rows, and columns without a name, are left out. Raises InputError naming the line for what is ambiguous:
    another encoding or separator, rows that are too long or too short, two columns of the same name.
    """
    name = name or source
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as raw:
        _check_utf8(raw, name)  # as a whole first, so that its message comes before others
        raw.seek(0)
        text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
        rows = _filled_rows(csv.reader(text, delimiter=separator, strict=True), name)
        header = _header(rows, name)
        named, widths, padded = [column for column in header if column], set(), None
        while (chunk := list(islice(rows, CHUNK))) or not widths:
            for line, row in chunk:
                widths.add(len(row))
                if len(row) != len(header):
                    if len(row) < len(header) or any(cell.strip(INVISIBLE) for cell in row[len(header) :]):
                        raise _wrong_length(name, line, len(row), header)
                    padded = padded or (line, len(row))
                    del row[len(header) :]
            # A comma after every row adds no column; after some rows only, values may be shifted.
            if padded and len(widths) > 1:
                raise _wrong_length(name, *padded, header)
            if not chunk:
                yield pd.DataFrame(columns=header, dtype=str)[named]
                return
            lines, values = [line for line, _ in chunk], [row for _, row in chunk]
            yield pd.DataFrame(values, columns=header, index=lines, dtype=str)[named]


def _check_utf8(raw, name):
    """Raise InputError, as decode_utf8 does, for a file that is not UTF-8, without holding all of it."""
    line = 1
    while block := raw.read(BLOCK) + raw.readline():
        decode_utf8(block, name, line)
        line += block.count(b"\n")


def _header(rows, name):
    """The names of a table's columns, from its first row, or the second after Excel's note of the separator."""
    _, header = next(rows, (0, None))
    if header and header[0].startswith("sep=") and not any(header[1:]):
        _, header = next(rows, (0, None))
    if not header:
        raise InputError(f"{name} is empty.")
    header = [cell.strip(INVISIBLE) for cell in header]
    if len(header) == 1:
        for mark, plural in SEPARATORS.items():
            if mark in header[0]:
                raise InputError(
                    f"{name} is separated by {plural}, as Excel does where the comma is the decimal mark; use commas, "
                    f"in Python by pd.read_csv(FILE, sep={mark!r}, dtype=str).to_csv('commas.csv', index=False)."
                )
    duplicates = [column for column in header if column and header.count(column) > 1]
    if duplicates:
        raise InputError(f"{name} has two columns '{duplicates[0]}'.")
    return header


def _filled_rows(reader, name):
    """Yield (line where it ends, row) of each row that is not blank."""
    try:
        for row in reader:
            if any(cell.strip(INVISIBLE) for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.line_num}, cannot be read: {error}.") from error


def _wrong_length(name, line, width, header):
    return InputError(
        f"{name}, line {line}, has {width} values where the header has {len(header)}; a comma inside a value needs "
        "quotes around it."
    )


def invisible_blank(column):
    """(index, value) of a column's first value that begins or ends with an invisible character; None if none does."""
    for index, value in column.items():
        if value != value.strip(INVISIBLE):
            return index, value
    return None


def decode_utf8(raw, name, first_line=1):
    """The text of a file that must be UTF-8, or of a part that begins with a line of it.

    Raises InputError that says what the file seems to be instead.
    """
    start = raw[:1000] if first_line == 1 else b""
    if start.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise InputError(f"{name} is an Excel workbook; {SAVE_AS_UTF8}.")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or start.count(b"\0") > len(start) // 4:
        raise InputError(f"{name} is not UTF-8 but UTF-16; {SAVE_AS_UTF8}.")
    if start.startswith(b"\x1f\x8b"):
        raise InputError(f"{name} is a gzip archive; unpack it first.")
    if b"\0" in raw:
        line = raw[: raw.index(b"\0")].count(b"\n") + first_line
        raise InputError(f"{name} is not a text: line {line} holds a zero byte.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + first_line
        problem = f"line {line}, is not UTF-8 (it may be Latin-1 or Windows-1252)"
        raise InputError(f"{name}, {problem}; {SAVE_AS_UTF8}.") from error
