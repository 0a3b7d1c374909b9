"""The notebooks as they are kept: valid, without outputs and traces of a machine."""

import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from strip_notebooks import NOTEBOOKS, stripped  # noqa: E402


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == ["change", "look", "where"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stripped(path):
    text = path.read_text(encoding="utf-8")
    assert text == stripped(text), "run python tools/strip_notebooks.py"
    notebook = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert str(Path.home()) not in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_begins_with_the_two_lines_to_change(path):
    code = [cell["source"] for cell in nbformat.read(path, as_version=4)["cells"] if cell["cell_type"] == "code"]
    assert code[0] == 'model = "demo"\ndataset = "digits"'
    assert not [cell for cell in code[1:] if '"digits"' in cell or '"demo"' in cell]


def test_what_snakemake_and_jupyter_add_is_taken_out():
    plain = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1", id="sum")])
    run = nbformat.v4.new_notebook(metadata={"language_info": {"name": "python", "version": "3"}})
    preamble = nbformat.v4.new_code_cell("import os", metadata={"tags": ["snakemake-job-properties"]})
    output = nbformat.v4.new_output("stream", text="2")
    run["cells"] = [preamble, nbformat.v4.new_code_cell("1 + 1", id="sum", execution_count=2, outputs=[output])]
    assert stripped(nbformat.writes(run)) == stripped(nbformat.writes(plain))
