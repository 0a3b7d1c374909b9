"""From raw archives of the published layouts to tables, with a small CLIP."""

import hashlib

import archives_small
import pandas as pd
import pytest
import yaml


def md5(path):
    return {"path": str(path), "md5": hashlib.md5(path.read_bytes()).hexdigest()}


@pytest.fixture
def study(clone):
    """A clone with a config of all archives; its own words as text pool."""
    raw = clone.directory / "raw"
    raw.mkdir()
    pictures, kit, _ = archives_small.imagenet(raw)
    few = {"fit": {"per_class": 3}, "eval": {"per_class": "all"}}
    by_split = {"fit": {"split": "train", "per_class": 3}, "eval": {"split": "test", "per_class": "all"}}
    prompts = {"class": {"templates": ["a photo of a {}"]}}
    named = {"class": {"templates": ["a {}"], "names": "imagenet"}}
    datasets = {
        "imagenet-val": {"imagenet": {"images": md5(pictures), "devkit": md5(kit)}, "roles": few},
        "imagenet-segmentation": {
            "imagenet_segmentation": {"archive": {"path": str(archives_small.segmentation(raw))}},
            "masks": True,
            "roles": {"eval": {"per_class": "all"}},
            "prompts": named,
        },
        "waterbirds": {"waterbirds": {"archive": md5(archives_small.waterbirds(raw))}, "roles": by_split},
        "cifar-10": {"cifar10": {"archive": md5(archives_small.cifar(raw, fine=False))}, "roles": by_split},
        "cifar-100": {"cifar100": {"archive": md5(archives_small.cifar(raw, fine=True))}, "roles": by_split},
    }
    (raw / "words.yaml").write_text(
        "templates: ['{thing} {place}']\nwords: {thing: [a bird, an apple], place: [here, there]}"
    )
    config = {
        "models": {"demo": clone.config["models"]["demo"]},
        "datasets": {name: {"prompts": prompts} | dataset for name, dataset in datasets.items()},
        "texts": {"own": {"generated": "raw/words.yaml"}},
        "seeds": [0],
        "shards": 1,
        "threads": 1,
        "evaluation": {"methods": ["components"], "budgets": [0, 2]},
    }
    (clone.directory / "config" / "study.yaml").write_text(yaml.safe_dump(config))
    return clone


TABLES = [f"results/tables/{name}.csv" for name in ("accuracy", "recovery", "segmentation", "texts")]


def test_the_chain_from_raw_archives(study):
    result = study.snakemake(*TABLES, "--configfile", "config/study.yaml")
    assert result.returncode == 0, result.stdout
    accuracy, recovery, segmentation, texts = (pd.read_csv(study.directory / path) for path in TABLES)
    scored = accuracy[(accuracy["at_mean"] == "none") & (accuracy["group"] == "all")].set_index("dataset")["images"]
    assert scored.to_dict() == {"imagenet-val": 36, "waterbirds": 20, "cifar-10": 16, "cifar-100": 16}
    groups = accuracy.loc[(accuracy["dataset"] == "waterbirds") & (accuracy["at_mean"] == "none"), "group"]
    assert len(set(groups)) == 5  # all, and four of class on place
    assert set(recovery["dataset"]) == set(scored.index)
    found = segmentation.set_index(["method", "resolution"])
    assert found.loc["decomposition", "images"].tolist() == [6, 6]  # the model's resolution and the pictures' own
    assert found["mean_iou"].between(found["mean_iou_low"], found["mean_iou_high"]).all()
    assert len(found.index.levels[0]) == 13
    assert texts.loc[0, ["texts", "count", "too_long"]].tolist() == ["own", 4, 0]


def test_one_dataset_plans_nothing_else(study):
    target = "results/evaluation/demo/cifar-10/seed-0/accuracy.csv"
    result = study.snakemake("--dry-run", target, "--configfile", "config/study.yaml")
    assert result.returncode == 0, result.stdout
    assert "cifar-10" in result.stdout
    assert not [name for name in ("cifar-100", "waterbirds", "imagenet", "explain") if name in result.stdout]


def test_wrong_archives_stop_with_one_sentence(study):
    path = study.directory / "config" / "study.yaml"
    config = yaml.safe_load(path.read_text())
    config["datasets"]["cifar-10"]["cifar10"]["archive"]["md5"] = "0" * 32
    config["datasets"]["imagenet-val"]["imagenet"]["images"]["path"] = "raw/nowhere.tar"
    path.write_text(yaml.safe_dump(config))
    manifests = [f"results/data/{name}/manifest.csv" for name in ("cifar-10", "imagenet-val")]
    result = study.snakemake(*manifests, "--keep-going", "--configfile", "config/study.yaml")
    assert result.returncode != 0
    assert "cifar-10-batches-py.tar.gz is damaged or another file: its md5 is" in result.stdout
    assert "datasets.imagenet-val.imagenet.images.path: raw/nowhere.tar is not there" in result.stdout
    assert "https://image-net.org" in result.stdout
    assert not list((study.directory / "results" / "data").rglob("*.*g"))


def test_a_study_of_segmentation_alone(study):
    """Without fit images there is nothing to explain, and all that can be made is made."""
    path = study.directory / "config" / "study.yaml"
    config = yaml.safe_load(path.read_text())
    config["datasets"] = {"imagenet-segmentation": config["datasets"]["imagenet-segmentation"]}
    config["segmentation"] = {"save_images": True, "geometry": "squashed", "methods": ["decomposition", "GradCAM"]}
    path.write_text(yaml.safe_dump(config))
    result = study.snakemake("--configfile", "config/study.yaml")
    assert result.returncode == 0, result.stdout
    results = study.directory / "results"
    assert [path.name for path in sorted((results / "tables").iterdir())] == ["segmentation.csv", "segmentation.tex"]
    made = results / "segmentation" / "demo" / "imagenet-segmentation" / "seed-0"
    assert len(list((made / "pictures").glob("*.png"))) == 6 * 5
    assert set(pd.read_csv(made / "parts.csv")["component"]) == {-1}
    assert (results / "figures/demo/imagenet-segmentation/seed-0/segmentation-parts.png").exists()
