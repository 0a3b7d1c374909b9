"""The laws of the house: imports one way, torch where models run, names that agree, pages that are up to date."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from clipspectra.code_digest import imported_modules

ROOT = Path(__file__).parents[2]
CORE = ROOT / "scripts" / "clipspectra"
MODULES = sorted(path for path in CORE.rglob("*.py") if path.name != "__init__.py")
TOP = {"checked", "arrays", "on_disk", "jobs", "processes", "code_digest"}
# What each chapter may import beside itself and the top modules.
MAY_IMPORT = {
    "demo": set(),
    "towers": set(),
    "data": {"towers"},
    "contributions": {"towers", "data"},
    "explanations": {"towers", "data", "contributions"},
    "evaluation": {"towers", "data", "contributions", "explanations"},
    "segmentation": {"towers", "data", "contributions"},
    "concepts": {"towers", "data", "contributions", "explanations", "evaluation"},
    "editing": {"towers", "data", "contributions", "explanations", "concepts"},
    "comparison": {"towers", "data", "contributions", "explanations", "evaluation"},
    "figures": {"data"},
    "paper": set(),
    "explorer": {"data", "contributions", "explanations", "evaluation", "figures"},
    "results": {"towers", "data", "contributions", "explanations", "segmentation", "concepts"},
}
WITH_TORCH = {"towers", "data", "contributions", "segmentation", "editing"}
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "config" / "README.md"]


def chapter(path):
    """The folder of a module, or the module itself at the top."""
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def test_imports_run_one_way():
    assert {chapter(path) for path in MODULES} == TOP | set(MAY_IMPORT)
    for path in MODULES:
        own, reached = chapter(path), {chapter(module) for module in imported_modules(path)}
        allowed = {own} | TOP | MAY_IMPORT.get(own, set()) if own not in TOP else {own, "checked"}
        assert reached <= allowed, f"{path.relative_to(CORE)} imports {reached - allowed}"


def test_torch_is_imported_only_where_models_run():
    for path in MODULES:
        if chapter(path) in WITH_TORCH or path == CORE / "demo" / "training.py":
            continue
        roots = {name.split(".")[0] for name in imported_names(path)}
        assert not roots & {"torch", "torchvision", "open_clip", "timm"}, path


def test_tables_spectra_and_figures_start_without_torch():
    """Each chapter without models, imported with all that it reaches, and its entry points by name."""
    without = [path for path in MODULES if chapter(path) not in WITH_TORCH and path != CORE / "demo" / "training.py"]
    names = [".".join(path.relative_to(CORE.parent).with_suffix("").parts) for path in without]
    names += ["clipspectra.contributions.moments", "clipspectra.contributions.stored", "clipspectra.data.datasets"]
    code = f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\n"
    code += "from clipspectra.explanations import explain_components, text_span\n"
    code += "assert not {'torch', 'open_clip'} & set(sys.modules), 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", check=True)


def test_scripts_import_only_what_they_use():
    """Before a script's own work: tables need no figures, figures no scipy, and neither torch nor scikit-learn."""
    unwanted = {"table": ["matplotlib", "PIL"], "average": ["matplotlib", "PIL"], "plot": []}
    unwanted |= {kind: [] for kind in ("choose", "evaluate", "score", "trace", "find", "extract", "segment", "embed")}
    matching = {"evaluate_stability", "evaluate_transfer"}  # components one to one, by scipy
    for kind, packages in unwanted.items():
        paths = [str(path) for path in (ROOT / "scripts").glob(f"{kind}_*.py") if path.stem not in matching]
        code = "import runpy, sys\nfor path in sys.argv[1:]: runpy.run_path(path, run_name='imported')\n"
        unused = {"torch", "open_clip", "sklearn", "scipy", *packages}
        code += f"assert not {unused} & set(sys.modules), {unused} & set(sys.modules)"
        run = subprocess.run([sys.executable, "-c", code, *paths], cwd=ROOT / "scripts", capture_output=True, text=True)
        assert not run.returncode, f"{kind}: {run.stderr}"


def test_the_core_knows_nothing_of_snakemake():
    assert not [path for path in MODULES if any(name.startswith("snakemake") for name in imported_names(path))]


def imported_names(path):
    """All names of modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_a_name_of_a_chapter_counts_as_all_its_modules(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from clipspectra.explanations import text_span\n")
    assert imported_modules(script) == {path for path in MODULES if chapter(path) == "explanations"}


@pytest.mark.parametrize("name", ["list_keys", "list_api"])
def test_generated_pages_are_up_to_date(name):
    spec = spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.page() == tool.PAGE.read_text(), f"{tool.PAGE} is out of date: run python tools/{name}.py"


def test_links_lead_somewhere():
    """Every relative link and picture of the pages, and every heading that a link names."""

    def anchors(page):
        headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if re.match(r"https?://", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.name} links to {link}"
            assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


def test_the_readme_is_one_screen_of_a_patient_reader():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250


def test_versions_agree():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == version


def test_the_environments_name_the_same_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pip = {line.replace("open_clip_torch", "open-clip-torch") for line in project["dependencies"]}
    conda = yaml.safe_load((ROOT / "envs" / "environment.yaml").read_text())["dependencies"]
    names = {"pytorch": "torch", "matplotlib-base": "matplotlib", "typst-py": "typst", "nbconvert-core": "nbconvert"}
    plain = {"".join(names.get(word, word) for word in line.split()) for line in conda}
    assert plain - {"python>=3.11"} == pip
    lock = (ROOT / "envs" / "requirements.txt").read_text()
    for needed in map(Requirement, project["dependencies"]):
        locked = re.findall(rf"^{canonicalize_name(needed.name)}==(\S+)", lock, re.M)
        assert locked, needed
        assert all(needed.specifier.contains(version) for version in locked), needed
    makefile, image = (ROOT / "Makefile").read_text(), (ROOT / "envs" / "Dockerfile").read_text()
    assert re.search(r"^UV_VERSION := (\S+)", makefile, re.M)[1] == re.search(r"uv==(\S+)", image)[1]


def test_the_lock_names_no_host_and_covers_this_environment():
    lock = (ROOT / "envs" / "requirements.txt").read_text()
    assert "://" not in lock
    assert "sys_platform == 'linux'" in lock
    assert lock.count("--hash=sha256:") > 1000
