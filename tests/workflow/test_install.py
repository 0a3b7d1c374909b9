"""The package as pip installs it: a wheel in a fresh environment, without Snakemake and without this checkout."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from clones import ROOT
from test_pages import BLOCKS

UV = Path(sys.executable).parent / "uv"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Python of a new environment with the wheel and what it needs, in the versions of the lock."""
    folder = tmp_path_factory.mktemp("install")
    build = [UV, "build", "--quiet", "--wheel", "--python", sys.executable, ROOT]
    subprocess.run([*build, "--out-dir", folder], check=True)
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    (wheel,) = folder.glob("*.whl")
    install = [UV, "pip", "install", "--quiet", "--python", python, wheel]
    subprocess.run([*install, "--constraint", ROOT / "envs" / "requirements.txt"], check=True)
    return python


def run(python, code, **options):
    command = [python, "-W", "error::UserWarning:clipspectra", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_the_readmes_example_runs(fresh):
    code = BLOCKS["python"][0] + "\nimport clipspectra\nassert 'site-packages' in clipspectra.__file__"
    result = run(fresh, code, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert run(fresh, "import snakemake").returncode != 0


def test_two_copies_are_said_in_one_sentence(fresh):
    result = run(fresh, "import clipspectra", env={"PYTHONPATH": str(ROOT / "scripts")})
    (sentence,) = [line for line in result.stderr.splitlines() if "another copy is installed in" in line]
    assert f"clipspectra is imported from {ROOT / 'scripts' / 'clipspectra'}" in sentence


def test_an_installed_copy_does_not_run_in_place_of_the_checkout(clone, tmp_path):
    shutil.copytree(ROOT / "scripts" / "clipspectra", tmp_path / "site" / "clipspectra")
    result = clone.run("env", f"PYTHONPATH={tmp_path / 'site'}", "snakemake", "--dry-run")
    assert result.returncode != 0
    assert f"clipspectra is also installed in {tmp_path / 'site'}, which would be used" in result.stdout
