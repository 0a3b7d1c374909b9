"""From raw archives of the published layouts to tables, with a small CLIP."""

import hashlib
from pathlib import Path

import archives_small
import pandas as pd
import pytest
import yaml
from clones import Clone, documented_columns


def md5(path):
    return {"path": str(path), "md5": hashlib.md5(path.read_bytes()).hexdigest()}


def with_archives(clone):
    """The clone with a config of all archives; its own words as text pool."""
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


@pytest.fixture
def study(clone):
    return with_archives(clone)


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """A study of Waterbirds and CIFAR-10 whose heads are explained; each test brings entries of its own."""
    study = with_archives(Clone(tmp_path_factory.mktemp("birds") / "clone"))
    configure(study, {})
    result = study.snakemake("explanations", "--configfile", "config/study.yaml")
    assert result.returncode == 0, result.stdout
    return study


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
    found = segmentation.set_index(["method", "given", "resolution"])
    # The model's resolution and the pictures' own, given the text minus the mean and the text.
    assert found.loc["decomposition", "images"].tolist() == [6] * 4
    assert found.loc["rollout"].index.tolist() == [("no text", "model"), ("no text", "own")]
    assert found["mean_iou"].between(found["mean_iou_low"], found["mean_iou_high"]).all()
    assert len(found.index.levels[0]) == 14
    assert found["chosen_iou"].between(found["chosen_iou_low"], found["chosen_iou_high"]).all()
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
    tables = {path.name for path in (results / "tables").iterdir()}
    assert tables == {"segmentation.csv", "segmentation.tex", "loaded-models.csv", "shared-images.csv"}
    made = results / "segmentation" / "demo" / "imagenet-segmentation" / "seed-0"
    assert len(list((made.parent / "pictures").glob("*.png"))) == 6 * 5
    assert set(pd.read_csv(made / "parts.csv")["component"]) == {-1}
    assert (results / "figures/demo/imagenet-segmentation/seed-0/segmentation-parts.png").exists()


BACKGROUND = {"concept": ["a photo of a blue digit", "a photo of a red digit"]}


def configure(study, interventions, queries=(), neighbours=(), transfer=()):
    """The study with one dataset that has groups and one that has none, and these entries."""
    path = study.directory / "config" / "study.yaml"
    config = yaml.safe_load(path.read_text())
    config["datasets"] = {name: config["datasets"][name] for name in ("waterbirds", "cifar-10")}
    waterbirds = config["datasets"]["waterbirds"]
    waterbirds["roles"] = waterbirds["roles"] | {"validation": {"split": "val", "per_class": "all"}}
    config |= {"interventions": interventions, "queries": dict(queries), "neighbours": dict(neighbours)}
    config["transfer"] = dict(transfer)
    path.write_text(yaml.safe_dump(config))


