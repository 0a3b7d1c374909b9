"""From the command line: a SigLIP, files that are replaced, a path with a blank."""

import json
import os
import re
import shlex
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from browser_visit import read_part
from clones import environment
from open_clip import CustomTextCLIP
from PIL import Image
from safetensors.torch import load_file, save_file
from siglip_small import SIGLIP
from skimage import data
from test_pages import BLOCKS, OWN
from tokenizers_small import cached, tokenizer_files


def study(clone, models, **changes):
    """A config of a small demo dataset with these models, written as config/study.yaml."""
    roles = {"fit": {"split": "train", "per_class": 3}, "eval": {"split": "test", "per_class": 3}}
    prompts = {"class": {"templates": ["a photo of a {}"]}}
    config = {
        "models": models,
        "datasets": {"d": {"demo": {"images": 120}, "masks": True, "roles": roles, "prompts": prompts}},
        "texts": {"t": {"demo": True}},
        "seeds": [0],
        "shards": 1,
        "threads": 2,
        "evaluation": {"methods": ["components"], "budgets": [0, 2]},
        "segmentation": {"methods": ["decomposition"]},
    }
    (clone.directory / "config" / "study.yaml").write_text(yaml.safe_dump(config | changes))
    return ["--configfile", "config/study.yaml"]


def test_a_siglip_runs_the_whole_chain_without_a_network(clone, monkeypatch):
    """With its tokenizer of the hub, which the cache holds."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.manual_seed(0)
    (clone.directory / "siglip.json").write_text(json.dumps(SIGLIP))
    config = {key: value for key, value in SIGLIP.items() if key != "custom_text"}
    save_file(CustomTextCLIP(**config).state_dict(), clone.directory / "siglip.safetensors")
    cached(clone.directory / "hub", "timm/ViT-B-16-SigLIP", tokenizer_files("timm/ViT-B-16-SigLIP"))
    model = {"architecture": "siglip.json", "pretrained": "siglip.safetensors", "mean": [0.5] * 3, "std": [0.5] * 3}
    options = study(clone, {"siglip": model | {"resize_mode": "squash"}}, cache="hub")
    result = clone.snakemake(*options)
    assert result.returncode == 0, result.stdout
    tables = clone.directory / "results" / "tables"
    assert pd.read_csv(tables / "exactness.csv")["largest_sum_error"].max() < 1e-5
    used = pd.read_csv(tables / "loaded-models.csv").iloc[0]
    assert (used["mean"], used["resize_mode"], used["preprocessing_from"]) == (
        "0.5, 0.5, 0.5",
        "squash",
        "the config; open_clip's default",
    )
    assert used["tokenizer"] == "timm/ViT-B-16-SigLIP"
    assert len(pd.read_csv(tables / "recovery.csv")) == 2
    assert (tables / "segmentation.csv").exists()


def planned(clone, *arguments):
    """Names of the rules that a dry run plans, with how often."""
    result = clone.snakemake("--dry-run", *arguments)
    assert result.returncode == 0, result.stdout
    if "Nothing to be done" in result.stdout:
        return {}
    lines = result.stdout.split("Job stats:")[1].split("\n\n")[0].splitlines()[3:]
    return {line.split()[0]: int(line.split()[1]) for line in lines if not line.startswith("total")}


def test_ones_own_images_model_and_texts(clone):
    """The pages' own config on photographs that ship with scikit-image; the demo's model stands for one's own."""
    for name, photograph in {"cat": data.chelsea(), "coffee": data.coffee(), "rocket": data.rocket()}.items():
        folder = clone.directory / "photographs" / name
        folder.mkdir(parents=True)
        for number in range(6):
            Image.fromarray(photograph[:, number * 20 : number * 20 + 300]).save(folder / f"{number}.jpg")
        sketches = clone.directory / "sketches" / "all"
        sketches.mkdir(parents=True, exist_ok=True)
        for number in range(2):
            sketch = Image.fromarray(photograph[:, number * 40 :]).convert("L")
            sketch.save(sketches / f"{name}-{number}.png")
    (clone.directory / "my-texts.txt").write_text("a red digit\nthe sky\ncat fur\n\na wooden table\n")
    (clone.directory / "my-weights.safetensors").write_bytes(
        (clone.directory / "config" / "demo" / "balanced.safetensors").read_bytes()
    )
    config = "\n".join(BLOCKS["yaml"]).replace("architecture: ViT-B-16", "architecture: config/demo/digits-clip.json")
    sketches = "datasets:\n  sketches: {folder: sketches, roles: {fit: {per_class: 4}, eval: {per_class: 2}}}"
    config = config.replace("datasets:", sketches, 1)
    few = "seeds: [0]\nevaluation: {methods: [components, textspan], budgets: [0, 2]}\n"
    (clone.directory / "config" / "mine.yaml").write_text(config + few)
    for command in OWN:
        result = clone.run(*shlex.split(command))
        assert result.returncode == 0, result.stdout
    table = pd.read_csv(clone.directory / "results" / "tables" / "accuracy.csv")
    assert set(table["images"]) == {6}
    assert set(table["model"]) == {"my-model"}  # the demo's config is not mixed in
    assert (clone.directory / "results/figures/my-model/photographs/seed-0/my-texts/cards.png").exists()


