"""Every command of the README and of docs runs, in a clone with a small demo."""

import re
import shlex

import pytest
from clones import ROOT

PAGES = "\n".join(page.read_text() for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))
BLOCKS = {
    language: re.findall(rf"^```{language}\n(.*?)^```", PAGES, flags=re.M | re.S)
    for language in ("bash", "yaml", "python")
}
COMMANDS = [line.split(" #")[0].strip() for block in BLOCKS["bash"] for line in block.splitlines() if line.strip()]

# What a test cannot do as it is written: itself, and what needs weights, a cluster or many minutes.
INSTEAD = {
    "make test": "make --dry-run test",
    "make benchmark": "sh -c 'export PYTHONPATH=scripts"
    " && python tools/benchmark_extraction.py --architectures ViT-B-32 --batches 1 --repeats 1 --memory 20"
    " && python tools/benchmark_explanations.py --images 200 --texts 100 --heads 2 --memory 2 100"
    " && python tools/benchmark_retrieval.py --heads 2 --components 4 --texts 9 --width 16 --images 999 --repeats 1'",
    "jupyter notebook notebooks/look.ipynb": "jupyter nbconvert --execute --to notebook --stdout notebooks/look.ipynb",
    "snakemake --cores 1 --edit-notebook results/notebooks/where.png": "snakemake -n results/notebooks/where.png",
    "snakemake --cores all --configfile config/paper.yaml": "snakemake --dry-run --cores all paper"
    " --configfile config/paper.yaml",  # all of it is planned by another command
    "snakemake --workflow-profile profiles/slurm": "snakemake --dry-run --workflow-profile profiles/slurm",
}
OWN = [command for command in COMMANDS if "mine.yaml" in command]


def test_the_pages_have_their_commands():
    assert {"make demo", "make test", *INSTEAD} <= set(COMMANDS)
    assert OWN


@pytest.mark.parametrize("command", [command for command in dict.fromkeys(COMMANDS) if command not in OWN])
def test_command(finished, command):
    if command.startswith("git clone") or command.startswith("cd "):
        pytest.skip("how to get here")
    result = finished.run(*shlex.split(INSTEAD.get(command, command)))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("block", BLOCKS["python"], ids=lambda block: block.strip().splitlines()[-1][:40])
def test_python(finished, block):
    """As in a notebook, with the package on the path; every other expression is a value that must exist."""
    check = "\nif 'parts' in globals():\n    import torch\n    whole = parts.embedding / parts.norm[:, None]\n"
    check += "    assert torch.allclose(parts.total(), whole, atol=1e-5)"
    result = finished.run("env", "PYTHONPATH=scripts", "python", "-c", block + check)
    assert result.returncode == 0, result.stdout
