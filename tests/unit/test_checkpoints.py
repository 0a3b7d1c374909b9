"""Checkpoints of many formats: the same model from every layout, and an error that names any other file."""

import argparse
import json
import os
import pickle
import sys
import zipfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import open_clip
import pytest
import timm
import torch
import transformers
from open_clip import CLIP, CustomTextCLIP
from safetensors.torch import load_file, save_file

from clipspectra import InputError
from clipspectra.towers import layouts, models
from clipspectra.towers.checkpoints import read_checkpoint

ROOT = Path(__file__).parents[2]
CONFIG, WEIGHTS = ROOT / "tests/golden/model_config.json", ROOT / "tests/golden/model.safetensors"


@pytest.fixture(scope="module")
def weights():
    return load_file(WEIGHTS)


def prefixed(prefix, weights):
    return {prefix + name: tensor for name, tensor in weights.items()}


def sharded(path, weights):
    """Shards with an index, as save_pretrained writes them."""
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, members in parts.items():
        save_file({name: weights[name] for name in members}, path.parent / file)
    index = {"metadata": {}, "weight_map": {name: file for file, members in parts.items() for name in members}}
    path = path.parent / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    return path


class Nested(torch.nn.Module):
    """A module that holds tensors under dotted names, for TorchScript to save."""

    def __init__(self, weights, **sizes):
        super().__init__()
        vars(self).update(sizes)
        for name, tensor in weights.items():
            *path, last = name.split(".")
            module = self
            for child in path:
                if not hasattr(module, child):
                    module.add_module(child, torch.nn.Module())
                module = getattr(module, child)
            module.register_buffer(last, tensor)

    def forward(self, x):
        return x


def saved(content):
    def save(path, weights):
        torch.save(content(weights), path)
        return path

    return save


