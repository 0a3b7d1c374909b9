"""Agreement with the outputs of the reference implementation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import load_file

from clipspectra.contributions.exact import contributions
from clipspectra.explanations.spectral import explain_components
from clipspectra.segmentation.maps import patch_maps
from clipspectra.segmentation.scoring import predictions, scores

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def model():
    config = json.loads((GOLDEN / "model_config.json").read_text())
    model = CLIP(config["embed_dim"], CLIPVisionCfg(**config["vision_cfg"]), CLIPTextCfg(**config["text_cfg"]))
    model.load_state_dict(load_file(GOLDEN / "model.safetensors"))
    return model.eval()


def golden(name):
    return np.load(GOLDEN / f"{name}.npz")


def test_contributions(model):
    expected = golden("prs")
    images = torch.from_numpy(expected["images"])
    summed = contributions(model, images)
    per_token = contributions(model, images, per_token=True)
    np.testing.assert_allclose(summed.heads, expected["attentions_no_spatial"], atol=1e-6)
    np.testing.assert_allclose(per_token.heads, expected["attentions"], atol=1e-6)
    np.testing.assert_allclose(summed.mlps, expected["mlps"], atol=1e-6)
    np.testing.assert_allclose(summed.embedding, expected["representation"], atol=2e-5)


def test_components():
    expected = golden("algorithms")
    explanation = explain_components(
        expected["data"], expected["text_features"], texts_per_pole=5, threshold=0.99, texts_chosen="reference"
    ).aligned(expected["svd_vh"])
    assert explanation.rank == expected["svd_rank"]
    np.testing.assert_allclose(explanation.singular_values, expected["svd_s"], rtol=1e-4)
    np.testing.assert_array_equal(explanation.top_text, expected["svd_idx_max"])
    np.testing.assert_array_equal(explanation.bottom_text, expected["svd_idx_min"])
    np.testing.assert_allclose(explanation.top_score, expected["svd_corr_max"], atol=1e-5)
    np.testing.assert_allclose(explanation.bottom_score, expected["svd_corr_min"], atol=1e-5)
    np.testing.assert_allclose(explanation.reconstruct(expected["data"]), expected["svd_reconstruct"], atol=1e-5)


def test_segmentation(model):
    expected = golden("segmentation")
    maps = patch_maps(model, torch.from_numpy(expected["images"]), torch.from_numpy(expected["classifier"]))
    np.testing.assert_allclose(maps, expected["Res"], atol=2e-5)
    np.testing.assert_array_equal(predictions(maps), expected["pred"])
    segmentation = scores(maps, expected["masks"])
    assert segmentation.pixel_accuracy == pytest.approx(expected["pixAcc"], abs=1e-6)
    assert segmentation.mean_iou == pytest.approx(expected["mIoU"], abs=1e-6)
    assert segmentation.mean_ap == pytest.approx(expected["mAP"], abs=1e-4)
    np.testing.assert_allclose(scores(expected["Res"], expected["masks"]).table["average_precision"], expected["AP"])
