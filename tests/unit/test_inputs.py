"""Inputs of users: models, manifests, pictures, text pools. Mistakes are named in one sentence."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from open_clip.transformer import QuickGELU
from PIL import Image

from clipspectra import InputError
from clipspectra.arrays import atomic_write, load_table, save_table
from clipspectra.data import pools, texts
from clipspectra.data.choosing import ChosenRows, choose_rows
from clipspectra.data.datasets import folder_manifest, own_manifest, read_manifest
from clipspectra.data.geometry import mask_transform
from clipspectra.data.pictures import ImageFiles, batches, open_mask
from clipspectra.demo import world
from clipspectra.demo.training import vocabulary
from clipspectra.jobs import job
from clipspectra.towers import models
from draw_demo_images import draw

ROLES = {"fit": "train", "eval": "test", "validation": "val"}
CONFIG = "tests/golden/model_config.json"
WEIGHTS = "tests/golden/model.safetensors"


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


def test_load_gives_the_model_with_its_preprocessing_and_tokenizer():
    loaded = models.load(CONFIG, WEIGHTS, device="cpu", precision="fp32")
    image = loaded.preprocess(Image.new("RGB", (50, 40)))
    assert image.shape == (3, *loaded.image_size)
    assert loaded.model.encode_text(loaded.tokenizer(["one text"])).shape == (1, 32)
    assert loaded.sha256 == models.file_sha256(WEIGHTS)
    assert not loaded.model.training


def damaged(tmp_path):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(Path(WEIGHTS).read_bytes()[:-100])
    return path


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("ViT-B-61", "openai"), r"no architecture 'ViT-B-61'; nearest: .*ViT-B-16"),
        (("ViT-B-16", "openia"), "'openia' is neither a file nor a tag of ViT-B-16; its tags: openai"),
        ((CONFIG, "nowhere.safetensors"), "'nowhere.safetensors' is neither a file"),
        ((CONFIG, damaged), r"damaged.safetensors is damaged or cut off: .*Fetch it again"),
        (("ViT-B-32", WEIGHTS), "do not fit ViT-B-32: they lack transformer.resblocks.1.attn.*237 more"),
        (("nowhere.json", None), "nowhere.json cannot be read"),
    ],
)
def test_wrong_models_are_named(arguments, sentence, tmp_path):
    architecture, pretrained = arguments
    pretrained = pretrained(tmp_path) if callable(pretrained) else pretrained
    with pytest.raises(InputError, match=sentence):
        models.load(architecture, pretrained)


def test_wrong_checksum_and_device_are_named(monkeypatch):
    with pytest.raises(InputError, match=f"{'0' * 64}. Fetch it again"):
        models.load(CONFIG, WEIGHTS, sha256="0" * 64)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match="Device 'cuda' is not available"):
        models.load(CONFIG, WEIGHTS, device="cuda")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub cache, offline, with the golden model in one revision of someone/tiny; `tiny` is its tag."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    commit, cache = "a" * 40, tmp_path / "cache"
    snapshot = cache / "models--someone--tiny" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(commit)
    shutil.copy(WEIGHTS, snapshot / "open_clip_model.safetensors")
    config = {
        "model_cfg": json.loads(Path(CONFIG).read_text()),
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (snapshot / "open_clip_config.json").write_text(json.dumps(config))
    tags = {"tiny": {"hf_hub": "someone/tiny/", "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}}
    tags["quick"] = tags["tiny"] | {"quick_gelu": True}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "model_config", tags)
    return cache, commit


def test_tags_and_hub_models_come_from_the_cache(hub):
    cache, commit = hub
    digest, white = models.file_sha256(WEIGHTS), Image.new("RGB", (64, 64), "white")
    bare = models.load(CONFIG, WEIGHTS)
    local = f"local-dir:{cache}/models--someone--tiny/snapshots/{commit}"
    sources = [
        (CONFIG, "tiny", None),
        (CONFIG, "tiny", commit),
        ("hf-hub:someone/tiny", None, commit),
        (local, None, None),
    ]
    for *arguments, revision in sources:
        loaded = models.load(*arguments, revision=revision, cache=str(cache), sha256=digest)
        assert loaded.sha256 == digest
        assert loaded.preprocess(white).unique().tolist() == [1.0]  # mean = std = 0.5, as the tag has it
        assert torch.equal(loaded.model.visual.proj, bare.model.visual.proj)
        assert loaded.tokenizer(["a text"]).shape == bare.tokenizer(["a text"]).shape
    assert bare.preprocess(white).max() > 1.5
    assert isinstance(models.load(CONFIG, "quick", cache=str(cache)).model.transformer.resblocks[0].mlp[1], QuickGELU)


def test_what_the_cache_lacks_is_named(hub, tmp_path):
    cache = str(hub[0])
    with pytest.raises(InputError, match=r"'tiny' of model_config at revision b{40} cannot be fetched, and the"):
        models.load(CONFIG, "tiny", revision="b" * 40, cache=cache)
    with pytest.raises(InputError, match="hf-hub:someone/other cannot be fetched"):
        models.load("hf-hub:someone/other", None, cache=cache)
    with pytest.raises(InputError, match="has no open_clip_config.json"):
        models.load(f"local-dir:{tmp_path}", None)
    with pytest.raises(InputError, match="'laion2b_s34b_b88k' of ViT-B-16 cannot be fetched"):
        models.load("ViT-B-16", "laion2b_s34b_b88k", cache=cache)


def manifest(rows, splits=("train", "test")):
    names = [f"{index:03d}.png" for index in range(rows)]
    columns = {"image": names, "label": np.arange(rows) % 3, "group": "", "mask": ""}
    table = pd.DataFrame(columns).assign(split=[splits[index % len(splits)] for index in range(rows)])
    return table.assign(**{"class": table["label"].map({0: "ant", 1: "bee", 2: "cat"})})


def test_rows_of_a_seed():
    roles = {"fit": {"split": "train", "per_class": 4}, "eval": {"split": "test", "per_class": 3}}
    table = manifest(60)
    chosen = choose_rows(table, roles, seed=1)
    assert chosen.groupby(["role", "class"]).size().tolist() == [3, 3, 3, 4, 4, 4]
    assert (chosen["split"] == chosen["role"].map({"fit": "train", "eval": "test"})).all()
    shuffled = choose_rows(table.sample(frac=1, random_state=0), roles, seed=1)
    assert set(shuffled["image"] + shuffled["role"]) == set(chosen["image"] + chosen["role"])
    assert set(choose_rows(table, roles, seed=2)["image"]) != set(chosen["image"])
    with pytest.raises(InputError, match="No images are left for role 'eval'"):
        choose_rows(table, roles | {"eval": {"split": "val", "per_class": 3}}, seed=1)
    joined = pd.concat([table[:30], table[30:].reset_index(drop=True)])  # rows of the same index
    assert choose_rows(joined, roles, seed=1)["image"].sort_values().tolist() == sorted(chosen["image"])
    with pytest.raises(InputError, match="There are no images"):
        choose_rows(table[:0], roles, seed=1)
    table.loc[table["class"] == "cat", "split"] = "val"  # of no role, but among the classes
    assert ChosenRows([table], roles, seed=1).counts["cat"].tolist() == [0, 0]


def test_roles_share_a_split_without_overlap():
    chosen = choose_rows(manifest(21, ["all"]), {"fit": {"per_class": 50}, "eval": {"per_class": 50}}, seed=0)
    assert chosen["image"].is_unique
    assert chosen.groupby(["class", "role"]).size().tolist() == [3, 4] * 3
    for roles in (
        {"fit": {"per_class": 4}, "eval": {"per_class": 2}},
        {"eval": {"per_class": 2}, "fit": {"per_class": 4}},
    ):
        exact = choose_rows(manifest(18, ["all"]), roles, seed=0)
        assert exact.groupby(["class", "role"]).size().tolist() == [2, 4] * 3


def test_a_role_without_a_split_takes_what_the_others_leave():
    table = manifest(60)
    chosen = choose_rows(table, {"eval": {"per_class": 15}, "fit": {"split": "train", "per_class": 8}}, seed=0)
    assert chosen["image"].is_unique
    assert chosen.groupby(["class", "role"]).size().tolist() == [12, 8] * 3


def test_manifests(tmp_path):
    save_table(tmp_path / "short.csv", manifest(4).drop(columns="label"))
    with pytest.raises(InputError, match="lacks the columns label"):
        read_manifest(tmp_path / "short.csv")
    save_table(tmp_path / "words.csv", manifest(3).assign(label=["a", "b", "c"]))
    with pytest.raises(InputError, match="labels that are not whole numbers"):
        read_manifest(tmp_path / "words.csv")
    save_table(tmp_path / "double.csv", pd.concat([manifest(3), manifest(1)]))
    with pytest.raises(InputError, match="000.png twice"):
        read_manifest(tmp_path / "double.csv")
    save_table(tmp_path / "absent.csv", manifest(3))
    with pytest.raises(InputError, match="names 3 files that are not there, the first .*000.png"):
        own_manifest(tmp_path / "absent.csv")
    for name in ("dog/b.png", "dog/a.jpg", "ape/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    table = folder_manifest(tmp_path)
    assert table["class"].tolist() == ["ape", "dog", "dog"]
    assert table["label"].tolist() == [0, 1, 1]
    with pytest.raises(InputError, match="is not there"):
        folder_manifest(tmp_path / "nowhere")


def test_pictures_and_masks_share_their_geometry(tmp_path):
    picture = np.zeros((40, 80), np.uint8)
    picture[10:30, 30:50] = 1
    Image.fromarray(picture * 255).save(tmp_path / "wide.png")
    Image.fromarray(picture).save(tmp_path / "mask.png")
    loaded = models.load(CONFIG, WEIGHTS)
    table = pd.DataFrame({"image": ["wide.png"], "mask": ["mask.png"]})
    image, mask = ImageFiles(table, tmp_path, loaded.preprocess, mask_transform(loaded.preprocess, loaded.image_size))[
        0
    ][1]
    bright = image.mean(0) > image.mean()
    assert (bright == (mask == 1)).float().mean() > 0.97
    (tmp_path / "wide.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"wide.png cannot be read"):
        list(batches(ImageFiles(table, tmp_path, loaded.preprocess), 1, workers=1))


def test_masks_with_other_values_are_refused(tmp_path):
    path = tmp_path / "mask.png"
    for mask in (np.full((4, 4), 255), np.full((4, 4), 7), np.zeros((4, 4, 3))):
        Image.fromarray(mask.astype(np.uint8)).save(path)
        with pytest.raises(InputError, match="mask.png must hold one number per pixel: 0 for background"):
            open_mask(path)
    mask = np.array([[0, 1], [255, 0]], np.uint8)
    Image.fromarray(mask).save(path)
    np.testing.assert_array_equal(open_mask(path), mask)
    Image.fromarray(mask == 1).save(path)
    np.testing.assert_array_equal(open_mask(path), mask == 1)


def test_text_pools(tmp_path):
    path = tmp_path / "pool.txt"
    path.write_text("a cat\n\na dog\na cat\n  \nein Bär 🐻", encoding="utf-8")
    assert pools.read_pool(path) == (["a cat", "a dog", "ein Bär 🐻"], {"blank": 2, "double": 1})
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not UTF-8"):
        pools.read_pool(path)
    path.write_text("one\none\n")
    with pytest.raises(InputError, match="has 1 different texts"):
        pools.read_pool(path)


def test_a_generated_pool(tmp_path):
    path = tmp_path / "words.yaml"
    path.write_text('templates: ["{animal} in {colour}", a photo]\nwords: {animal: [a cat, an owl], colour: [red, 7]}')
    expected = ["a cat in red", "a cat in 7", "an owl in red", "an owl in 7", "a photo"]
    assert pools.generated_pool(path) == (expected, {"blank": 0, "double": 0})
    path.write_text('templates: ["a {n} and a {n}"]\nwords: {n: [cat, dog]}')
    assert pools.generated_pool(path) == (["a cat and a cat", "a dog and a dog"], {"blank": 0, "double": 0})
    path.write_text('templates: ["{beast}"]\nwords: {animal: [a cat]}')
    with pytest.raises(InputError, match=r"The template '\{beast\}' of .* needs the words 'beast'"):
        pools.generated_pool(path)
    path.write_text("just text")
    with pytest.raises(InputError, match="cannot be read as templates"):
        pools.generated_pool(path)
    pool, dropped = pools.generated_pool("config/words.yaml")
    assert len(pool) > 5000
    assert dropped == {"blank": 0, "double": 0}


def test_texts_longer_than_the_context_are_named():
    loaded = models.load(CONFIG, WEIGHTS)
    fits = "word " * (loaded.tokenizer.context_length - 2)
    assert texts.too_long(loaded, ["short", fits, fits + "more", "ein Bär 🐻"]) == [fits + "more"]


def test_prompts_name_what_exists():
    assert texts.prompt_phrases(["red_ink", "blue"], {"blue": ["blue", "azure"]}, "colour") == [
        "red ink",
        ["blue", "azure"],
    ]
    with pytest.raises(InputError, match="names 'bleu' under prompts.colour.names"):
        texts.prompt_phrases(["blue"], {"bleu": "x"}, "colour")
    assert len(texts.prompt_templates("openai")) == 80


def test_outputs_appear_whole_or_not_at_all(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "table.csv") as path:
        path.write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    save_table(tmp_path / "table.csv", pd.DataFrame({"text": ["NA", "null"]}))
    assert load_table(tmp_path / "table.csv")["text"].tolist() == ["NA", "null"]


def test_a_job_prints_one_sentence_and_logs_the_traceback(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop, job(tmp_path / "log"):
        raise InputError("The key is wrong.")
    assert stop.value.code == 1
    assert capsys.readouterr().err == "\nError: The key is wrong.\n"
    assert "Traceback" in (tmp_path / "log").read_text()


def test_the_demo_world_keeps_its_splits_and_groups_apart():
    train, test = world.World("train"), world.World("test")
    pictures = [np.stack([np.asarray(digit) for digit in world.digits]) for world in (train, test)]
    assert len(pictures[0]) + len(pictures[1]) == 1797
    fitting, validation = world.World("fitting"), world.World("validation")
    assert len(fitting.digits) + len(validation.digits) == len(train.digits)
    rng = np.random.default_rng(0)
    factors = train.draw_factors(rng, 400, agreement=0.95)
    groups = pd.Series([world.describe(row, spurious=True)["group"] for row in factors]).value_counts()
    assert groups.to_dict() == {"low on ground": 190, "high on sky": 190, "low on sky": 10, "high on ground": 10}
    picture, mask = test.render(factors[0], rng)
    again, _ = test.render(factors[0], np.random.default_rng(3))
    assert picture.shape == again.shape == (64, 64, 3)
    assert 0.01 < mask.mean() < 0.4


def test_the_demo_has_a_validation_split_beside_the_others(tmp_path):
    options = {"images": 40, "agreement": 0.95, "pairs": 0, "seed": 0}
    for name, validation in (("without", 0), ("with", 20)):
        draw(tmp_path / name, tmp_path / f"{name}.csv", validation=validation, **options)
    bare, table = (load_table(tmp_path / f"{name}.csv") for name in ("without", "with"))
    counts = table.groupby("split")["image"].size().to_dict()
    assert counts == {"train": 20, "test": 20, "val": 20}
    others = table[table["split"] != "val"].reset_index(drop=True).drop(columns=["image", "mask"])
    pd.testing.assert_frame_equal(others, bare.drop(columns=["image", "mask"]))
    groups = table[table["split"] == "val"]["group"].value_counts()
    assert set(groups) == {5}
    chosen = choose_rows(table, {role: {"split": split, "per_class": 5} for role, split in ROLES.items()}, seed=0)
    assert chosen.groupby("role")["split"].unique().str[0].to_dict() == ROLES


def test_the_demo_texts_fit_the_context():
    from open_clip import SimpleTokenizer

    tokenizer = SimpleTokenizer(context_length=77)
    longest = world.caption([0, 5, 7, 1, 3], prefix="a close photo of", phrasing=(1,) * 5)
    assert longest == "a close photo of a tiny purple 0 on a clear sky in the lower part"
    pool = [*world.text_pool(), longest]
    assert len(set(pool)) == len(pool) > 400
    tokens = tokenizer(pool).numpy()
    assert (tokens > 0).sum(1).max() <= 24
    assert set(np.unique(tokens)) <= set(vocabulary(tokenizer))


def test_the_core_is_the_one_of_this_repository(request):
    assert sys.modules["clipspectra"].__file__.startswith(str(request.config.rootpath / "scripts"))
