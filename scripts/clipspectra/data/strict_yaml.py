"""YAML read strictly: keys are texts, no key is given twice, anchors share nothing; errors name the line."""

import json
import re
from pathlib import Path

import yaml

from clipspectra import InputError

MAX_BYTES = 10_000_000  # of a file; YAML reads a megabyte in some seconds
MAX_NODES = 1_000_000  # of its content, with all that aliases stand for


def load(path, as_written=False):
    """The content of a YAML or JSON file, its keys as they are written. Raises InputError naming the file and line.

    as_written: whether values stay texts too, exactly as written, such as 1.10 and yes
    """
    text = _text(path)
    if Path(path).suffix == ".json":
        try:
            return json.loads(text, object_pairs_hook=lambda pairs: _reject_duplicates(pairs, path))
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {error.lineno}: {error.msg}.") from error
        except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets in brackets
            raise InputError(f"{path} cannot be read as JSON: {error}.") from error
    try:
        loader = _Loader(text)
        loader.path, loader.as_written = path, as_written
        node = loader.get_single_node()
        if _size(node, {}) > MAX_NODES:
            raise InputError(f"{path} stands for more than {MAX_NODES:,} values by its aliases (*); write them out.")
        return None if node is None else _unshared(loader.construct_document(node))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        tabs = " Indent with spaces, not with tabs." if "\\t" in str(error.problem) else ""
        raise InputError(f"{path}, line {mark.line + 1 if mark else '?'}: {error.problem}.{tabs}") from error
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(f"{path} cannot be read as YAML: its brackets are nested too deeply.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path} cannot be read as YAML: {error}.") from error


def line_of(path, keys):
    """The line of the entry under a path of keys, or of its nearest parent; None if neither is in the file."""
    try:
        node = yaml.compose(_text(path), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, InputError, ValueError, RecursionError):
        return None
    line = None
    for key in keys:
        if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
            continue
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        matches = [(name, value) for name, value in pairs if name.value == str(key)]
        if not matches:
            break
        line, node = matches[0][0].start_mark.line + 1, matches[0][1]
    return line


def _text(path):
    if Path(path).stat().st_size > MAX_BYTES:
        raise InputError(f"{path} has more than {MAX_BYTES:,} bytes; give long lists as a file of one text a line.")
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}.") from error


def _size(node, known):
    """How many nodes a YAML node stands for, aliases written out; an endless one counts up to itself."""
    if node not in known:
        known[node] = 1
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for pair in parts for part in pair] if isinstance(node, yaml.MappingNode) else parts
        known[node] += sum(_size(part, known) for part in parts)
    return known[node]


class _Loader(yaml.SafeLoader):
    """Keeps keys as texts, so that 007 stays 007; "no" and "yes" as keys must be quoted."""

    def construct_mapping(self, node, deep=False):
        lines = {}
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"{self.path}, line {line}: a list cannot be a key.")
            if key.tag in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null"):
                raise InputError(
                    f"{self.path}, line {line}: YAML does not read the key {key.value} as text; write it in quotes, "
                    f'"{key.value}".'
                )
            if key.value in lines:
                raise InputError(
                    f"{self.path}, line {line}: the key '{key.value}' is given twice, first in line "
                    f"{lines[key.value]}; the first would be lost. Merge them."
                )
            lines[key.value] = line
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}

    def construct_object(self, node, deep=False):
        if self.as_written and isinstance(node, yaml.ScalarNode):
            return node.value
        return super().construct_object(node, deep)

    def construct_yaml_float(self, node):
        """A decimal number; YAML would read 1:30.5 as 90.5."""
        return self.construct_yaml_int(node) if ":" in node.value else super().construct_yaml_float(node)

    def construct_yaml_int(self, node):
        """A whole number; YAML would read 010 as 8 and 1:30 as 90."""
        if re.fullmatch(r"[+-]?(0[0-9_]+|.*:.*)", node.value):
            raise InputError(
                f"{self.path}, line {node.start_mark.line + 1}: YAML reads {node.value} as another number; write it "
                "without leading zeros or colons, or in quotes if it is a text."
            )
        return super().construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:map", lambda loader, node: loader.construct_mapping(node))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
# 1e-3 is a number too, although it has no decimal point.
EXPONENT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+0123456789"))


def _reject_duplicates(pairs, path):
    for number, (key, _) in enumerate(pairs):
        if key in [earlier for earlier, _ in pairs[:number]]:
            raise InputError(f"{path}: the key '{key}' is given twice; the first would be lost.")
    return dict(pairs)


def _unshared(value):
    """A copy in which no two places share an object, as those of a YAML anchor do."""
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value
