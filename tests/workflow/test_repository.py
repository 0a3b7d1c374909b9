"""The repository keeps its own promises: formatting, digests of the code, environments."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT, environment

CORE = ROOT / "scripts" / "clipspectra"


def test_the_digest_of_a_script_follows_its_imports(tmp_path):
    """An edit of a module changes the digests of exactly the scripts that reach it, through other modules too."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    scripts = sorted((tmp_path / "scripts").glob("*.py"))

    def digests():
        listed = ", ".join(repr(str(path)) for path in scripts)
        code = f"from clipspectra.code_digest import code_digest\nprint(*map(code_digest, [{listed}]))"
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, cwd=tmp_path / "scripts", capture_output=True, text=True, check=True)
        return dict(zip((path.stem for path in scripts), result.stdout.split()))

    before = digests()
    with open(tmp_path / "scripts" / "clipspectra" / "explanations" / "sparse.py", "a") as file:
        file.write("# an edit\n")
    changed = {name for name, digest in digests().items() if digest != before[name]}
    assert {"explain_heads", "score_components", "segment_parts"} <= changed
    assert not {"extract_activations", "embed_texts", "plot_cards", "table_texts"} & changed


def test_the_core_knows_nothing_of_snakemake():
    for path in CORE.rglob("*.py"):
        assert not re.search(r"^\s*(from|import) snakemake", path.read_text(), re.M)


@pytest.mark.parametrize(
    "command",
    [
        "ruff check .",
        "ruff format --check .",
        "snakefmt --check Snakefile rules",
        "snakemake --lint",
    ],
)
def test_lint(command):
    result = subprocess.run(
        shlex.split(command), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_readme_lists_every_key():
    command = [sys.executable, "scripts/list_keys.py"]
    table = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert table in (ROOT / "README.md").read_text(), "README is behind the schema: run python scripts/list_keys.py"


def test_the_environments_name_the_same_packages():
    lines = (ROOT / "envs" / "requirements.in").read_text().split("# for the tests")[0].splitlines()
    pip = {line.replace("open_clip_torch", "open-clip-torch") for line in lines if line and line[0] != "#"}
    pip -= {line for line in pip if line.startswith("snakemake")}
    conda = yaml.safe_load((ROOT / "envs" / "environment.yaml").read_text())["dependencies"]
    names = {"pytorch": "torch", "matplotlib-base": "matplotlib"}
    plain = {" ".join(names.get(word, word) for word in line.split()).replace(" ", "") for line in conda}
    assert plain - {"python>=3.11"} == pip


def test_the_lock_names_no_host_and_covers_this_environment():
    lock = (ROOT / "envs" / "requirements.txt").read_text()
    assert "://" not in lock
    assert "sys_platform == 'linux'" in lock
    assert lock.count("--hash=sha256:") > 1000


def test_an_old_python_is_refused(clone):
    (clone.directory / ".venv" / "ready").unlink()
    old = clone.directory / "old-python"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 9); $2"\n')
    old.chmod(0o755)
    result = clone.run("make", "demo", f"PYTHON={old}")
    assert result.returncode != 0
    assert "Python 3.11 or newer is needed; this is 3.9" in result.stdout
