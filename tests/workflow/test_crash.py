"""A share of what `make test-crash` does to the whole small study: kill -9, and run again."""

import random
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tools"))

from crash import compare, crash, digests


def test_a_killed_run_ends_with_the_bytes_of_one_left_alone(clone, finished):
    target = "results/explanations/demo/digits/seed-0/demo-vocabulary/components.parquet"
    rows = crash(clone, 2, random.Random(3), [[0, 1]], [target], most=2)
    assert {row["killed"] for row in rows} == {"a job", "Snakemake"}
    assert all(row["last job gone after (s)"] == "-" or float(row["last job gone after (s)"]) < 20 for row in rows)
    killed, alone = digests(clone.directory), digests(finished.directory)
    assert target.removeprefix("results/") in killed
    assert compare(killed, {path: digest for path, digest in alone.items() if path in killed}) == []
