"""Clones of the repository for tests of the whole workflow; how tests share processes and processors."""

import os

import pytest
from clones import Clone

# Models this small only make threads wait for each other, and two tests run at a time. Snakemake's jobs have their own.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With several processes (`make test`), files that name the finished clone run in one, and so do the browser's."""
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = config.rootpath / nodeid.split("::")[0]
            if path.parent.name == "browser":
                return "browser"
            return "finished" if "finished" in path.read_text() else str(path)

    return Scheduling(config, log)


def pytest_collection_modifyitems(config, items):
    """With several processes, what takes long comes first, so that they end together."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: ("finished" not in item.fixturenames, item.path.parent.name == "unit"))


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
