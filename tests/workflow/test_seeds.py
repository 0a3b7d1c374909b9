"""Seeds choose rows: images are extracted and segmented once, in any order of the seeds, with the same bytes."""

import json
import shutil

from clipspectra.arrays import load_arrays

SHARD = "results/activations/demo/digits/shard-0-of-1.safetensors"
SCORES = "results/segmentation/demo/digits/scores.safetensors"
TABLES = [f"results/tables/{name}.csv" for name in ("accuracy", "exactness", "segmentation", "recovery", "labels")]
LOG = "results/logs/activations/demo/digits/shard-0-of-1.log"


def rows(clone, path):
    return load_arrays(clone.directory / path, "row")[0]["row"]


def test_seeds_added_one_by_one_give_the_same_bytes(finished, clone):
    clone.configure(seeds=[1])
    old = clone.directory / "results/activations/demo/digits/seed-1"
    old.mkdir(parents=True)
    (old / "shard-0-of-1.safetensors").touch()
    result = clone.snakemake("--quiet", "all", "--", SHARD, SCORES, *TABLES)
    assert result.returncode == 0, result.stdout
    warning = f"{old.relative_to(clone.directory)} holds activations of an older version. They are not read"
    assert warning in result.stdout
    before = len(rows(clone, SHARD))
    clone.configure(seeds=[0, 1])
    result = clone.snakemake("--quiet", "all", "--", SHARD, SCORES, *TABLES)
    assert result.returncode == 0, result.stdout
    after = len(rows(clone, SHARD))
    assert before < after < 2 * before
    first = int((clone.directory / LOG).read_text().split(" images extracted")[0].split()[-1])
    assert after - before <= first < before  # and those of the new seed that must be checked
    names = sorted(
        str(path.relative_to(clone.directory))
        for part in ("activations", "segmentation", "evaluation", "explanations", "tables")
        for path in (clone.directory / "results" / part).rglob("*.*")
        if not path.name.startswith(".") and path.parent != old
    )
    assert {SHARD, SCORES, *TABLES} <= set(names)
    assert any(name.startswith("results/explanations/demo/digits/seed-0/") for name in names)
    for name in names:
        assert (clone.directory / name).read_bytes() == (finished.directory / name).read_bytes(), name
    shutil.rmtree(old)
    bytes_of_both = (clone.directory / SHARD).read_bytes()
    clone.configure(seeds=[1])
    result = clone.snakemake("--quiet", "all", "--", SHARD, SCORES, *TABLES)
    assert result.returncode == 0, result.stdout
    assert (clone.directory / LOG).read_text() == f"all {before} images are stored\n"
    assert (clone.directory / SHARD).read_bytes() == bytes_of_both
    assert json.loads(load_arrays(clone.directory / SHARD, "row")[1]["skipped"]) == []