def test_what_is_replaced_under_its_old_name_is_noticed(clone):
    """By an older file, too: weights of any name, weights in a folder, a picture, a mask, a text pool."""
    here = clone.directory
    weights = {name: part.float() for name, part in load_file(here / "config/demo/balanced.safetensors").items()}
    other = weights | {"visual.proj": torch.randn_like(weights["visual.proj"])}
    shutil.copy(here / "config/demo/digits-clip.json", here / "digits.json")
    (here / "folder").mkdir()
    config = {"model_cfg": json.loads((here / "digits.json").read_text())}
    (here / "folder" / "open_clip_config.json").write_text(json.dumps(config))
    torch.save({"state_dict": weights}, here / "best")
    save_file(weights, here / "folder" / "open_clip_model.safetensors")
    (here / "pool.txt").write_text("a red digit\nthe sky\ncat fur\n")
    rows = ["image,label,class,group,split,mask"]
    for number in range(12):
        Image.new("RGB", (64, 64), (20 * number, 0, 99)).save(here / f"{number}.png")
        Image.new("L", (64, 64), number % 2).save(here / f"{number}-mask.png")
        rows.append(f"{number}.png,{number % 2},{'cat' if number % 2 else 'dog'},,all,{number}-mask.png")
    (here / "own.csv").write_text("\n".join(rows))
    roles = {"fit": {"per_class": 3}, "eval": {"per_class": 3}}
    own = {"manifest": "own.csv", "masks": True, "roles": roles, "prompts": {"class": {"templates": ["a {}"]}}}
    models = {
        "file": {"architecture": "digits.json", "pretrained": "best"},
        "dir": {"architecture": "local-dir:folder"},
    }
    options = study(clone, models, datasets={"own": own}, texts={"t": {"file": "pool.txt"}})
    targets = [f"results/tables/{name}.csv" for name in ("accuracy", "texts")]
    targets.append("results/segmentation/file/own/seed-0/scores.csv")
    result = clone.snakemake(*targets, *options)
    assert result.returncode == 0, result.stdout
    assert planned(clone, *targets, *options) == {}

    def replaced(path, write):
        """What is planned with another file in this place; then the old one is put back."""
        old = path.rename(here / "old")
        write(path)
        os.utime(path, (10**9, 10**9))
        plan = planned(clone, *targets, *options)
        old.replace(path)
        return plan

    of_images = {"choose_images", "extract_activations", "segment_images"}
    plan = replaced(here / "3.png", Image.new("RGB", (64, 64), "white").save)
    assert of_images <= set(plan)
    assert not {"embed_classes", "embed_texts", "head_basis"} & set(plan)
    plan = replaced(here / "3-mask.png", Image.new("L", (64, 64), 0).save)
    assert {"segment_images"} == set(plan)
    plan = replaced(here / "pool.txt", lambda path: path.write_text("a red digit\nthe sky\ncat hair\n"))
    assert {"embed_texts", "table_texts"} == set(plan)
    for path, save in ((here / "best", torch.save), (here / "folder" / "open_clip_model.safetensors", save_file)):
        plan = replaced(path, lambda path, save=save: save(other, path))
        assert (plan["extract_activations"], plan["embed_texts"], plan["embed_classes"]) == (1, 1, 1)  # of one model


