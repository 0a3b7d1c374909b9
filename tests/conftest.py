"""Clones of the repository for tests of the whole workflow; how tests share processes and processors."""

import os

import pytest
from clones import Clone

# Models this small only make threads wait for each other, and two tests run at a time. Snakemake says its jobs' own number.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_modifyitems(items):
    """Tests of one file run in one process of `make test`, and so do all that need the finished clone: it is made once."""
    for item in items:
        group = "finished" if "finished" in item.fixturenames else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))


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
