"""The repository keeps its own promises: formatting, digests of the code, environments."""

import re
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT, environment

CORE = ROOT / "scripts" / "clipspectra"


def test_an_edited_module_reruns_exactly_the_rules_that_reach_it(finished):
    """Rules by what Snakemake says of their parameters; scripts by their digests before and after."""
    scripts = {path.stem: path for path in (finished.directory / "scripts").glob("*.py")}
    code = "import sys\nfrom clipspectra.code_digest import code_digest\nprint(*map(code_digest, sys.argv[1:]))"

    def digests():
        command = ["env", "PYTHONPATH=scripts", "python", "-c", code, *map(str, scripts.values())]
        return dict(zip(scripts, finished.run(*command).stdout.split()))

    def script_of(rule):
        return re.search(rf"^rule {rule}:.*?scripts/(\w+)\.py", rules, re.M | re.S)[1]

    rules = "\n".join(path.read_text() for path in (finished.directory / "rules").glob("*.smk"))
    before, module = digests(), finished.directory / "scripts" / "clipspectra" / "explanations" / "sparse.py"
    content = module.read_text()
    try:
        module.write_text(content + "# an edit\n")
        changed = {name for name, digest in digests().items() if digest != before[name]}
        plan = finished.snakemake("--dry-run").stdout
    finally:
        module.write_text(content)
    jobs = re.findall(r"^(?:local)?rule (\w+):\n(.*?)\n\n", plan, re.M | re.S)
    edited = {rule for rule, about in jobs if re.search("Reason:.*(Params|Code) ha", about)}
    planned = {rule for rule, _ in jobs if (ROOT / "scripts" / f"{rule}.py").exists()}
    assert {"explain_heads", "score_components", "trace_query"} <= edited
    assert edited == planned & changed
    assert not {"extract_activations", "embed_texts", "segment_images", "head_basis"} & {rule for rule, _ in jobs}


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


def test_an_old_python_is_refused(clone):
    (clone.directory / ".venv" / "ready").unlink()
    old = clone.directory / "old-python"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 9); $2"\n')
    old.chmod(0o755)
    result = clone.run("make", "demo", f"PYTHON={old}")
    assert result.returncode != 0
    assert "Python 3.11 or newer is needed; this is 3.9" in result.stdout