COUNT = len(load_file(WEIGHTS))
OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(3, 3)}}, "param_groups": [{"lr": np.float64(1e-5), "params": [0]}]}
ONES = torch.ones(3, 3)
LAYOUTS = {
    "open_clip's trainer": saved(
        lambda weights: {"epoch": 3, "state_dict": prefixed("module.", weights), "optimizer": OPTIMIZER}
    ),
    "compiled and distributed": saved(lambda weights: {"state_dict": prefixed("module._orig_mod.", weights)}),
    "parts compiled": saved(
        lambda weights: {name.replace("visual.", "visual._orig_mod."): tensor for name, tensor in weights.items()}
    ),
    "a wrapper with arguments": saved(
        lambda weights: {"checkpoint": {"model": weights, "args": argparse.Namespace(lr=np.float32(1)), "step": 7}}
    ),
    "lightning": saved(
        lambda weights: {"state_dict": prefixed("net.clip.", weights) | {"head.weight": ONES}, "hyper_parameters": {}}
    ),
    "an average beside it": saved(
        lambda weights: {"model": weights, "model_ema": {name: 0 * tensor for name, tensor in weights.items()}}
    ),
    "an averaged model": saved(lambda weights: prefixed("module.", weights) | {"n_averaged": torch.tensor(3)}),
    "numpy arrays": saved(lambda weights: {"state_dict": {name: tensor.numpy() for name, tensor in weights.items()}}),
    "a compiled twin": saved(lambda weights: weights | prefixed("fast._orig_mod.", weights)),
    "an older file": lambda path, weights: torch.save(weights, path, _use_new_zipfile_serialization=False) or path,
    "shards": sharded,
    "TorchScript": lambda path, weights: torch.jit.save(torch.jit.script(Nested(weights)), path) or path,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_layout_gives_the_same_tensors(layout, weights, tmp_path):
    path = LAYOUTS[layout](tmp_path / "epoch_3.pt", weights)
    checkpoint = read_checkpoint(path)
    assert set(checkpoint.tensors) - {"n_averaged"} == set(weights)
    for name, tensor in weights.items():
        assert torch.equal(checkpoint.tensors[name], tensor), name
    loaded = models.load(CONFIG, path)
    assert torch.equal(loaded.model.visual.proj, weights["visual.proj"])
    assert len(loaded.sha256) == 64
    left_out = {"lightning": "head.weight", "an average beside it": "model_ema", "a compiled twin": f"fast.* ({COUNT})"}
    assert loaded.used["left_out"] == left_out.get(layout, "")


def test_which_set_of_weights(weights, tmp_path):
    path = tmp_path / "run.pt"
    average = {name: tensor / 2 for name, tensor in weights.items()}
    torch.save({"model": weights, "model_ema": average}, path)
    loaded = models.load(CONFIG, path, state_dict="model_ema")
    assert torch.equal(loaded.model.visual.proj, weights["visual.proj"] / 2)
    with pytest.raises(InputError, match=r"has no weights under 'emma'; it has model, model_ema\."):
        models.load(CONFIG, path, state_dict="emma")
    torch.save({"student": weights, "teacher": average}, path)
    with pytest.raises(InputError, match="several sets of weights: student, teacher. Set 'state_dict'"):
        models.load(CONFIG, path)


def test_openai_archives_have_their_activation(weights, tmp_path):
    """Their layout has its sizes among the weights; in half precision, as they are published."""
    sizes = {name: torch.tensor(5) for name in ("input_resolution", "context_length", "vocab_size")}
    half = {name: tensor.half() for name, tensor in weights.items()}
    torch.save(half | sizes, tmp_path / "ViT.pt")
    used = models.load(CONFIG, tmp_path / "ViT.pt").used
    assert (used["activation"], used["activation_from"]) == ("quick_gelu", "OpenAI's own layout")
    assert models.load(CONFIG, tmp_path / "ViT.pt", quick_gelu=False).used["activation"] == "gelu"
    script = torch.jit.script(Nested(half, **{name: 5 for name in sizes}))
    torch.jit.save(script, tmp_path / "script.pt")
    loaded = models.load(CONFIG, tmp_path / "script.pt")
    assert loaded.used["activation"] == "quick_gelu"
    assert torch.equal(loaded.model.visual.proj, weights["visual.proj"].half().float())


class Runs:
    """A pickle of code: unpickled, it writes a file."""

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_no_code_is_run(weights, tmp_path):
    Runs.path = tmp_path / "ran"
    for new in (True, False):
        torch.save({"state_dict": weights, "callback": Runs()}, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
        with pytest.raises(InputError, match=r"holds Python objects \(posix.system\) besides weights, and only plain"):
            read_checkpoint(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:  # as a TorchScript archive
        archive.writestr("script/data.pkl", pickle.dumps(Runs()))
        archive.writestr("script/constants.pkl", b"")
    with pytest.raises(InputError, match=r"TorchScript archive that cannot be read: it holds Python .*posix.system"):
        read_checkpoint(tmp_path / "script.pt")
    assert not Runs.path.exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 6\n", "it is a pointer of Git LFS"),
        (b"<!DOCTYPE html>\n<html><body>Log in</body></html>", "it is a web page"),
        (b"", "it is empty"),
        (b"\0" * 5000, "holds zeros"),
        (b"\x1f\x8b\x08" + b"x" * 600, "gzip archive; unpack it first"),
        (b'{"weight_map": {}}', "it is JSON"),
        (b"just some words", "it is text"),
        (b"PK\x03\x04" + b"cut off" * 50, "is damaged or cut off"),
        (b"\x80\x02}q\x00.", "is damaged or cut off|holds no weights of a CLIP"),
    ],
)
def test_files_that_are_not_checkpoints_are_identified(content, sentence, tmp_path):
    for ending in ("safetensors", "pt", "bin"):
        path = tmp_path / f"weights.{ending}"
        path.write_bytes(content)
        with pytest.raises(InputError, match=sentence) as error:
            models.load(CONFIG, path)
        assert "weights_only" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda weights: {key: tensor for key, tensor in weights.items() if "visual" in key}, "an image tower alone"),
        (lambda weights: {key: tensor for key, tensor in weights.items() if "visual" not in key}, "text tower alone"),
        (lambda weights: weights | {"visual.lora_A.weight": ONES}, "hold LoRA adapters; merge them"),
        (lambda weights: weights | {"extra.weight": ONES}, "they also have extra.weight"),
        (
            lambda weights: weights | {"visual.proj": torch.ones(7, 5)},
            r"visual.proj has shape \[7, 5\], model_config needs",
        ),
        (lambda weights: weights | {"visual.conv1.weight": ONES.to(torch.int8)}, "quantised weights are not exact"),
        (lambda weights: weights | {"visual.proj": weights["visual.proj"].to(torch.int8)}, "quantised weights are not"),
        (lambda weights: weights | {"visual.proj": weights["visual.proj"] * torch.nan}, "visual.proj holds nan or inf"),
        (lambda weights: weights | {"module.visual.proj": ONES}, "holds visual.proj twice, once as module.visual.proj"),
        (lambda weights: weights | prefixed("net.", {"visual.proj": ONES}), "several models, whose names begin with"),
        (
            lambda weights: {name: tensor for name, tensor in weights.items() if name != "visual.proj"},
            "they lack visual.proj",
        ),
        (lambda weights: {"a": weights["visual.proj"]}, "holds no weights of a CLIP model; its keys are a"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, sentence, weights, tmp_path):
    torch.save(change(dict(weights)), tmp_path / "weights.pt")
    with pytest.raises(InputError, match=sentence) as error:
        models.load(CONFIG, tmp_path / "weights.pt")
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize("half", [False, True])
def test_other_sizes_are_named_or_interpolated_when_asked(half, weights, tmp_path):
    config = json.loads(CONFIG.read_text())
    config["vision_cfg"]["image_size"] *= 2
    config["text_cfg"]["context_length"] += 4
    (tmp_path / "large.json").write_text(json.dumps(config))
    weights = {name: tensor.half() if half else tensor for name, tensor in weights.items()}
    save_file(weights, tmp_path / "weights.safetensors")
    size = config["vision_cfg"]["image_size"]
    sentence = rf"for images of {size // 2} × {size // 2} px \(.*\), but large takes images of {size} × {size} px"
    with pytest.raises(InputError, match=sentence):
        models.load(tmp_path / "large.json", tmp_path / "weights.safetensors")
    loaded = models.load(tmp_path / "large.json", tmp_path / "weights.safetensors", resize_positions=True)
    assert loaded.image_size == (size, size)
    config["vision_cfg"]["image_size"] = size // 2
    (tmp_path / "long.json").write_text(json.dumps(config))
    context = config["text_cfg"]["context_length"]
    with pytest.raises(InputError, match=f"for texts of {context - 4} tokens, but long takes texts of {context} "):
        models.load(tmp_path / "long.json", tmp_path / "weights.safetensors")


