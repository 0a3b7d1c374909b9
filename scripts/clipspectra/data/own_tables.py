"""Tables written by hand or with Excel, read strictly: every value is a text, every row has all columns."""

import csv
import io
from pathlib import Path

import pandas as pd

from clipspectra import InputError

SAVE_AS_UTF8 = "save it as UTF-8 (in Excel: 'CSV UTF-8', with commas)"
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
# Blanks of all kinds and widths, and marks of zero width.
INVISIBLE = "".join(map(chr, [*range(9, 14), *range(28, 33), 0x85, 0xA0, *range(0x2000, 0x2010), 0x2028, 0x2029]))
INVISIBLE += "\u202f\u2060\u3000\ufeff"


def read_own_table(source, name=None, separator=","):
    """A CSV as a table of texts, its index the line where each row ends.

    source: path, or bytes; name: in messages, instead of the path; separator: between values

    Blank rows, and columns without a name, are left out. Raises InputError naming the line for what is ambiguous:
    another encoding or separator, rows that are too long or too short, two columns of the same name.
    """
    name = name or source
    raw = source if isinstance(source, bytes) else Path(source).read_bytes()
    reader = csv.reader(io.StringIO(decode_utf8(raw, name), newline=""), delimiter=separator, strict=True)
    rows, lines = [], []
    try:
        for row in reader:
            if any(cell.strip(INVISIBLE) for cell in row):
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.line_num}, cannot be read: {error}.") from error
    if rows and rows[0][0].startswith("sep=") and not any(rows[0][1:]):  # Excel's note of the separator
        rows, lines = rows[1:], lines[1:]
    if not rows:
        raise InputError(f"{name} is empty.")
    header = [cell.strip(INVISIBLE) for cell in rows[0]]
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
    # A comma after every row adds no column; after some rows only, values may be shifted.
    all_padded = {len(row) for row in rows[1:]} == {max(map(len, rows[1:]), default=0)}
    for line, row in zip(lines[1:], rows[1:]):
        extra = row[len(header) :]
        if len(row) < len(header) or any(cell.strip(INVISIBLE) for cell in extra) or (extra and not all_padded):
            raise InputError(
                f"{name}, line {line}, has {len(row)} values where the header has {len(header)}; a comma inside a "
                "value needs quotes around it."
            )
    table = pd.DataFrame([row[: len(header)] for row in rows[1:]], columns=header, index=lines[1:], dtype=str)
    return table[[column for column in header if column]]


def invisible_blank(column):
    """(index, value) of a column's first value that begins or ends with an invisible character; None if none does."""
    for index, value in column.items():
        if value != value.strip(INVISIBLE):
            return index, value
    return None


def decode_utf8(raw, name):
    """The text of a file that must be UTF-8. Raises InputError that says what the file seems to be instead."""
    if raw.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise InputError(f"{name} is an Excel workbook; {SAVE_AS_UTF8}.")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or raw[:1000].count(b"\0") > len(raw[:1000]) // 4:
        raise InputError(f"{name} is not UTF-8 but UTF-16; {SAVE_AS_UTF8}.")
    if raw.startswith(b"\x1f\x8b"):
        raise InputError(f"{name} is a gzip archive; unpack it first.")
    if b"\0" in raw:
        line = raw[: raw.index(b"\0")].count(b"\n") + 1
        raise InputError(f"{name} is not a text: line {line} holds a zero byte.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        problem = f"line {line}, is not UTF-8 (it may be Latin-1 or Windows-1252)"
        raise InputError(f"{name}, {problem}; {SAVE_AS_UTF8}.") from error