def test_a_path_with_an_apostrophe_is_refused_at_once(clone, tmp_path):
    """Snakemake would write it into commands in a way that shells read otherwise; test_elsewhere.py has a blank."""
    place = tmp_path / "Ann's clone"
    shutil.copytree(clone.directory, place, symlinks=True)
    result = subprocess.run(
        ["snakemake", "--dry-run"], cwd=place, env=environment(), capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert f"The path {place} has an apostrophe, a backslash or an invisible character" in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("queries: {}\nqueries: {}\n", r"line \d+: the key 'queries' is given twice"),
        ("demo_training: {no: {steps: 3}}\n", r"line \d+: YAML does not read the key no as text; write it in quotes"),
        ("cache: 7\n", r"Config, cache: 7 is not of type .*needs quotes \(line \d+ of .*study.yaml"),
    ],
)
def test_traps_of_yaml_name_the_line(clone, lines, sentence):
    options = study(clone, {"demo": clone.config["models"]["demo"]})
    with open(clone.directory / "config" / "study.yaml", "a") as file:
        file.write(lines)
    result = clone.snakemake("--dry-run", *options)
    assert result.returncode != 0
    assert re.search(sentence, result.stdout), result.stdout


def test_pictures_without_classes_some_of_them_broken_in_the_explorer(clone):
    """A folder as it is: no prompts, no factors, one seed, a picture that cannot be read."""
    folder = clone.directory / "photographs" / "all"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(24):
        pixels = rng.integers(0, 255, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((80, 60)).save(folder / f"{number:02}.jpg")
    (folder / "05.jpg").write_bytes((folder / "05.jpg").read_bytes()[:200])
    options = study(
        clone,
        {"demo": clone.config["models"]["demo"]},
        datasets={"d": {"folder": "photographs", "roles": {"fit": {"per_class": 12}, "eval": {"per_class": 12}}}},
        on_bad_image="skip",
        segmentation={},
    )
    result = clone.snakemake(*options)
    assert result.returncode == 0, result.stdout
    named_at_the_end = result.stdout.split("Done.")[1]
    assert named_at_the_end.index("results/explorer/index.html") < named_at_the_end.index("results/figures/")
    page = clone.directory / "results" / "explorer"
    run = page / "runs" / "demo" / "d" / "seed-0" / "t"
    overview = read_part(run / "overview.js")
    assert overview["factor"] is None
    assert "accuracy_lost" not in [quantity["key"] for quantity in overview["quantities"]]
    assert read_part(run / "proof.js")["recovery"] is None
    skipped = read_part(page / "exactness.js")["skipped"]["demo/d/0"]
    assert [image for image, _ in skipped] == ["05.jpg"]
    names = read_part(page / "pictures" / "d" / "list.js")["names"]
    assert not (clone.directory / "results" / "tables" / "accuracy.csv").exists()
    assert not [path for path in page.rglob("*.js") if str(clone.directory) in path.read_text()]
    # whatever its role, no score is of the broken picture
    shown = [row for part in (run / "pictures").glob("*.js") for row in read_part(part)]
    assert "05.jpg" not in [names[int(number)] for number in shown]


def test_what_the_explorer_cannot_show_is_refused(clone):
    models = {"demo": clone.config["models"]["demo"]}
    for explorer, sentence in {
        ("models", ("another",)): "explorer.models: there is no model 'another'; known: demo.",
        ("datasets", ("e",)): "explorer.datasets: there is no dataset 'e'; known: d.",
        ("pictures", ("lost.png",)): "explorer.pictures.0: lost.png is not there.",
        ("images", 0): "explorer.images: 0 is less than the minimum of 1",
    }.items():
        key, value = explorer
        value = list(value) if isinstance(value, tuple) else value
        result = clone.snakemake("--dry-run", *study(clone, models, explorer={key: value}), "--", "explorer")
        assert result.returncode != 0
        assert sentence in result.stdout
    for folder in ("x", "y"):
        (clone.directory / folder).mkdir()
        shutil.copy(clone.directory / "config" / "demo" / "example.png", clone.directory / folder / "same.png")
    for pictures, sentence in {
        ("x",): "explorer.pictures: x is a folder; name the pictures in it one by one.",
        ("x/same.png", "./x/same.png"): "explorer.pictures: x/same.png is named twice; name it once.",
    }.items():
        options = study(clone, models, explorer={"pictures": list(pictures)})
        assert sentence in clone.snakemake("--dry-run", *options, "--", "explorer").stdout
    (clone.directory / "note.png").write_text("no picture")
    target = "results/explorer-parts/own-pictures/demo.safetensors"
    result = clone.snakemake(*study(clone, models, explorer={"pictures": ["note.png"]}), "--", target)
    assert result.returncode != 0
    assert "explorer.pictures: note.png cannot be read" in result.stdout
    result = clone.snakemake(
        "--dry-run",
        *study(clone, models, datasets={"d": {"demo": {"images": 120}, "roles": {"eval": {"per_class": 2}}}}),
        "--",
        "explorer",
    )
    assert "There is nothing to explore: no dataset has images with the role fit" in result.stdout
