"""docs/python.md: what each chapter of the core offers, from its docstrings: `python tools/list_api.py`."""

import importlib
import inspect
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "python.md"
sys.path.insert(0, str(ROOT / "scripts"))

CHAPTERS = ("towers", "data", "contributions", "explanations", "evaluation", "segmentation", "concepts", "editing")
CHAPTERS += ("comparison", "results")
INTRODUCTION = """# In Python

The core is the package `clipspectra`. `pip install .` in a clone installs it with what it needs, without Snakemake
(`pip install -e '.[workflow]'` adds it, from the clone itself: the workflow refuses to run beside another copy of the
package). Each chapter offers the names below, and imports them when they are first used.
Arrays are described by the words of their axes: `[image, layer, head, d_embed]`. Input that cannot be used raises
`clipspectra.InputError`, whose message names it and says what to do.

This page is written from the docstrings by `python tools/list_api.py`.
"""


def page():
    """The page as Markdown."""
    parts = [INTRODUCTION]
    for chapter in CHAPTERS:
        module = importlib.import_module(f"clipspectra.{chapter}")
        parts.append(f"## clipspectra.{chapter}\n\n{inspect.getdoc(module).splitlines()[0]}\n")
        parts += [entry(chapter, name, getattr(module, name)) for name in module.__all__]
    return "\n".join(parts)


def entry(chapter, name, thing):
    """A function or class with its signature and docstring, a class with its public methods; or the names in a dict."""
    if isinstance(thing, dict):
        return f"### {name}\n\nA dict: {', '.join(f'`{key}`' for key in thing)}.\n"
    members = inspect.getmembers_static(thing, is_public_method) if inspect.isclass(thing) else []
    lines = [f"### {name}\n", f"```text\n{chapter}.{name}{signature(thing)}\n\n{inspect.getdoc(thing)}\n```\n"]
    for method, function in members:
        function = getattr(function, "__func__", function)
        lines.append(f"- `.{method}{signature(function)}`: {inspect.getdoc(function).splitlines()[0]}")
    return "\n".join(lines) + ("\n" if members else "")


def is_public_method(member):
    function = getattr(member, "__func__", member)
    return inspect.isfunction(function) and not function.__name__.startswith("_") and bool(function.__doc__)


def signature(thing):
    """The parameters with their defaults, without annotations."""
    parameters = inspect.signature(thing).parameters.values()
    shown = [parameter for parameter in parameters if parameter.name not in ("self", "cls")]
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in shown]
    return str(inspect.Signature(plain))


if __name__ == "__main__":
    PAGE.write_text(page())
