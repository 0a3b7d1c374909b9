"""A basis on another dataset: beside dense contributions, with itself, and by hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from stored_small import EMBEDDING, stored_small

from clipspectra import InputError
from clipspectra.evaluation.accuracy import cosine, in_top_k
from clipspectra.evaluation.kept_names import kept_by_budget, kept_texts, names_by_pole, names_kept
from clipspectra.evaluation.recovery import recovered_accuracy
from clipspectra.evaluation.transfer import SETTINGS, check_alike, head_measures, over_heads, with_components

rng = np.random.default_rng(11)
TEXTS, CLASSIFIER, BUDGETS = rng.normal(size=(60, 24)), rng.normal(size=(24, 5)), [0, 2, 5, 99]
LABELS = rng.integers(0, 5, 40)
PLACES = np.arange(40)
OWN = {"fit": PLACES < 12, "eval": (PLACES >= 12) & (PLACES < 20)}
TRAVELLED = {"fit": PLACES >= 20, "eval": PLACES < 4}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """{"own", "travelled"}: activations of a model on some images and on others, and {name: their components}."""
    small = {
        name: stored_small(tmp_path_factory.mktemp(name), roles=roles)
        for name, roles in (("own", OWN), ("travelled", TRAVELLED))
    }
    explanations = {
        name: {unit: head for unit, head in made.explanations.items() if EMBEDDING not in unit}
        for name, made in small.items()
    }
    explanations["weights"] = explanations["travelled"]
    bases = {(basis, means): with_components(explanations[basis], explanations[means]) for basis, means in SETTINGS}
    stored = {name: made.stored for name, made in small.items()}
    return SimpleNamespace(stored=stored, bases=bases, explanations=explanations, exact=small["own"].exact)


@pytest.mark.parametrize("means", ["travelled", "own"])
def test_accuracy_is_that_of_projected_dense_contributions(two, means):
    """About means of the other images those of the early heads, the MLPs and the embedding are of the others, too."""
    own, heads, budget = two.stored["own"], two.exact.heads.numpy(), 3
    inside = two.stored[means].fit
    about = heads[inside].mean(0)
    rebuilt = two.exact.mlps.numpy()[inside].mean(0).sum(0) + about[0].sum(0)
    basis = two.bases["travelled", means]
    for layer, head in [(layer, head) for layer in (1, 2) for head in range(4)]:
        directions = basis[layer, head].directions(budget)
        assert len(directions) == budget
        rebuilt = (
            rebuilt + about[layer, head] + (heads[:, layer, head] - about[layer, head]) @ directions.T @ directions
        )
    options = {"mlps": "mean", "means": two.stored[means].fit_means()}
    table, correct = recovered_accuracy(own, [basis], [budget], [1, 2], CLASSIFIER, LABELS, **options)
    scored, embedding = own.scored, two.exact.total().numpy()
    np.testing.assert_array_equal(correct[0, 0], in_top_k(rebuilt[scored], CLASSIFIER, LABELS[scored], 1))
    assert table["cosine"][0] == pytest.approx(cosine(rebuilt[scored], embedding[scored]).mean(), abs=1e-12)


def test_variance_held_is_that_of_dense_contributions(two):
    own, heads = two.stored["own"], two.exact.heads.numpy()
    moments = own.moments(2, own.scored)[1]
    bases = {name: [two.explanations[name][2, 1].components] for name in ("own", "travelled")}
    turned = np.linalg.qr(rng.normal(size=(9, 9)))[0] @ bases["own"][0][:9]
    bases["random"] = [turned, turned[::-1]]
    table = head_measures(bases, moments, BUDGETS, rng).set_index(["basis", "budget"])
    data = heads[own.scored, 2, 1] - heads[own.scored, 2, 1].mean(0)
    for basis, draws in bases.items():
        for budget in BUDGETS:
            held = np.mean([((data @ draw[:budget].T) ** 2).sum() for draw in draws])
            measured = table.loc[(basis, budget), "variance_held"]
            assert measured == pytest.approx(100 * held / (data**2).sum(), abs=1e-10)
    assert table["variance"].unique() == pytest.approx((data**2).sum() / len(data))
    own_components, travelled = (bases[name][0] for name in ("own", "travelled"))
    first = np.abs(travelled[0] @ own_components[0])
    one = head_measures(bases, moments, [1], rng).set_index("basis")
    assert one.loc["travelled", "matched_cosine"] == pytest.approx(first)
    assert one.loc[["own", "random"], "matched_cosine"].isna().all()
    chance = table.loc["travelled", "matched_cosine_by_chance"]
    assert chance[2] < chance[5] < table.loc[("travelled", 5), "matched_cosine"]


def test_means_over_heads_are_by_variance():
    rows = [head_measures({"own": [np.eye(3)[:2]]}, small_moments(scale), [1], rng) for scale in (1, 3)]
    table = over_heads(pd.concat([rows[0].assign(variance_held=20.0), rows[1].assign(variance_held=60.0)]))
    assert table.loc[0, "variance_held"] == pytest.approx((20 + 9 * 60) / 10)
    constant = head_measures({"own": [np.zeros((0, 3))]}, small_moments(0), [0, 1], rng)
    assert over_heads(constant)["variance_held"].isna().all()


def small_moments(scale):
    covariance, total = scale**2 * np.eye(3), 3 * scale**2
    return SimpleNamespace(basis=np.eye(3), covariance=covariance, total_variance=lambda: total)


def test_a_basis_of_the_same_images_is_its_own(two):
    """Then it keeps all names that the own basis keeps, and all of those of the fit images if they are scored."""
    own, explanations = two.stored["own"], two.explanations["own"]
    bases = {setting: with_components(explanations, explanations) for setting in SETTINGS}
    names, given, there = names_by_pole({"own": own, "travelled": own}, bases, TEXTS, 4)
    table = kept_by_budget(names, given, there, BUDGETS).set_index(["basis", "means"])
    for setting in SETTINGS[1:]:
        np.testing.assert_array_equal(table.loc[setting], table.loc["own", "own"])
    assert 0 < table["names_kept"].min() < 100
    scored, own.scored = own.scored, own.fit
    kept = kept_by_budget(*names_by_pole({"own": own, "travelled": own}, bases, TEXTS, 4), BUDGETS)
    own.scored = scored
    assert set(kept.loc[kept["budget"] > 0, "names_kept"].round(9)) == {100.0}
    assert kept.loc[kept["budget"] == 0, "names_kept"].isna().all()


def test_names_are_of_the_right_images(two):
    """Given on the images of the basis, and asked again of those that are scored: each with its own pool and means."""
    names, given, there = names_by_pole(two.stored, two.bases, TEXTS, 3)
    heads, embeddings = two.exact.heads.numpy(), two.exact.total().numpy()
    embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)

    def first_text(inside, about, layer, head, component):
        direction = two.bases["travelled", "own"][layer, head].components[component]
        scores = (heads[inside, layer, head] - heads[about, layer, head].mean(0)) @ direction
        weights, images = np.maximum(scores, 0), embeddings[inside]
        pole = (weights @ (images - images.mean(0))) / weights.sum()
        return (TEXTS @ pole / (images @ TEXTS.T).std(0)).argmax()

    own, travelled = two.stored["own"], two.stored["travelled"]
    rows = names[(names["basis"] == "travelled") & (names["pole"] == "top") & (names["component"] < 3)]
    assert len(rows) == 2 * 3 * 4 * 3
    for row in rows.itertuples():
        place, means = (row.layer, row.head, row.component), two.stored[row.means].fit
        assert given[row.Index, 0] == first_text(travelled.fit, travelled.fit, *place)
        scores = heads[own.scored, row.layer, row.head] - heads[means, row.layer, row.head].mean(0)
        scores = scores @ two.explanations["travelled"][row.layer, row.head].components[row.component]
        assert row.variance == pytest.approx(scores.var())
        if (scores > 0).any():
            assert there[row.Index, 0] == first_text(own.scored, means, *place)
        else:
            assert there[row.Index, 0] == -1


def test_names_kept_by_hand():
    given = np.array([[0, 1], [2, 3], [4, 5], [-1, -1]])
    there = np.array([[0, 9], [3, 2], [-1, -1], [0, 1]])
    kept, overlap = kept_texts(given, there)
    assert kept.tolist() == [True, False, False, False]
    assert overlap.tolist() == [0.5, 1.0, 0.0, 0.0]
    weights = np.array([1.0, 2.0, 1.0, 50.0])  # the last pole has no name to keep
    table = names_kept(given, there, weights)
    assert (table["names_kept"], table["texts_kept"]) == (25.0, pytest.approx(100 * (0.5 + 2) / 4))
    pairs = [(a, b, weights[a] * weights[b] / 16) for a in range(3) for b in range(3)]
    by_chance = sum(share * (given[a, 0] == there[b, 0]) for a, b, share in pairs)
    assert table["names_kept_by_chance"] == pytest.approx(100 * by_chance)
    by_chance = sum(share * len(set(given[a]) & set(there[b])) / 2 for a, b, share in pairs)
    assert table["texts_kept_by_chance"] == pytest.approx(100 * by_chance)
    assert np.isnan(list(names_kept(given[3:], there[3:], weights[3:]).values())).all()


def test_constant_heads_have_no_components_to_score(two):
    """Nothing is held of them and no name is kept, without an error."""
    own = two.stored["own"]
    empty = {unit: replace(head, components=head.components[:0]) for unit, head in two.explanations["own"].items()}
    bases = {setting: with_components(empty, empty) for setting in SETTINGS}
    names, given, there = names_by_pole({"own": own, "travelled": own}, bases, TEXTS, 4)
    assert len(names) == len(given) == 0
    assert kept_by_budget(names, given, there, [1])["names_kept"].isna().all()
    measures = head_measures(
        {"own": [np.zeros((0, 24))], "travelled": [np.zeros((0, 24))]}, own.moments(1, own.scored)[0], [0, 3], rng
    )
    assert measures["variance_held"].tolist() == [0, 0, 0, 0]


def test_what_does_not_belong_together_is_refused(two, tmp_path):
    own, travelled = two.stored["own"], two.stored["travelled"]
    check_alike(own, travelled, {"mine": {}})
    with pytest.raises(InputError, match="^mine is of other weights than .*basis.safetensors; remove it"):
        check_alike(own, travelled, {"mine": {"sha256": "ab"}})
    with pytest.raises(InputError, match="stored with other layers"):
        check_alike(own, stored_small(tmp_path, first=1).stored, {})