def test_interventions_on_waterbirds(birds):
    """Published heads with the other ablations, and components found by texts, by group and beside random ones."""
    by_group = {"dataset": "waterbirds", "groups": True}
    others = [{"do": "remove", "all_but_last": 2}, {"do": "remove", "mlps": True}]
    controls = {"size": ["a photo of a large digit", "a photo of a small digit"]}
    found = by_group | {"controls": controls, "edits": [{"do": "remove", "share": 0.5, **BACKGROUND}]}
    published = by_group | {"edits": [*others, {"do": "remove", "heads": [[3, 1], [2, 0], [3, 0]]}]}
    others_alone = {"dataset": "waterbirds", "edits": others}
    transfer = {"birds": {"from": "cifar-10", "to": "waterbirds"}}
    configure(birds, {"published": published, "found": found, "others": others_alone}, transfer=transfer)
    made = [f"results/figures/interventions/{name}/demo-values.png" for name in ("found", "others")]
    made += ["results/figures/interventions/published/demo.png", "results/figures/transfer/birds/demo.png"]
    result = birds.snakemake("interventions", *made, "--configfile", "config/study.yaml")
    assert result.returncode == 0, result.stdout
    tables = birds.directory / "results" / "tables"
    every = pd.read_csv(tables / "interventions.csv")
    table = every[every["intervention"] != "others"]
    assert set(every.loc[every["intervention"] == "others", "group"]) == {"all"}
    groups = {f"{bird} on {place}" for bird in ("landbird", "waterbird") for place in ("land", "water")}
    for (_, role, setting), rows in table.groupby(["intervention", "role", "setting"]):
        assert set(rows["group"]) == {"all", "worst"} | groups
        scores = rows.set_index("group")["accuracy"]
        assert scores["worst"] == scores[list(groups)].min()
        assert set(rows["split"]) == {{"eval": "test", "validation": "val"}[role]}
        if setting == "edited":
            assert rows["random"].between(rows["random_draws_low"], rows["random_draws_high"]).all()
    rule = {f"edited, concept > {ratio} × classes" for ratio in (0.5, 2)}
    assert set(table["setting"]) == {
        *("as it is", "before the last edit", "edited", "best number, by validation labels"),
        *("control: size", *rule),
    }
    assert set(table.loc[table["intervention"] == "published", "setting"]).isdisjoint(rule)  # it has no rule
    assert (table["accuracy"].between(table["accuracy_low"], table["accuracy_high"])).all()
    edited = table[(table["setting"] == "edited") & (table["intervention"] == "published")]
    assert set(edited["units"]) == {3}
    made = birds.directory / "results" / "interventions"
    units = pd.read_csv(made / "found/demo/seed-0/units.csv")
    chosen = units[units["chosen"] == "yes"]
    assert chosen["held"].iloc[-1] >= 0.5 > ([0, *chosen["held"]][-2])
    texts = set(chosen["says_top"].str.removeprefix("unnamed (").str.removesuffix(")"))
    assert texts <= {f"{thing} {place}" for thing in ("a bird", "an apple") for place in ("here", "there")}
    assert (tables / "interventions.tex").exists()
    assert set(pd.read_csv(tables / "intervention-values.csv")["value"]) == {"landbird", "waterbird", "all"}
    columns = documented_columns(birds.directory)
    for file in ("tables/transfer.csv", "transfer/birds/demo/seed-0/heads.csv"):
        described = next(names for path, names in columns.items() if Path(path).name == Path(file).name)
        assert described <= set(pd.read_csv(birds.directory / "results" / file).columns)
    held = pd.read_csv(tables / "transfer.csv").set_index(["basis", "means", "budget"])["variance_held"]
    assert held["own", "own", 2] > held["random", "own", 2]


def test_a_picture_is_not_its_own_neighbour(birds):
    """However it is named: as the manifest does, or by its path."""
    root, ask = birds.directory / "results" / "data" / "waterbirds", {"model": "demo", "dataset": "waterbirds"}
    table = pd.read_csv(root / "manifest.csv")
    name = table.loc[table["split"] == "test", "image"].iloc[0]
    by_path = {"image": str((root / name).relative_to(birds.directory)), "layer": 3, "head": 1, "component": 0}
    neighbours = {"by-name": ask | {"image": name, "count": 99}, "by-path": ask | by_path | {"count": 99}}
    configure(birds, {}, neighbours=neighbours)
    result = birds.snakemake("retrieval", "--configfile", "config/study.yaml")
    assert result.returncode == 0, result.stdout
    for entry in neighbours:
        table = pd.read_csv(birds.directory / f"results/neighbours/{entry}.csv")
        nearest = table[table["kind"] == "image"]
        assert len(nearest) == 19
        assert name not in set(nearest["name"])
    own = table.loc[table["kind"] == "picture", "score"].iloc[0]
    away = (nearest["score"] - own).abs()
    assert (away.diff().dropna() >= -1e-6).all()


