"""Recovered accuracy: all of it at full budget, none at budget 0, and the same as by replacing dense contributions."""

import numpy as np
import pytest
import torch
from scipy.stats import t
from stored_small import stored_small

from clipspectra.contributions.moments import Moments
from clipspectra.evaluation.accuracy import cosine, in_top_k
from clipspectra.evaluation.effects import direct_effects
from clipspectra.evaluation.intervals import change
from clipspectra.evaluation.recovery import paired_differences, recovered_accuracy
from clipspectra.explanations.catalogue import CONTROLS, DRAWS, METHODS
from clipspectra.explanations.methods import explain, explain_by_control

rng = np.random.default_rng(5)
TEXTS, CLASSIFIER = rng.normal(size=(50, 24)), rng.normal(size=(24, 9))


@pytest.fixture(scope="module")
def activations(tmp_path_factory):
    """(stored activations of 40 images, their exact contributions, random labels)."""
    roles = {"fit": np.arange(40) % 2, "eval": 1 - np.arange(40) % 2}
    small = stored_small(tmp_path_factory.mktemp("stored"), dtype=torch.float32, roles=roles)
    return small.stored, small.exact, rng.integers(0, 9, 40)


def recovered(activations, method, layers, budgets, draws=1):
    stored, _, labels = activations
    layers, options = stored.layers[-layers:], {"threshold": 1.0}
    moments = {(layer, head): part for layer in layers for head, part in enumerate(stored.fit_moments(layer))}
    if method in CONTROLS:
        rngs = map(np.random.default_rng, range(draws))
        explanations = [explain_by_control(method, moments, TEXTS, rng=rng, options=options) for rng in rngs]
    else:
        weights = {layer: stored.weight_moments(layer) for layer in layers}
        options = {} if "textspan" in method else options
        explanations = [
            {
                (layer, head): explain(method, part, TEXTS, weights=weights[layer][head], options=options)
                for (layer, head), part in moments.items()
            }
        ]
    table, correct = recovered_accuracy(stored, explanations, budgets, layers, CLASSIFIER, labels, mlps="kept")
    np.testing.assert_allclose(table["top1"], 100 * correct.mean((0, 2)))
    return table.set_index("budget")


def test_differences_are_of_the_same_images():
    first, second = rng.random((2, 3, 50)) < 0.6
    table = paired_differences(second, first)
    assert table.columns.tolist() == [*(f"against_components{end}" for end in ("", "_low", "_high")), "p"]
    np.testing.assert_allclose(table["against_components"], 100 * (second.mean(1) - first.mean(1)))
    assert table["p"].tolist() == [change(before, after)["p"] for before, after in zip(first, second)]


@pytest.mark.parametrize("method", [*METHODS, *CONTROLS])
def test_all_at_full_budget_and_nothing_at_budget_0(method, activations):
    table = recovered(activations, method, 3, [0, 6, 60])
    stored, exact, labels = activations
    embedding = exact.total().numpy()[stored.scored]
    assert table.loc[0, "explained_variance"] == pytest.approx(0, abs=1e-6)
    assert 0 < table.loc[6, "explained_variance"] < table.loc[60, "explained_variance"]
    if method in ("textspan", "components_without_text", "random_directions"):  # no direction comes twice
        assert table.loc[60, "explained_variance"] == pytest.approx(100, abs=0.5)
    if method == "components_without_text":
        assert table.loc[60, "cosine"] == pytest.approx(1, abs=1e-3)
        assert table.loc[60, "top1"] == 100 * in_top_k(embedding, CLASSIFIER, labels[stored.scored], 1).mean()


def test_the_same_as_replacing_dense_contributions(activations):
    stored, exact, labels = activations
    budget, scored = 4, stored.scored
    table = recovered(activations, "textspan", 2, [budget])
    heads = exact.heads.numpy().astype(np.float64)
    means = heads[stored.fit].mean(0)
    rebuilt = exact.mlps.numpy().sum(1) + means[0].sum(0)
    missed = energy = 0.0
    for layer in (1, 2):
        for head in range(4):
            data = heads[:, layer, head]
            explanation = explain("textspan", Moments.from_data(data[stored.fit]), TEXTS)
            directions = explanation.directions(budget)
            reconstructed = explanation.mean + (data - explanation.mean) @ directions.T @ directions
            rebuilt = rebuilt + reconstructed
            missed += ((data - reconstructed)[scored] ** 2).sum()
            energy += ((data - means[layer, head])[scored] ** 2).sum()
    rebuilt, embedding = rebuilt[scored], exact.total().numpy()[scored]
    assert table.loc[budget, "explained_variance"] == pytest.approx(100 * (1 - missed / energy), abs=1e-3)
    assert table.loc[budget, "cosine"] == pytest.approx(cosine(rebuilt, embedding).mean(), abs=1e-5)
    for k, name in ((1, "top1"), (5, "top5")):
        assert table.loc[budget, name] == pytest.approx(100 * in_top_k(rebuilt, CLASSIFIER, labels[scored], k).mean())


