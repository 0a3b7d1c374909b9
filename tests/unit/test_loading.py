"""Loading both towers or one: the same embeddings and buffers as of the model that was saved, and weights only once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from open_clip import CLIP, CoCa, CustomTextCLIP
from safetensors.torch import save_file
from siglip_small import SIGLIP

from clipspectra import InputError
from clipspectra.towers import models

TEXT = {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 2, "width": 48, "head_width": 12, "patch_size": 8}
COCA_VIT = VIT | {"attentional_pool": True, "attn_pooler_heads": 3, "attn_pooler_queries": 5, "output_tokens": True}
TIMM = {"image_size": 160, "timm_model_name": "test_vit_relpos", "timm_proj": "linear"}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
CAPTIONS = {"context_length": 16, "vocab_size": 64, "width": 24, "heads": 2, "layers": 1}
MODELS = {
    "CLIP": (CLIP, {"vision_cfg": VIT}),
    "ResNet, with statistics in the checkpoint": (CLIP, {"vision_cfg": RESNET}),
    "SigLIP": (CustomTextCLIP, SIGLIP),
    "relative positions": (CustomTextCLIP, {"vision_cfg": TIMM, "custom_text": True}),
    "CoCa": (CoCa, {"vision_cfg": COCA_VIT, "multimodal_cfg": CAPTIONS, "custom_text": True}),
}


def saved(name, folder, half=False):
    """(random model, paths of its config and weights): the model is as the file holds it, in float32 or rounded."""
    torch.manual_seed(0)
    model_class, config = MODELS[name]
    tokens = {"embed_cls": True, "output_tokens": True} if name == "CoCa" else {}
    config = {"embed_dim": 24, "text_cfg": TEXT | tokens} | config
    model = model_class(**{key: value for key, value in config.items() if key != "custom_text"}).eval()
    for parameter in model.parameters():  # open_clip leaves some of CoCa's without values
        torch.nn.init.normal_(parameter, std=0.1)
    weights = model.state_dict()
    if half:
        weights = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
        model.load_state_dict(weights)
    paths = folder / "small.json", folder / "small.pt"
    paths[0].write_text(json.dumps(config))
    torch.save(weights, paths[1])
    return model.requires_grad_(False), *paths


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_each_tower_alone_encodes_as_the_saved_model(name, half, tmp_path):
    model, *paths = saved(name, tmp_path, half)
    both, image, text = (models.load(*paths, towers=towers) for towers in ("both", "image", "text"))
    pictures, tokens = torch.randn(2, 3, *both.image_size), torch.randint(1, 60, (2, 16))
    for loaded in (both, image):
        assert torch.equal(loaded.model.encode_image(pictures), model.encode_image(pictures))
    for loaded in (both, text):
        assert torch.equal(loaded.model.encode_text(tokens), model.encode_text(tokens))
    assert image.used == text.used == both.used
    buffers, weights = dict(model.named_buffers()), dict(model.named_parameters())
    for loaded in (both, image, text):
        assert all(torch.equal(buffer, buffers[key]) for key, buffer in loaded.model.named_buffers())
        for key, parameter in loaded.model.named_parameters():
            assert (parameter.dtype, parameter.requires_grad) == (torch.float32, False)
            assert parameter.is_contiguous()
            assert torch.equal(parameter, weights[key])
    assert both.model.state_dict().keys() == model.state_dict().keys()
    assert not any("visual" in key or "text_decoder" in key for key in text.model.state_dict())
    assert {key.split(".")[0] for key in image.model.state_dict()} <= {"visual", "logit_scale", "logit_bias"}


def test_the_other_tower_is_refused_but_its_weights_must_fit(tmp_path):
    model, *paths = saved("CLIP", tmp_path)
    with pytest.raises(RuntimeError, match="loaded with its image tower alone"):
        models.load(*paths, towers="image").model.encode_text(torch.ones(1, 16, dtype=torch.long))
    with pytest.raises(RuntimeError, match="loaded with its text tower alone"):
        models.load(*paths, towers="text").model.encode_image(torch.zeros(1, 3, 32, 32), normalize=True)
    weights = model.state_dict()
    for key, towers in (("ln_final.weight", "image"), ("visual.ln_post.weight", "text")):
        torch.save({name: tensor for name, tensor in weights.items() if name != key}, paths[1])
        with pytest.raises(InputError, match=f"they lack {key}"):
            models.load(*paths, towers=towers)
        torch.save(weights | {key: torch.ones(7)}, paths[1])
        with pytest.raises(InputError, match=rf"{key} has shape \[7\]"):
            models.load(*paths, towers=towers)


MEASURE = """
import sys
from clipspectra.towers import models
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
config, *weights = sys.argv[1:]
models.load(config, weights[0], towers="text")  # small, and what else a first load imports
before = peak()
loaded = [models.load(config, path, towers="image") for path in weights]
print((peak() - before) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from Linux")
def test_weights_are_in_memory_once(tmp_path, request):
    config = {"embed_dim": 24, "vision_cfg": VIT | {"width": 768, "layers": 5, "head_width": 64}, "text_cfg": TEXT}
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in CLIP(**config).state_dict().items()}
    weights = {key: torch.full(shape, 0.1) for key, shape in shapes.items()}
    paths = [tmp_path / name for name in ("large.json", "large.pt", "large.safetensors")]
    paths[0].write_text(json.dumps(config))
    torch.save(weights, paths[1])
    save_file(weights, paths[2])
    environment = os.environ | {"PYTHONPATH": str(request.config.rootpath / "scripts")}
    command = [sys.executable, "-c", MEASURE, *paths]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert 0.9 < int(run.stdout) / sum(path.stat().st_size for path in paths) < 1.2
