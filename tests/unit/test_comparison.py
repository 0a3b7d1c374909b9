"""Two models side by side: CKA against brute force, and what it depends on; matching; names; what is refused."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from stored_small import ROLES, stored_small

from clipspectra import InputError
from clipspectra.comparison.changes import ComparedModel, effect_columns, names_by_chance, pair_changes, space_cosine
from clipspectra.comparison.matching import match_components
from clipspectra.comparison.similarity import HeadRows, check_images, compare_heads, inner_products
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.evaluation.accuracy import eta_squared
from clipspectra.explanations.head import scores_by_head

rng = np.random.default_rng(0)


def names_of(explanations, offset=0):
    """A table of texts as explain_heads writes it: two at each pole of each component by either naming."""
    rows = [
        {"layer": layer, "head": head, "component": component, "pole": pole, "naming": naming, "place": place}
        for (layer, head), explanation in explanations.items()
        for component in range(len(explanation.components))
        for pole in ("top", "bottom")
        for naming in ("says", "fires_on")
        for place in range(2)
    ]
    table = pd.DataFrame(rows)
    numbers = table.groupby(["layer", "head", "component", "pole", "place"]).ngroup() + offset
    return table.assign(text=numbers.map("text {}".format), named=True)


def factors_of(stored, explanations):
    """The table of factors, as score_components writes it, of one factor that is the image's number modulo 3."""
    tables, values = [], (np.arange(len(stored.images)) % 3)[stored.scored].astype(str)
    for (layer, head), scores in scores_by_head(stored, explanations):
        columns = {"layer": layer, "head": head, "component": np.arange(scores.shape[1])}
        tables.append(
            pd.DataFrame(columns | {"share": scores.var(0) / scores.var(), "eta2_rest": eta_squared(scores, values)})
        )
    return pd.concat(tables)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two towers of different shapes on the same images, and what is known of either."""
    made = []
    for first in (0, 1):  # the second is known from layer 1 on, and of other weights
        torch.manual_seed(first)
        own = stored_small(tmp_path_factory.mktemp(f"model-{first}"), first=first)
        heads = {unit: value for unit, value in own.explanations.items() if unit[0] != EMBEDDING}
        model = ComparedModel(HeadRows(own.stored), heads, names_of(heads), factors_of(own.stored, heads))
        made.append(SimpleNamespace(model=model, stored=own.stored, exact=own.exact))
    return made


def compared(first, second):
    return compare_heads(first.rows, second.rows, first.is_constant, second.is_constant)


def contribution(made, layer, head):
    return made.exact.heads[:, layer, head].double().numpy()[made.stored.scored]


def debiased_cka(x, y):
    """By its definition: the correlation of U-centred matrices of similarities, off the diagonal."""

    def centred(rows):
        kernel, n = rows @ rows.T, len(rows)
        np.fill_diagonal(kernel, 0)
        sums = kernel.sum(0)
        kernel = kernel - (sums[:, None] + sums) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
        np.fill_diagonal(kernel, 0)
        return kernel

    first, second = centred(x), centred(y)
    return (first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum())


def test_cka_is_that_of_whole_contributions(models):
    """Streamed in chunks and in reduced coordinates, against contributions in the joint space."""
    similarity = compared(models[0].model, models[1].model)
    for (layer, head), row in zip(similarity.units, similarity.cka):
        for (other_layer, other_head), value in zip(similarity.other_units, row):
            x, y = contribution(models[0], layer, head), contribution(models[1], other_layer, other_head)
            assert value == pytest.approx(debiased_cka(x, y), abs=1e-9)
    assert similarity.other_units[0] == (1, 0)


class Rows(SimpleNamespace):
    """Rows of heads that are given, as HeadRows gives them: in two chunks, of one layer."""

    def rows(self, layer):
        centred = self.data - self.data.mean(0)
        yield from (centred[:30], centred[30:])


def one_head(data):
    return Rows(data=data[:, None])


def test_cka_does_not_depend_on_rotation_scale_and_width_and_is_0_for_unrelated_heads():
    x = rng.normal(size=(60, 5)) * [4, 2, 1, 1, 1]
    turned = 3 * x @ np.linalg.qr(rng.normal(size=(8, 8)))[0][:5] + 7

    def cka(first, second):
        pair, own, other = (inner_products(*of, 0, 0)[0][0, 0] for of in ((first, second), (first,) * 2, (second,) * 2))
        return pair / np.sqrt(own * other)

    assert cka(one_head(x), one_head(turned)) == pytest.approx(1, abs=1e-12)
    draws = [cka(one_head(rng.normal(size=(60, 30))), one_head(rng.normal(size=(60, 30)))) for _ in range(200)]
    assert abs(np.mean(draws)) < 0.01  # the plain estimate would be 0.33


def test_a_model_beside_itself_is_all_the_same(models):
    model = models[0].model
    effects = pd.DataFrame([{"kind": "head", "layer": layer, "head": head} for layer, head in model.explanations])
    effects = effects.assign(accuracy_lost=1.0, accuracy_lost_low=-1.0, accuracy_lost_high=2.0)
    model = ComparedModel(model.rows, model.explanations, model.names, model.factors, effects)
    heads, components = pair_changes(compared(model, model), model, model, 1.0, np.random.default_rng(0))
    assert set(heads["compared"]) == {"same place", "most alike"}
    assert (heads[["layer", "head"]].to_numpy() == heads[["other_layer", "other_head"]].to_numpy()).all()
    assert (heads[["rank", "rank_back"]] == 1).all(axis=None)
    np.testing.assert_allclose(heads[["cka", "correlation"]], 1, atol=1e-9)
    np.testing.assert_allclose(heads["mean_angle"], 0, atol=1e-3)
    np.testing.assert_allclose(heads[["says", "fires_on"]], 100)
    np.testing.assert_allclose(heads[["lost_change", "gained_eta2"]], 0, atol=1e-9)
    np.testing.assert_allclose(heads["variance"], heads["other_variance"])
    assert (components["component"] == components["other_component"]).all()
    np.testing.assert_allclose(components["changed"], 0, atol=1e-6)


def test_towers_of_other_shapes_have_no_place_in_common(models):
    first, second = (made.model for made in models)
    second.rows.stored.basis = np.concatenate([second.rows.stored.basis] * 2)  # as of a tower twice as deep
    heads, components = pair_changes(compared(first, second), first, second, np.nan, np.random.default_rng(0))
    second.rows.stored.basis = np.split(second.rows.stored.basis, 2)[0]
    assert set(heads["compared"]) == {"most alike"}
    assert (heads["rank"] == 1).all()
    assert heads["mean_angle"].isna().all()
    assert (heads["correlation"] > heads["correlation_by_chance"]).mean() > 0.5
    assert set(components.groupby(["layer", "head"])["share"].sum().round(6)) == {100}


def test_components_are_matched_by_their_scores():
    """In another order, with a sign turned, and one that is not there any more; poles that go along are compared."""
    scores = np.linalg.qr(rng.normal(size=(50, 4)))[0] * [4, 3, 2, 1]
    scores -= scores.mean(0)
    other = scores[:, [2, 0, 1]] * [1, -1, 5]
    match = match_components(scores.T @ other, scores.T @ scores, other.T @ other, np.eye(4), np.eye(3))
    assert match.partner.tolist() == [1, 2, 0, -1]
    np.testing.assert_allclose(match.correlation, [-1, 1, 1, 0], atol=1e-12)
    assert match.share.sum() == pytest.approx(1)
    assert match.weighted(match.correlation) == pytest.approx(1 - match.share[3])


def test_the_chance_of_a_correlation_is_that_of_permuted_images():
    scores, other = (np.linalg.qr(rng.normal(size=(40, 6)))[0] for _ in range(2))
    scores, other = scores - scores.mean(0), other - other.mean(0)
    own, of_other, directions = scores.T @ scores, other.T @ other, np.eye(6)
    by_permutation = []
    for _ in range(200):
        match = match_components(scores.T @ other[rng.permutation(40)], own, of_other, directions, directions)
        by_permutation.append(match.weighted(match.correlation))
    assert match.by_chance(40, rng) == pytest.approx(np.mean(by_permutation), rel=0.1)


def test_poles_that_go_along_are_compared_and_chance_is_that_of_all_pairs(models):
    model = models[0].model
    swapped = model.names.assign(pole=model.names["pole"].map({"top": "bottom", "bottom": "top"}))
    turned = {}
    for unit, explanation in model.explanations.items():
        turned[unit] = SimpleNamespace(components=-explanation.components, mean=explanation.mean)
    other = ComparedModel(model.rows, turned, swapped, model.factors)
    heads, components = pair_changes(compared(model, other), model, other, 1.0, np.random.default_rng(0))
    np.testing.assert_allclose(components["correlation"], -1, atol=1e-6)
    assert (components["says_top"] == components["other_says_top"]).all()
    np.testing.assert_allclose(heads["fires_on"], 100)
    every = list(model.texts.values())
    lists = [texts for key, texts in model.texts.items() if key[0] == "says"]
    kept = np.mean([len(set(first) & set(second)) / 2 for first in lists for second in lists])
    assert names_by_chance(model, other)["says"] == pytest.approx(100 * kept)
    assert len(every) == 2 * len(lists)


def test_a_constant_head_has_no_likeness_and_no_partner(models):
    model = models[0].model
    explanations = dict(model.explanations)
    unit = next(iter(explanations))
    explanations[unit] = SimpleNamespace(components=np.empty((0, 24)), mean=None)
    names, factors = (
        table[(table["layer"] != unit[0]) | (table["head"] != unit[1])] for table in (model.names, model.factors)
    )
    model = ComparedModel(model.rows, explanations, names, factors)
    heads, components = pair_changes(compared(model, model), model, model, 1.0, np.random.default_rng(0))
    constant = heads[(heads["layer"] == unit[0]) & (heads["head"] == unit[1])]
    assert constant["compared"].tolist() == ["same place"]
    assert constant[["cka", "correlation", "mean_angle", "says"]].isna().all(axis=None)
    assert heads["cka"].notna().sum() == len(heads) - 1
    assert not ((components["layer"] == unit[0]) & (components["head"] == unit[1])).any()


def test_the_change_of_a_loss_joins_both_intervals():
    row = {"kind": "head", "layer": 0, "head": 0}
    bounds = ((1.0, 0.0, 3.0), (4.0, 2.0, 5.0))
    names = ("accuracy_lost", "accuracy_lost_low", "accuracy_lost_high")
    first, second = (pd.DataFrame([row | dict(zip(names, ends))]) for ends in bounds)
    change = effect_columns(first, second, (0, 0), (0, 0))
    assert change["lost_change"] == 3
    assert change["lost_change_low"] == pytest.approx(3 - np.hypot(2, 2))
    assert change["lost_change_high"] == pytest.approx(3 + np.hypot(1, 1))
    assert effect_columns(None, second, (0, 0), (0, 0)) == {}


def test_joint_spaces_are_told_by_their_texts():
    texts = rng.normal(size=(30, 6))
    assert space_cosine(texts, 2 * texts + 1) == pytest.approx(1)
    assert space_cosine(texts, texts @ np.diag([1, 1, 1, -1, -1, -1])) == pytest.approx(0, abs=0.3)
    assert np.isnan(space_cosine(texts, texts[:, :5]))


def test_images_that_differ_are_refused(tmp_path, models):
    own = models[0].stored

    def copy(**changes):
        return SimpleNamespace(images=own.images.assign(**changes), scored=own.scored, chunks=own.chunks)

    check_images(own, copy())
    fewer = copy()
    fewer.images = fewer.images.iloc[1:]
    with pytest.raises(InputError, match=r"not stored on the same images: 1 images .*, the first 0.png; remove"):
        check_images(own, fewer)
    with pytest.raises(InputError, match="other pictures under the same rows"):
        check_images(own, copy(image_sha256="0" * 64))
    with pytest.raises(InputError, match="takes 4 at least"):
        few = ROLES | {"eval": np.arange(len(own.images)) < 3}
        check_images(*[stored_small(tmp_path, roles=few).stored] * 2)
