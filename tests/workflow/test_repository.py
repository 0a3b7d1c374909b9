"""The repository keeps its own promises: formatting, digests of the code, environments."""

import ast
import re
import shlex
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT, environment

CORE = ROOT / "scripts" / "clipspectra"
# Around the work, not in it: an edit there changes no number.
ASIDE = {"jobs", "__init__"}


def imports(path):
    """Modules of the core that a Python file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "clipspectra":
                found.add(parts[1] if len(parts) > 1 and (CORE / f"{parts[1]}.py").exists() else "__init__")
    return found - ASIDE


def reached(path):
    """Modules of the core that a script reaches, through other modules too."""
    seen, waiting = set(), imports(path)
    while waiting:
        module = waiting.pop()
        seen.add(module)
        waiting |= imports(CORE / f"{module}.py") - seen
    return seen


def test_every_rule_names_the_code_it_depends_on():
    """`code(...)` of each rule lists every module that its script reaches: an edited import reruns the rule."""
    core = set(re.search(r"CORE = \((.*?)\)", (ROOT / "rules" / "common.smk").read_text(), re.S)[1].split('"')[1::2])
    rules = 0
    for path in (ROOT / "rules").glob("*.smk"):
        for rule in re.split(r"^rule ", path.read_text(), flags=re.M)[1:]:
            script = re.search(r'"\.\./scripts/(\w+\.py)"', rule)
            if script is None or script[1] == "download.py":  # whose digest is checked, however it was fetched
                continue
            rules += 1
            listed = re.search(r"code=code\((.*?)\)", rule, re.S)[1]
            named = set(listed.split('"')[1::2]) | (core if "*CORE" in listed else set())
            assert named == reached(ROOT / "scripts" / script[1]), f"{path.name}: {script[1]}"
    assert rules > 10


def test_the_core_knows_nothing_of_snakemake():
    for path in CORE.glob("*.py"):
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
