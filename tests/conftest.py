"""Clones of the repository for tests of the whole workflow; how tests share processes and processors."""

import os

import pytest
from clones import Clone

# Models this small only make threads wait for each other, and two tests run at a time. Snakemake's jobs have their own.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """What runs in one process of `make test`: all that needs the finished clone, the browser's tests, other files."""
    for item in items:
        group = "browser" if item.path.parent.name == "browser" else item.path.stem
        item.add_marker(pytest.mark.xdist_group("finished" if "finished" in item.fixturenames else group))


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A clone where `make demo` has run, at small size. Tests leave its results as they are."""
    clone = Clone(tmp_path_factory.mktemp("finished") / "clone")
    result = clone.run("make", "demo", "CORES=2")
    assert result.returncode == 0, result.stdout
    clone.output = result.stdout
    return clone


@pytest.fixture
def clone(tmp_path):
    """A clone where nothing has run yet."""
    return Clone(tmp_path / "clone")
