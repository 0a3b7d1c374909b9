"""Digest of the code that a script depends on: itself and every module of the core that it reaches by its imports."""

import ast
import functools
import hashlib
from pathlib import Path

CORE = Path(__file__).parent
ASIDE = {"__init__", "jobs"}  # which change no number


def code_digest(script):
    """Digest of the core's modules that a script reaches, through other modules too: an edited import is noticed."""
    reached, waiting = set(), set(imports(Path(script)))
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting |= imports(CORE / f"{module}.py") - reached
    digest = hashlib.sha256()
    for module in sorted(reached):
        digest.update(module.encode() + (CORE / f"{module}.py").read_bytes())
    return digest.hexdigest()[:12]


@functools.cache
def imports(path):
    """Modules of the core that a Python file imports, anywhere in it."""
    result = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        parts = [name.split(".") for name in names]
        result |= {part[1] for part in parts if part[0] == "clipspectra" and (CORE / f"{part[1]}.py").exists()}
    return frozenset(result - ASIDE)
