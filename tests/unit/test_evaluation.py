"""Accuracy, η² and segmentation scores against direct computations."""

import numpy as np
import pandas as pd
import pytest

from clipspectra.evaluation.accuracy import ablations, eta_squared, in_top_k, mean_ablated, zero_shot
from clipspectra.explanations.spectral import component_scores
from clipspectra.figures.heads import head_factors
from clipspectra.segmentation.maps import min_max_normalise
from clipspectra.segmentation.scoring import predictions, scores

rng = np.random.default_rng(0)


def test_eta_squared_is_the_share_of_variance_between_groups():
    values = np.array(["a", "b", "c"])[np.arange(300) % 3]
    value_changes = (np.arange(300) % 3) * 2.0
    noise = rng.normal(size=300)
    mixed = value_changes + noise
    eta2 = eta_squared(np.stack([value_changes, noise, mixed, np.ones(300)], axis=1), values)
    groups = [mixed[values == value] for value in "abc"]
    expected = 1 - sum(((group - group.mean()) ** 2).sum() for group in groups) / ((mixed - mixed.mean()) ** 2).sum()
    np.testing.assert_allclose(eta2, [1, eta2[1], expected, 0])
    assert eta2[1] < 0.05


def test_ablations_hold_parts_at_their_mean():
    layers = 3
    names = [("heads", layer) for layer in range(layers)] + [("x_0", -1)] + [("mlp", layer) for layer in range(layers)]
    parts, means = rng.normal(size=(4, 2 * layers + 1, 5)), rng.normal(size=(2 * layers + 1, 5))
    masks = ablations(names)
    assert list(masks)[:3] == ["none", "MLPs", "MLPs and heads of layer 0"]
    np.testing.assert_allclose(mean_ablated(parts, means, masks["none"]), parts.sum(1))
    expected = parts[:, 1:3].sum(1) + means[0] + means[3:].sum(0)  # heads of layers 1 and 2; x_0 counts as an MLP
    np.testing.assert_allclose(mean_ablated(parts, means, masks["MLPs and heads of layer 0"]), expected)
    ablated = mean_ablated(parts, means, masks["MLPs and all heads"])
    np.testing.assert_allclose(ablated, np.tile(means.sum(0), (4, 1)))


def test_ablations_of_the_last_layers_and_of_self_attention():
    names = [("early", 1), ("heads", 2), ("heads", 3), ("self", 2), ("self", 3), ("x_0", -1), ("mlp", 0), ("mlp", 1)]
    masks = {ablation: "".join(map(str, mask.astype(int))) for ablation, mask in ablations(names).items()}
    assert masks == {
        "none": "00000000",
        "MLPs": "00000111",
        "class token to itself": "00011000",
        "MLPs and class token to itself": "00011111",
        "MLPs and heads of layers 0–1": "10000111",
        "MLPs and heads of layers 0–2": "11010111",
        "MLPs and heads of layer 3": "00101111",
        "MLPs and heads of layers 2–3": "01111111",
        "MLPs and all heads": "11111111",
    }


def test_zero_shot_takes_the_largest_logit():
    assert zero_shot(np.array([[1.0, 0], [0, 2]]), np.array([[1.0, 0], [0, 1]])).tolist() == [0, 1]


def test_in_top_k_breaks_ties_as_zero_shot_does():
    embedding, classifier = np.eye(3), np.array([[3.0, 1, 2], [1, 1, 1], [0, 5, 5]])
    labels = np.array([2, 1, 1])
    assert in_top_k(embedding, classifier, labels, 1).tolist() == [False, False, True]
    assert in_top_k(embedding, classifier, labels, 2).tolist() == [True, True, True]
    assert (in_top_k(embedding, classifier, labels, 1) == (zero_shot(embedding, classifier) == labels)).all()


def test_component_scores_are_projections():
    q, basis = rng.normal(size=(6, 4)), rng.normal(size=(8, 4))
    components, mean = np.linalg.qr(rng.normal(size=(8, 3)))[0].T, rng.normal(size=8)
    expected = (q @ basis.T - mean) @ components.T
    np.testing.assert_allclose(component_scores(q, basis, components, mean), expected)


def test_head_factors_are_eta_squared_of_the_whole_head():
    """From its orthogonal components, against η² of the vectors themselves."""
    values = np.arange(60) % 4
    rows = rng.normal(size=(60, 3)) * [3, 2, 1] + values[:, None] * [1, 0.5, 0]
    centred = rows - rows.mean(0)
    between = sum(15 * (centred[values == value].mean(0) ** 2).sum() for value in range(4))
    eta, share = eta_squared(rows, values), rows.var(0) / rows.var(0).sum()
    table = pd.DataFrame({"layer": 0, "head": 0, "component": range(3), "share": share, "eta2_x": eta})
    assert head_factors(table, ["x"])["x"][0, 0] == pytest.approx(between / (centred**2).sum())


def test_segmentation_scores_on_a_known_case():
    import torch

    mask = np.zeros((1, 4, 4), np.uint8)
    mask[0, :2] = 1
    perfect = scores(mask.astype(np.float32), mask)
    assert (perfect.pixel_accuracy, perfect.mean_iou, perfect.mean_ap) == (1, 1, 1)
    half = mask.astype(np.float32)
    half[0, 0] = 0  # one of two foreground rows is missed
    half_scores = scores(half, mask)
    assert half_scores.pixel_accuracy == pytest.approx(12 / 16)
    assert half_scores.mean_iou == pytest.approx((8 / 12 + 4 / 8) / 2)
    void = mask.copy()
    void[0, 0] = 255  # not labelled: the miss no longer counts
    assert scores(half, void).pixel_accuracy == 1
    flat = min_max_normalise(torch.full((1, 4, 4), 0.3)).numpy()
    assert not predictions(flat).any()
    assert np.isfinite(scores(flat, mask).mean_ap)
    with pytest.raises(ValueError, match="they must be equal"):
        scores(flat, mask[:, :2])
