"""A Slurm for the tests of this folder, which are skipped where none can be started."""

import pytest
from slurm import Slurm, missing


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A running Slurm of one node."""
    if missing():
        pytest.skip(missing())
    cluster = Slurm(tmp_path_factory.mktemp("slurm") / "slurm")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
