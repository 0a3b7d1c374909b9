"""The repository keeps its own promises: formatting, digests of the code, environments."""

import re
import shlex
import subprocess
import sys

import pytest
from clones import ROOT, environment

CORE = ROOT / "scripts" / "clipspectra"


def test_an_edited_module_reruns_exactly_the_rules_that_reach_it(finished):
    """The rules whose parameters Snakemake finds changed, and those whose scripts have another digest."""
    scripts = {path.stem: path for path in (finished.directory / "scripts").glob("*.py")}
    code = "import sys\nfrom clipspectra.code_digest import code_digest\nprint(*map(code_digest, sys.argv[1:]))"
    rules = "\n".join(path.read_text() for path in (finished.directory / "rules").glob("*.smk"))
    script_of = dict(re.findall(r"^rule (\w+):(?:(?!^rule ).)*?scripts/(\w+)\.py", rules, re.M | re.S))
    base_of = {new: base for base, new in re.findall(r"^use rule (\w+) as (\w+) with", rules, re.M)}

    def digests():
        command = ["env", "PYTHONPATH=scripts", "python", "-c", code, *map(str, scripts.values())]
        return dict(zip(scripts, finished.run(*command).stdout.split()))

    def script(rule):
        return script_of[rule] if rule in script_of else script(base_of[rule])

    before, module = digests(), finished.directory / "scripts" / "clipspectra" / "explanations" / "head.py"
    content = module.read_text()
    try:
        module.write_text(content + "# an edit\n")
        edited = {name for name, digest in digests().items() if digest != before[name]}
        lines = [line.split("\t") for line in finished.snakemake("--summary").stdout.splitlines() if "\t" in line]
    finally:
        module.write_text(content)
    rule, status = lines[0].index("rule"), lines[0].index("status")
    made = {line[rule] for line in lines[1:]}
    changed = {line[rule] for line in lines[1:] if line[status] == "params changed"}
    assert changed == {name for name in made if script(name) in edited}
    assert {"explain_heads", "score_components_and_labels", "segment_parts_and_components"} <= changed
    assert {"extract_activations", "embed_texts", "segment_images", "plot_cards"} <= made - changed


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