def test_what_cannot_be_edited_or_asked_is_named(birds):
    waterbirds, few = {"dataset": "waterbirds"}, {"dataset": "cifar-10"}
    edits = {
        "no-layer": waterbirds | {"edits": [{"do": "remove", "heads": [[9, 0]]}]},
        "no-component": waterbirds | {"edits": [{"do": "invert", "components": [[3, 0, 99]]}]},
        "too-many": waterbirds | {"edits": [{"do": "remove", "number": 5000, **BACKGROUND}]},
        "no-groups": few | {"groups": True, "edits": [{"do": "remove", "mlps": True}]},
    }
    ask = {"model": "demo", "dataset": "waterbirds"}
    configure(birds, edits, {"zebra": ask | {"text": "a zebra"}, "nowhere": ask | {"image": "raw/nowhere.png"}})
    result = birds.snakemake("interventions", "retrieval", "--keep-going", "--configfile", "config/study.yaml")
    assert result.returncode != 0
    for sentence in (
        "There is no layer 9, head 0: the stored layers are 0 to 3.",
        "There is no layer 3, head 0, component 99: that head has",
        "5000 components are asked for, but only",
        "images of cifar-10 have no group, the first images/",
        "Warning: The model has never learnt 'zebra'; texts with these words mean little to it.",
        "The picture raw/nowhere.png is not there, and results/data/waterbirds/manifest.csv has no image of that name.",
    ):
        assert sentence in result.stdout
    results = birds.directory / "results"
    assert (results / "queries" / "zebra.csv").exists()
    made = [path for name in edits for path in (results / "interventions" / name).rglob("*.csv")]
    assert made == []


@pytest.mark.parametrize(
    ("key", "entry", "words"),
    [
        ("queries", {"model": "demo", "dataset": "waterbirds", "text": "  "}, "queries.own.text: '  ' does not match"),
        (
            "queries",
            {"model": "demo", "dataset": "waterbirds"},
            "expected: a model, a dataset, and one of text, image",
        ),
        ("queries", {"model": "nobody", "dataset": "waterbirds", "text": "a"}, "own.model: there is no model 'nobody'"),
        ("queries", {"model": "demo", "dataset": "nowhere", "text": "a"}, "no dataset with fit images 'nowhere'"),
        (
            "neighbours",
            {"model": "demo", "dataset": "waterbirds", "layer": 1, "head": 0},
            "expected: a model, a dataset",
        ),
        (
            "interventions",
            {"dataset": "waterbirds", "edits": [{"do": "remove", "heads": [[3, 0], [2, 1], [3, 0]]}]},
            "interventions.own.edits.0.heads: [[3, 0], [2, 1], [3, 0]] has non-unique elements",
        ),
        ("interventions", {"dataset": "waterbirds", "edits": [{"do": "drop", "mlps": True}]}, "'drop' is not one of"),
        ("interventions", {"dataset": "waterbirds", "edits": [{"do": "remove"}]}, "what to do with one of heads"),
        (
            "interventions",
            {"dataset": "waterbirds", "edits": [{"do": "keep", "mlps": True}]},
            "edits.0: 'keep' goes with",
        ),
        (
            "interventions",
            {"dataset": "waterbirds", "about": {"hue": ["x"]}, "edits": [{"do": "remove", "mlps": True}]},
            "interventions.own.about: there is no prompt 'hue'; known: class",
        ),
        (
            "interventions",
            {"dataset": "waterbirds", "controls": {"hue": ["x"]}, "edits": [{"do": "remove", "mlps": True}]},
            "interventions.own.controls: they are concepts to try in place of that of the last edit",
        ),
        (
            "transfer",
            {"from": "imagenet-segmentation", "to": "waterbirds"},
            "transfer.own.from: there is no dataset with fit images 'imagenet-segmentation'",
        ),
        ("transfer", {"from": "cifar-10", "to": "cifar-10"}, "transfer.own: from and to are both 'cifar-10', so there"),
    ],
)
def test_wrong_entries_are_named_before_anything_runs(study, key, entry, words):
    path = study.directory / "config" / "study.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {key: {"own": entry}}))
    result = study.snakemake("--dry-run", "--configfile", "config/study.yaml")
    assert result.returncode != 0
    assert words in next(line for line in result.stdout.splitlines() if line.startswith("Config, "))
