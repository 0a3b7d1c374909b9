"""Every command of the README and of docs runs, in a clone with a small demo."""

import re
import shlex

import pandas as pd
import pytest
from clones import ROOT, Clone
from PIL import Image
from skimage import data

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


def test_ones_own_images_model_and_texts(tmp_path):
    """The pages' own config on photographs that ship with scikit-image; the demo's model stands for one's own."""
    clone = Clone(tmp_path / "clone")
    for name, photograph in {"cat": data.chelsea(), "coffee": data.coffee(), "rocket": data.rocket()}.items():
        folder = clone.directory / "photographs" / name
        folder.mkdir(parents=True)
        for number in range(6):
            Image.fromarray(photograph[:, number * 20 : number * 20 + 300]).save(folder / f"{number}.jpg")
    (clone.directory / "my-texts.txt").write_text("a red digit\nthe sky\ncat fur\n\na wooden table\n")
    (clone.directory / "my-weights.safetensors").write_bytes(
        (clone.directory / "config" / "demo" / "balanced.safetensors").read_bytes()
    )
    config = "\n".join(BLOCKS["yaml"]).replace("architecture: ViT-B-16", "architecture: config/demo/digits-clip.json")
    few = "seeds: [0]\nevaluation: {methods: [components, textspan], budgets: [0, 2]}\n"
    (clone.directory / "config" / "mine.yaml").write_text(config + few)
    for command in OWN:
        result = clone.run(*shlex.split(command))
        assert result.returncode == 0, result.stdout
    table = pd.read_csv(clone.directory / "results" / "tables" / "accuracy.csv")
    assert set(table["images"]) == {6}
    assert set(table["model"]) == {"my-model"}  # the demo's config is not mixed in
    assert (clone.directory / "results/figures/my-model/photographs/seed-0/my-texts/cards.png").exists()
