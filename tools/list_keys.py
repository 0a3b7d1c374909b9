"""The table of the config's keys in docs/config.md, from config/schema.yaml: `python tools/list_keys.py`."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
SCHEMA, PAGE = ROOT / "config" / "schema.yaml", ROOT / "docs" / "config.md"
HEADING = "## All keys\n\n"


def keys(schema, path=""):
    """Yield (key, what it is, default) of all keys below a schema; <name> stands for a name of one's own."""
    required = set(schema.get("required", [])) | set(schema.get("then", {}).get("required", []))
    for name, subschema in schema.get("properties", {}).items():
        key, default = f"{path}{name}", "required" if name in required else ""
        inner, items = subschema.get("additionalProperties"), subschema.get("items")
        inside = [*keys(subschema, f"{key}."), *(keys(inner, f"{key}.<name>.") if isinstance(inner, dict) else [])]
        inside += keys(items, f"{key}[].") if isinstance(items, dict) else []
        value = subschema.get("default")
        if "default" in subschema and not (inside and value == {}):
            default = "null" if value is None else yaml.safe_dump(value, default_flow_style=True)
            default = "all" if value == subschema.get("items", {}).get("enum", "") else default
            default = default.removesuffix("\n...\n").strip().replace("\n", " ")
        yield key, f"{subschema.get('description', '')}{choices(subschema)}", default
        for entry, suffix in ((inner, ".<name>"), (items, "[]")):
            if isinstance(entry, dict) and "description" in entry and "properties" in entry:
                yield key + suffix, entry["description"], ""
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
