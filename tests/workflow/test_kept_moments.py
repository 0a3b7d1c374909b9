"""The small study with moments in place of images: explanations as those of the stored run, from a sample and sums."""

import re
import shutil

import pandas as pd

from clipspectra.arrays import load_arrays, save_arrays

FOLDER = "results/activations/demo/digits"
EXPLAINED = "results/explanations/demo/digits/seed-0/demo-vocabulary"
TARGETS = [f"{EXPLAINED}/components.parquet", f"{EXPLAINED}/sparse.parquet", "results/tables/exactness.csv"]


def test_a_study_that_keeps_moments_explains_as_the_stored_one(finished, clone):
    for part in ("data", "text", "activations/demo/basis.safetensors"):  # which are the same
        source, target = (of.directory / "results" / part for of in (finished, clone))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
    clone.configure(seeds=[0], shards=20, activations={"keep": "moments", "sample": 20})
    planned = clone.snakemake("--dry-run", "--", f"{FOLDER}/seed-0-poles.safetensors").stdout
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", planned.split("Job stats:")[1].split("total")[0], re.M))
    assert {name: jobs[name] for name in ("extract_moments", "extract_poles", "merge_some_sums", "merge_sums")} == {
        "extract_moments": "20",
        "extract_poles": "20",
        "merge_some_sums": "6",
        "merge_sums": "2",
    }

    clone.configure(shards=2)
    result = clone.snakemake("--quiet", "all", "--", *TARGETS)
    assert result.returncode == 0, result.stdout
    for path in TARGETS[:2]:
        tables = [pd.read_parquet(of.directory / path) for of in (clone, finished)]
        pd.testing.assert_frame_equal(*tables, rtol=1e-9, atol=1e-9)
    sample = pd.read_csv(clone.directory / "results/data/digits/seed-0/sample.csv")
    assert sample["role"].value_counts().to_dict() == {"fit": 20, "eval": 20, "pair": 20}
    names = sorted(path.name for path in (clone.directory / FOLDER).rglob("*.safetensors"))
    assert names == [
        "sample-0-of-2.safetensors",
        "sample-1-of-2.safetensors",
        "seed-0-directions.safetensors",
        "seed-0-moments.safetensors",
        "seed-0-poles.safetensors",
    ]
    exactness = [pd.read_csv(of.directory / TARGETS[2]).query("seed == 0") for of in (clone, finished)]
    assert exactness[0]["images"].sum() == sample.groupby("role")["of_role"].first()["fit"] + 40
    assert exactness[0]["largest_sum_error"].max() <= exactness[1]["largest_sum_error"].max()

    clone.configure(activations={"keep": "moments", "sample": 10})
    assert "sample_images" in clone.snakemake("--dry-run", "--", *TARGETS).stdout
    clone.configure(activations={"keep": "moments", "sample": 20})
    assert "Nothing to be done" in clone.snakemake("--dry-run", "--", *TARGETS).stdout
    path = clone.directory / FOLDER / names[3]  # in place of this model's, the moments of another
    arrays, metadata = load_arrays(path)
    save_arrays(path, arrays, metadata | {"model": "other"})
    result = clone.snakemake("--quiet", "all", "--", f"{EXPLAINED}/textspan.parquet")
    assert "are not of one run and must not be mixed: they differ in the model (other, demo)" in result.stdout
