"""Text pools: the user's lists of candidate texts from files, tables and templates."""

import io
import json
import math
import string
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.data import strict_yaml
from clipspectra.data.own_tables import INVISIBLE, decode_utf8, read_own_table

MAX_TEXTS = 10_000_000  # of a pool of templates
MAX_LETTERS = 10_000  # of a text; models read some hundreds, and tokenizers take hours for millions


def read_pool(path, column=None):
    """(texts, {"blank": n, "double": n} dropped) of a UTF-8 file with one text per line.

    column: of a table (.csv, .tsv, .jsonl, .json, .parquet), the column that holds the texts; may be left out if the
    only column is one of TEXT_COLUMNS. Lines end at \\n, \\r\\n or \\r only, as in the reference.
    """
    kind = Path(path).suffix.lower()
    if kind in (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet"):
        lines = _read_column(path, kind, column)
    elif column is not None:
        tables = ".csv, .tsv, .jsonl, .json, .parquet"
        raise InputError(f"The text pool {path} has no columns; 'column' is only for tables ({tables}).")
    else:
        lines = io.StringIO(decode_utf8(Path(path).read_bytes(), path), newline=None).read().split("\n")
        if not lines[-1]:
            lines.pop()  # no line follows the last line end
    return clean_pool(lines, path)


# Headers by which the only column of a table is taken for its texts.
TEXT_COLUMNS = {"text", "texts", "caption", "captions", "title", "sentence", "description", "prompt", "word", "name"}


def _read_column(path, kind, column):
    """The texts of one column of a table file."""
    if kind in (".csv", ".tsv"):
        table = read_own_table(path, separator="\t" if kind == ".tsv" else ",")
    elif kind == ".parquet":
        try:
            table = pd.read_parquet(path)
        except Exception as error:
            raise InputError(f"The text pool {path} cannot be read as Parquet: {error}.") from error
    else:
        table = _read_json(path)
    if column is None and len(table.columns) == 1 and str(table.columns[0]).lower() in TEXT_COLUMNS:
        column = table.columns[0]
    if column not in table.columns:
        problem = f"has no column '{column}'" if column else "is a table"
        raise InputError(
            f"The text pool {path} {problem}; set 'column' in the config to the one that holds the texts: "
            f"{', '.join(map(str, table.columns))}. A list of texts without a header must be a .txt file."
        )
    try:
        values = table[column].tolist()
    except Exception as error:  # Parquet's texts are decoded here
        raise InputError(f"The text pool {path} holds what is no text in its column '{column}': {error}.") from error
    for row, value in enumerate(values, 1):
        if isinstance(value, list | tuple | dict | bytes | np.ndarray):
            raise InputError(f"The text pool {path} holds a {type(value).__name__} in row {row}, not a text.")
    return ["" if pd.isna(value) else str(value) for value in values]


def _read_json(path):
    """A table from JSON lines or a JSON list, of objects or of texts."""
    text = io.StringIO(decode_utf8(Path(path).read_bytes(), path), newline=None).read()
    documents, rows = [text] if text.lstrip().startswith("[") else text.split("\n"), []
    for line, document in enumerate(documents):
        try:
            content = json.loads(document) if document.strip() else []
        except json.JSONDecodeError as error:
            raise InputError(f"The text pool {path}, line {line + error.lineno}, is not JSON: {error.msg}.") from error
        except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets in brackets
            raise InputError(f"The text pool {path}, line {line + 1}, cannot be read as JSON: {error}.") from error
        rows += content if isinstance(content, list) else [content]
    if all(isinstance(row, str) for row in rows):
        rows = [{"text": row} for row in rows]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"The text pool {path} is neither a list of texts nor lines of JSON objects.")
    return pd.DataFrame(rows, dtype=object)


def generated_pool(path):
    """(texts, {"blank": n, "double": n} dropped): a YAML file's templates, filled with all words of their lists.

    The file has `templates`, texts with {name}, and `words`, a list for each name.
    """
    content = strict_yaml.load(path, as_written=True)
    templates, words = (content.get(key) if isinstance(content, dict) else None for key in ("templates", "words"))
    lists = [templates, *words.values()] if isinstance(words, dict) else [None]
    if not all(isinstance(members, list) for members in lists):
        raise InputError(
            f"{path} cannot be read as templates and lists of words: it needs 'templates', a list, and 'words', a list "
            "for each name."
        )
    words, texts = {name: [*map(_check_text, members)] for name, members in words.items()}, []
    for template in map(_check_text, templates):
        try:
            fields = [field[1:] for field in string.Formatter().parse(template) if field[1] is not None]
            if any(spec or conversion for _, spec, conversion in fields):
                raise InputError(f"The template '{template}' of {path} cannot be filled: write {{name}} alone.")
            fields = [name for name, *_ in fields]
            if "" in fields:
                raise InputError(f"The template '{template}' of {path} has {{}} without a name; write {{name}}.")
            names = list(dict.fromkeys(fields))
            unknown = sorted(set(names) - set(words))
            if unknown:
                raise InputError(
                    f"The template '{template}' of {path} needs the words '{unknown[0]}', which the file lacks."
                )
            count = math.prod(len(words[name]) for name in names)
            if len(texts) + count > MAX_TEXTS:
                raise InputError(
                    f"The template '{template}' of {path} makes {count:,} texts, and {MAX_TEXTS:,} are the most that a "
                    "pool may have; use fewer words."
                )
            for combination in product(*(words[name] for name in names)):
                texts.append(template.format(**dict(zip(names, combination))))
        except InputError:
            raise
        except (ValueError, IndexError, KeyError, AttributeError) as error:
            raise InputError(f"The template '{template}' of {path} cannot be filled: {error}.") from error
    return clean_pool(texts, path)


def _check_text(value):
    """The value, a template or a word, if it is a text."""
    if not isinstance(value, str):
        raise InputError(f"Templates and words must be texts; {value!r} is not.")
    return value


def clean_pool(lines, name):
    """(texts, {"blank": n, "double": n}) of a list of lines, first occurrences kept in order."""
    filled = [line for line in (line.strip(INVISIBLE) for line in lines) if line]
    longest = max(filled, key=len, default="")
    if len(longest) > MAX_LETTERS:
        raise InputError(
            f"The text pool {name} has a text of {len(longest):,} characters, {longest[:40]!r}…; a text may have "
            f"{MAX_LETTERS:,}."
        )
    texts = list(dict.fromkeys(filled))
    if len(texts) < 2:
        raise InputError(f"The text pool {name} has {len(texts)} different texts; it needs two or more.")
    return texts, {"blank": len(lines) - len(filled), "double": len(filled) - len(texts)}
