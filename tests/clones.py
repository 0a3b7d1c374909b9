"""Clones of the repository with a small configuration of the demo, to run the README's commands in."""

import os
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


class Clone:
    """The tracked files in another directory, with this Python as its .venv and a small demo as its config."""

    def __init__(self, directory):
        self.directory = directory
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, listed.split("\0")):
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name)
        (directory / ".venv").mkdir()
        (directory / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
        (directory / ".venv" / "ready").touch()
        self.demo = yaml.safe_load((directory / "config" / "config.yaml").read_text())
        self.config = deepcopy(self.demo)
        digits = self.config["datasets"]["digits"]
        digits["demo"] |= {"images": 240, "pairs": 20}
        digits["roles"] = {"fit": {"split": "train", "per_class": 6}, "eval": {"split": "test", "per_class": 6}}
        self.configure(
            datasets={"digits": digits},
            shards=1,
            neighbours={name: self.config["neighbours"][name] for name in ("like-the-example", "a-component")},
            evaluation={
                "methods": ["components", "textspan", "sparse", "weights", "random_texts"],
                "budgets": [0, 2, 9],
            },
            models={"demo": self.config["models"]["demo"]},
            interventions={"more-four": self.config["interventions"]["more-four"] | {"live": True}},
            transfer={},  # which takes two datasets
            comparisons={},
            demo_training={"balanced": {"steps": 4}, "biased": {"steps": 2, "start": "balanced", "agreement": 0.95}},
        )

    def configure(self, **changes):
        """Change entries of config/config.yaml."""
        self.config |= changes
        (self.directory / "config" / "config.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))

    def run(self, *command):
        """Run a command in this directory; its output, errors included, is the result's stdout."""
        return subprocess.run(
            command,
            cwd=self.directory,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def snakemake(self, *arguments):
        """Run snakemake on two cores."""
        return self.run("snakemake", "--cores", "2", *arguments)


def documented_columns(directory):
    """{path of a result: the columns that docs/outputs.md says it has}."""
    section = (directory / "docs" / "outputs.md").read_text().split("## Columns")[1]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    return {file.strip(" `"): set(re.findall("`([^`]+)`", columns)) for file, columns in rows}


def environment():
    """This process's environment, with its Python's programs first."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
