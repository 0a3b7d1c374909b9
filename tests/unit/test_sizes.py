"""Sizes of models without loading them, which a cluster is asked for memory and time by."""

import json

import open_clip
import pytest
import torch

from clipspectra.towers.sizes import UNKNOWN, model_size


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14", "RN50", "coca_ViT-B-32"])
def test_parameters_are_those_of_the_model(name):
    """Within a fifth, and never less than a tenth below."""
    with torch.device("meta"):
        model = open_clip.create_model(name, device="meta")
    own = sum(parameter.numel() for key, parameter in model.named_parameters() if not key.startswith("text_decoder"))
    size = model_size(name)
    assert 0.9 < size.parameters / own < 1.2
    image = sum(parameter.numel() for parameter in model.visual.parameters())
    assert 0.85 < size.image_parameters / image < 1.2


def test_files_and_folders(tmp_path):
    config = {"embed_dim": 8, "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16}}
    config["text_cfg"] = {"vocab_size": 10, "width": 8, "layers": 1, "context_length": 77, "heads": 1}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    folder = model_size(f"local-dir:{tmp_path}")
    assert (folder.layers, folder.heads, folder.tokens, folder.d_embed) == (2, 1, 5, 8)
    weights = tmp_path / "weights.pt"
    weights.write_bytes(bytes(4_000_000))
    assert model_size(f"local-dir:{tmp_path}", [weights]).parameters == 2e6  # if they are in half precision


@pytest.mark.parametrize("content", ["{}", "[]", "no json", '{"vision_cfg": {"timm_model_name": "convnext_base"}}'])
def test_what_a_config_leaves_open_is_large(tmp_path, content):
    path = tmp_path / "model.json"
    path.write_text(content)
    assert model_size(str(path)) == UNKNOWN == model_size("hf-hub:somebody/something") == model_size("ViT-B-16-SigLIP")
