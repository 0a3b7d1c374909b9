"""Accuracy recovered: everything at full budget, nothing at none, and the same as replacing dense contributions."""

import numpy as np
import pytest
import torch
from stored_small import stored_small

from clipspectra.contributions.moments import Moments
from clipspectra.evaluation.accuracy import cosine, in_top_k
from clipspectra.evaluation.effects import direct_effects
from clipspectra.evaluation.recovery import Recovery, recovered_accuracy
from clipspectra.explanations.methods import CONTROLS, METHODS, explain

rng = np.random.default_rng(5)
TEXTS, CLASSIFIER = rng.normal(size=(50, 24)), rng.normal(size=(24, 9))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(stored activations of 40 images, their exact contributions, made-up right classes)."""
    roles = {"fit": np.arange(40) % 2, "eval": 1 - np.arange(40) % 2}
    found = stored_small(tmp_path_factory.mktemp("study"), dtype=torch.float32, roles=roles)
    return found.stored, found.exact, rng.integers(0, 9, 40)


def recovery(study, method, layers, budgets):
    stored, _, right = study
    layers, told = stored.layers[-layers:], {}
    for layer in layers:
        weights = stored.weight_moments(layer)
        for head, moments in enumerate(stored.fit_moments(layer)):
            options = {"budget": max(budgets), "rng": np.random.default_rng(head), "options": {"threshold": 1.0}}
            told[layer, head] = explain(method, moments, TEXTS, weights=weights[head], **options)
    ready = Recovery(told, stored.basis, budgets)
    return recovered_accuracy(stored, ready, layers, CLASSIFIER, right, mlps="kept").set_index("budget")


@pytest.mark.parametrize("method", [*METHODS, *CONTROLS])
def test_all_at_full_budget_and_nothing_at_none(method, study):
    table = recovery(study, method, 3, [0, 6, 60])
    stored, exact, right = study
    whole = exact.total().numpy()[stored.scored]
    assert table.loc[0, "explained_variance"] == pytest.approx(0, abs=1e-6)
    assert 0 < table.loc[6, "explained_variance"] < table.loc[60, "explained_variance"]
    if method in ("textspan", "components_without_text", "random_directions"):  # no direction comes twice
        assert table.loc[60, "explained_variance"] == pytest.approx(100, abs=0.5)
    if method == "components_without_text":
        assert table.loc[60, "cosine"] == pytest.approx(1, abs=1e-3)
        assert table.loc[60, "top1"] == 100 * in_top_k(whole, CLASSIFIER, right[stored.scored], 1).mean()


def test_the_same_as_replacing_dense_contributions(study):
    stored, exact, right = study
    budget, eval_rows = 4, stored.scored
    table = recovery(study, "textspan", 2, [budget])
    heads = exact.heads.numpy().astype(np.float64)
    means = heads[stored.fit].mean(0)
    rebuilt = exact.mlps.numpy().sum(1) + means[0].sum(0)
    missed = energy = 0.0
    for layer in (1, 2):
        for head in range(4):
            data = heads[:, layer, head]
            found = explain("textspan", Moments.from_data(data[stored.fit]), TEXTS, budget=budget, rng=None)
            new = found.reconstruct(data)
            rebuilt = rebuilt + new
            missed += ((data - new)[eval_rows] ** 2).sum()
            energy += ((data - means[layer, head])[eval_rows] ** 2).sum()
    rebuilt, whole = rebuilt[eval_rows], exact.total().numpy()[eval_rows]
    assert table.loc[budget, "explained_variance"] == pytest.approx(100 * (1 - missed / energy), abs=1e-3)
    assert table.loc[budget, "cosine"] == pytest.approx(cosine(rebuilt, whole).mean(), abs=1e-5)
    for count, name in ((1, "top1"), (5, "top5")):
        assert table.loc[budget, name] == pytest.approx(
            100 * in_top_k(rebuilt, CLASSIFIER, right[eval_rows], count).mean()
        )


def test_texts_beat_chance(study):
    found = {method: recovery(study, method, 3, [10])["explained_variance"][10] for method in [*METHODS, *CONTROLS]}
    assert found["components_without_text"] == max(found.values())
    assert min(found["components"], found["textspan"]) > found["random_directions"]


def test_effects_of_single_parts(study):
    stored, exact, right = study
    table = direct_effects(stored, CLASSIFIER, right).set_index(["kind", "layer", "head"])
    assert len(table) == 3 * 4 + 3
    rows, heads = stored.scored, exact.heads.numpy().astype(np.float64)
    whole, part = exact.total().numpy().astype(np.float64), heads[:, 1, 2]
    texts = CLASSIFIER.T[right]
    wrong = np.array([np.delete(np.arange(9), r)[np.delete(w @ CLASSIFIER, r).argmax()] for w, r in zip(whole, right)])
    away = texts - CLASSIFIER.T[wrong]
    found = table.loc["head", 1, 2]
    assert found["norm"] == pytest.approx(np.linalg.norm(part, axis=1)[rows].mean(), rel=1e-5)
    assert found["cosine"] == pytest.approx(cosine(part, texts)[rows].mean(), rel=1e-4)
    share = 100 * (part * away)[rows].sum() / (whole * away)[rows].sum()
    assert found["margin_share"] == pytest.approx(share, rel=1e-4)
    before = 100 * in_top_k(whole, CLASSIFIER, right, 1)[rows].mean()
    after = 100 * in_top_k(whole - part + part[stored.fit].mean(0), CLASSIFIER, right, 1)[rows].mean()
    assert found["accuracy"] == pytest.approx(before)
    assert found["accuracy_lost"] == pytest.approx(before - after)
    mlp = exact.mlps.numpy()[rows, 2]
    assert table.loc["MLP", 1, -1]["norm"] == pytest.approx(np.linalg.norm(mlp, axis=1).mean(), rel=1e-5)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="'lasso' is no method; use one of components, textspan"):
        explain("lasso", Moments.from_data(rng.normal(size=(9, 24))), TEXTS, budget=3, rng=rng)
