"""Clones of the repository for tests of the whole workflow."""

import pytest
from clones import Clone


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A clone where `make demo` has run, at small size. Tests leave its results as they are."""
    clone = Clone(tmp_path_factory.mktemp("finished") / "clone")
    clone.configure(comparisons={"balanced-and-biased": {"models": ["demo", "demo"], "dataset": "digits"}})
    result = clone.run("make", "demo", "CORES=2")
    assert result.returncode == 0, result.stdout
    clone.output = result.stdout
    return clone


@pytest.fixture
def clone(tmp_path):
    """A clone where nothing has run yet."""
    return Clone(tmp_path / "clone")
