"""What code results are made by: the digest of all that a script imports, and the commit of a clone."""

import ast
import functools
import hashlib
import json
import subprocess
from pathlib import Path

CORE = Path(__file__).parent
IGNORED = {CORE / "jobs.py", CORE / "processes.py"}  # logs, progress bars and locks change no number


def code_digest(script):
    """Digest of the core's modules that a script imports, directly or through others: notices an edited import."""
    reached, waiting = set(), set(imported_modules(Path(script)))
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting |= imported_modules(module) - reached
    digest = hashlib.sha256()
    for module in sorted(reached):
        digest.update(str(module.relative_to(CORE)).encode() + module.read_bytes())
    return digest.hexdigest()[:12]


@functools.cache
def imported_modules(path):
    """Files of the core's modules that a Python file, or a notebook, imports anywhere in it.

    A name that a chapter offers (clipspectra.explanations.text_span) counts as all modules of the chapter.
    """
    modules = set()
    for node in ast.walk(ast.parse(_python_of(path))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, *parts = name.split(".")
            if package == "clipspectra":
                modules |= _module_files(parts)
    return frozenset(modules - IGNORED)


def _python_of(path):
    """The Python code of a file, or of a notebook's cells."""
    if path.suffix != ".ipynb":
        return path.read_bytes()
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def _module_files(parts):
    """Files of the longest prefix of a dotted name below the core that is a module or a folder."""
    for length in range(len(parts), 0, -1):
        path = CORE.joinpath(*parts[:length])
        if path.with_suffix(".py").is_file():
            return {path.with_suffix(".py")}
        if path.is_dir():
            return {file for file in path.glob("*.py") if file.stem != "__init__"}
    return set()  # a name in the package's __init__


CODE = ("Snakefile", "rules", "scripts", "explorer", "envs", "pyproject.toml")  # what results are made by


def commit_of(folder):
    """The last commit of a clone's code, with "-dirty" if its files differ from it; "" where that cannot be told."""
    if not Path(folder, ".git").exists():
        return ""

    def git(*arguments):
        command = ["git", "-C", str(folder), *arguments, "--", *CODE]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("log", "-1", "--format=%h", "--abbrev=12") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return ""
