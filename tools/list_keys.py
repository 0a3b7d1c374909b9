"""The table of the config's keys in docs/config.md, from config/schema.yaml: `python tools/list_keys.py`."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
SCHEMA, PAGE = ROOT / "config" / "schema.yaml", ROOT / "docs" / "config.md"
HEADING = "## All keys\n\n"


def keys(schema, path=""):
    """Yield (key, what it is, default) of all keys below a schema; <name> stands for a name of one's own."""
    required = set(schema.get("required", [])) | set(schema.get("then", {}).get("required", []))
    for name, of in schema.get("properties", {}).items():
        key, default = f"{path}{name}", "required" if name in required else ""
        inner, items = of.get("additionalProperties"), of.get("items")
        inside = [*keys(of, f"{key}."), *(keys(inner, f"{key}.<name>.") if isinstance(inner, dict) else [])]
        inside += keys(items, f"{key}[].") if isinstance(items, dict) else []
        if "default" in of and not (inside and of["default"] == {}):
            default = "null" if of["default"] is None else yaml.safe_dump(of["default"], default_flow_style=True)
            default = "all" if of["default"] == of.get("items", {}).get("enum", "") else default
            default = default.removesuffix("\n...\n").strip().replace("\n", " ")
        yield key, f"{of.get('description', '')}{choices(of)}", default
        yield from inside


def choices(schema):
    """What a value may be, where the schema has a list."""
    listed = schema.get("enum", schema.get("items", {}).get("enum") if isinstance(schema.get("items"), dict) else None)
    return f" ({'; '.join(listed)})" if listed else ""


def table():
    """The table as Markdown."""
    rows = ["| key | what it is | default |", "|---|---|---|"]
    for key, what, default in keys(yaml.safe_load(SCHEMA.read_text())):
        cells = f"`{key}`", what.replace("|", "\\|"), f"`{default}`" if default not in ("", "required") else default
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def page():
    """The page with its table as the schema has it."""
    return PAGE.read_text().split(HEADING)[0] + HEADING + table() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