def test_texts_beat_chance(activations):
    tables = {method: recovered(activations, method, 3, [3], DRAWS.get(method, 1)) for method in [*METHODS, *CONTROLS]}
    variance = {method: table["explained_variance"][3] for method, table in tables.items()}
    assert variance["components_without_text"] == max(variance.values())
    band = tables["random_directions"].loc[3, ["explained_variance_draws_low", "explained_variance_draws_high"]]
    assert (
        min(variance["components"], variance["textspan"]) > band.iloc[1] > variance["random_directions"] > band.iloc[0]
    )
    assert np.isnan(tables["components"]["top1_draws_low"][3])


def test_random_directions_hold_what_chance_gives_them(activations):
    """k of r directions of a head's own space, drawn at random, hold k / r of its variance on average."""
    stored, _, _ = activations
    rank = len(explain("random_directions", stored.fit_moments(2)[0], TEXTS, rng=np.random.default_rng(0)).steps)
    table = recovered(activations, "random_directions", 1, [1, 2, 4], draws=200)
    np.testing.assert_allclose(table["explained_variance"], 100 * np.array([1, 2, 4]) / rank, atol=2)


def test_intervals_hold_what_other_images_would_give(activations):
    """Bounds around each measure; the interval of the explained variance against a bootstrap over images."""
    stored, exact, _ = activations
    table = recovered(activations, "components", 1, [2]).loc[2]
    for name in ("top1", "top5", "cosine", "explained_variance"):
        assert table[f"{name}_low"] < table[name] < table[f"{name}_high"]
    heads, missed, energy = exact.heads.numpy().astype(np.float64), 0, 0
    for head in range(4):
        data = heads[:, 2, head]
        moments = Moments.from_data(data[stored.fit])
        steps = explain("components", moments, TEXTS, options={"threshold": 1.0}).directions(2)
        centred = (data - moments.mean)[stored.scored]
        missed, energy = missed + ((centred - centred @ steps.T @ steps) ** 2).sum(1), energy + (centred**2).sum(1)
    drawn = rng.integers(0, len(energy), (4000, len(energy)))
    bootstrap = np.quantile(100 * (1 - missed[drawn].sum(1) / energy[drawn].sum(1)), (0.025, 0.975))
    bounds = table[["explained_variance_low", "explained_variance_high"]].astype(float)
    np.testing.assert_allclose(bounds, bootstrap, atol=0.25 * np.ptp(bootstrap))


def test_direct_effects_of_a_head_and_an_mlp(activations):
    stored, exact, random_labels = activations
    assert direct_effects(stored, CLASSIFIER, random_labels)["margin_share"].isna().all()  # a share of no clear margin
    predicted = (exact.total().numpy() @ CLASSIFIER).argmax(1)
    labels = np.where(np.arange(40) == 6, random_labels, predicted)
    table = direct_effects(stored, CLASSIFIER, labels).set_index(["kind", "layer", "head"])
    assert len(table) == 3 * 4 + 3
    scored, heads = stored.scored, exact.heads.numpy().astype(np.float64)
    embedding, head = exact.total().numpy().astype(np.float64), heads[:, 1, 2]
    texts, logits = CLASSIFIER.T[labels], embedding @ CLASSIFIER
    logits[np.arange(len(labels)), labels] = -np.inf
    margins = texts - CLASSIFIER.T[logits.argmax(1)]
    effects = table.loc["head", 1, 2]
    assert effects["norm"] == pytest.approx(np.linalg.norm(head, axis=1)[scored].mean(), rel=1e-5)
    assert effects["cosine"] == pytest.approx(cosine(head, texts)[scored].mean(), rel=1e-4)
    share = 100 * (head * margins)[scored].sum() / (embedding * margins)[scored].sum()
    assert effects["margin_share"] == pytest.approx(share, rel=1e-4)
    before = 100 * in_top_k(embedding, CLASSIFIER, labels, 1)[scored].mean()
    after = 100 * in_top_k(embedding - head + head[stored.fit].mean(0), CLASSIFIER, labels, 1)[scored].mean()
    assert effects["accuracy"] == pytest.approx(before)
    assert effects["accuracy_lost"] == pytest.approx(before - after)
    assert effects["accuracy_lost_low"] < before - after < effects["accuracy_lost_high"]
    lengths = np.linalg.norm(head, axis=1)[scored]
    spread = t.ppf(0.975, scored.sum() - 1) * lengths.std(ddof=1) / np.sqrt(scored.sum())
    assert effects["norm_high"] - effects["norm"] == pytest.approx(spread, rel=1e-3)
    assert (table["p_holm"] >= table["p"]).all()
    mlp = exact.mlps.numpy()[scored, 2]
    assert table.loc["MLP", 1, -1]["norm"] == pytest.approx(np.linalg.norm(mlp, axis=1).mean(), rel=1e-5)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="'lasso' explains no head by itself; use one of components, textspan"):
        explain("lasso", Moments.from_data(rng.normal(size=(9, 24))), TEXTS)
