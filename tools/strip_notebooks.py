"""Notebooks as they belong into the repository, without outputs or traces of a machine: run it after editing them."""

import json
from pathlib import Path

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
FORMAT = {"nbformat": 4, "nbformat_minor": 5}
PREAMBLE = "snakemake-job-properties"  # tag of the cell that Snakemake puts in front


def stripped(text):
    """The text of a notebook with its cells' sources alone."""
    cells = [cell for cell in json.loads(text)["cells"] if PREAMBLE not in cell["metadata"].get("tags", [])]
    notebook = {"cells": [_stripped_cell(cell) for cell in cells], "metadata": METADATA}
    return json.dumps(notebook | FORMAT, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _stripped_cell(cell):
    """A cell without what running it left; its source as a list of lines."""
    source = "".join(cell["source"]).splitlines(keepends=True)
    kept = {"cell_type": cell["cell_type"], "id": cell["id"], "metadata": {}, "source": source}
    return kept | ({"execution_count": None, "outputs": []} if cell["cell_type"] == "code" else {})


if __name__ == "__main__":
    for path in NOTEBOOKS:
        path.write_text(stripped(path.read_text(encoding="utf-8")), encoding="utf-8")