VISION = {"hidden_size": 48, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION |= {"image_size": 32, "patch_size": 8}
TEXT = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT |= {"vocab_size": 64, "max_position_embeddings": 16, "bos_token_id": 62, "eos_token_id": 63}


def transformers_model(kind):
    """A small CLIP or SigLIP of transformers, every weight random, in float64."""
    torch.manual_seed(0)
    if kind == "clip":
        config = transformers.CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=24)
        model = transformers.CLIPModel(config)
    else:
        config = transformers.SiglipConfig(vision_config=VISION, text_config=TEXT | {"projection_size": 48})
        model = transformers.SiglipModel(config)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def open_clip_model(kind):
    """The same architecture in open_clip, built as a named one."""
    sizes = {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 2, "layers": 2}
    if kind == "clip":
        vision = {"image_size": 32, "layers": 2, "width": 48, "head_width": 12, "patch_size": 8}
        return CLIP(24, vision, sizes, quick_gelu=True).double().eval()
    config, create = open_clip.get_model_config("ViT-B-16-SigLIP"), timm.create_model
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4}
    with patch("timm.create_model", lambda *arguments, **options: create(*arguments, **options, **small)):
        vision = config["vision_cfg"] | {"image_size": 32}
        model = CustomTextCLIP(48, vision, config["text_cfg"] | sizes, init_logit_bias=-10)
    for module in model.modules():  # what `take_layout` claims for transformers' SigLIP
        if isinstance(module, torch.nn.GELU):
            module.approximate = "tanh"
    return model.double().eval()


def fused(tensors):
    """The same tensors with queries, keys and values as one matrix."""
    result = dict(tensors)
    for name in [name for name in tensors if ".q_proj." in name]:
        separate = [result.pop(name.replace(".q_proj.", f".{letter}_proj.")) for letter in "qkv"]
        result[name.replace(".q_proj.", ".qkv_proj.")] = torch.cat(separate)
    return result


@pytest.mark.parametrize("form", [dict, fused])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
@torch.no_grad()
def test_transformers_layout_is_converted_exactly(kind, form):
    theirs, ours = transformers_model(kind), open_clip_model(kind)
    layouts.load_weights(ours, form(theirs.state_dict()), "theirs", "ours")
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    tokens = torch.randint(0, 60, (3, 16))
    tokens[:, 9] = 63
    for features, expected in (
        (ours.encode_image(images), theirs.get_image_features(images)),
        (ours.encode_text(tokens), theirs.get_text_features(tokens)),
    ):
        expected = getattr(expected, "pooler_output", expected)
        assert (features - expected).abs().max() < 1e-10 * expected.abs().max()


def test_a_folder_of_transformers(tmp_path):
    """Its configs give sizes, activation and preprocessing; one beside a file is compared with the architecture."""
    theirs = transformers_model("clip").float()
    theirs.save_pretrained(tmp_path, max_shard_size="50KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    processor = {"image_mean": [0.4] * 3, "image_std": [0.2] * 3, "resample": 2, "size": {"shortest_edge": 32}}
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(processor | {"crop_size": 32, "do_center_crop": True})
    )
    loaded = models.load(f"local-dir:{tmp_path}")
    used = {key: loaded.used[key] for key in ("mean", "interpolation", "resize_mode", "activation", "heads_from")}
    assert used == {
        "mean": "0.4, 0.4, 0.4",
        "interpolation": "bilinear",
        "resize_mode": "shortest",
        "activation": "quick_gelu",
        "heads_from": "config.json",
    }
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = theirs.get_image_features(images)
        expected = getattr(expected, "pooler_output", expected)
        assert torch.allclose(loaded.model.encode_image(images), expected, atol=1e-4)
    text = {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 2, "layers": 2}
    vision = {"image_size": 32, "layers": 2, "width": 48, "head_width": 24, "patch_size": 8}
    (tmp_path / "own").mkdir()
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, "quick_gelu": True}
    (tmp_path / "own" / "two-heads.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="has 4 heads per layer in the image tower; two-heads has 2"):
        models.load(tmp_path / "own" / "two-heads.json", tmp_path / "model.safetensors.index.json")


def test_a_missing_package_is_named_before_anything_is_fetched(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "transformers" else sys)
    monkeypatch.setattr(models, "fetch_file", lambda *arguments, **options: pytest.fail("fetched"))
    with pytest.raises(InputError, match="ViT-B-16-SigLIP needs packages .* that are not installed: transformers"):
        models.load("ViT-B-16-SigLIP", "webli")
