"""Methods, their stored form, whether labels tell the truth, and what stays over seeds and texts."""

import numpy as np
import pandas as pd
import pytest
import torch
from towers_small import SMALL, small

from clipspectra.arrays import save_arrays, save_latex
from clipspectra.contributions.exact import head_basis, value_grams
from clipspectra.contributions.moments import Moments
from clipspectra.contributions.stored import StoredActivations
from clipspectra.evaluation.labels import hit_rates, names_any
from clipspectra.evaluation.stability import compare_components, compare_halves
from clipspectra.explanations.methods import CONTROLS, METHODS, explain, load_explanations, save_explanations
from clipspectra.explanations.sparse import explain_sparsely, matching_pursuit
from clipspectra.explanations.spectral import explain_components, highest, orthonormal
from clipspectra.towers.families import adapt

rng = np.random.default_rng(11)
DATA = rng.normal(size=(120, 9)) * 1.5 ** -np.arange(9) @ np.linalg.qr(rng.normal(size=(16, 16)))[0][:9]
TEXTS = rng.normal(size=(70, 16))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_matching_pursuit_finds_planted_sums():
    dictionary = np.concatenate([np.eye(16), unit(rng.normal(size=(20, 16)) * 0.3 + np.eye(16)[3])])
    target = unit(np.array([0, 0.8, 0, 0, 0, 0, 0, 0, 0.5, 0, 0, 0, 0, 0, 0, 0.3]))
    text, weight = matching_pursuit(target[None], dictionary[:16], count=5)
    assert text[0, :3].tolist() == [1, 8, 15]
    np.testing.assert_allclose(weight[0] @ dictionary[text[0]], target, atol=1e-12)
    assert (weight >= 0).all()
    _, weights = matching_pursuit(-target[None], dictionary[:16], count=5)
    np.testing.assert_allclose(weights, 0, atol=1e-12)


@pytest.mark.parametrize("coherence", [0.0, 0.3])
def test_matching_pursuit_against_the_formula(coherence):
    from scipy.optimize import nnls

    dictionary, target, chosen = unit(rng.normal(size=(40, 16))), unit(rng.normal(size=16)), []
    left = target
    for _ in range(4):
        score = [
            -np.inf
            if i in chosen
            else left @ row + (coherence * np.mean([row @ dictionary[j] for j in chosen]) if chosen else 0)
            for i, row in enumerate(dictionary)
        ]
        chosen.append(int(np.argmax(score)))
        weight, _ = nnls(dictionary[chosen].T, target)
        left = target - weight @ dictionary[chosen]
    text, weights = matching_pursuit(target[None], dictionary, count=4, coherence=coherence)
    assert text[0].tolist() == chosen
    np.testing.assert_allclose(weights[0], weight, atol=1e-12)


def test_a_sparse_code_tells_the_better_pole():
    found = explain_sparsely(DATA, TEXTS, texts_per_component=4, threshold=1.0)
    assert set(found.pole) <= {"top", "bottom"}
    signs = np.where(found.pole == "top", 1, -1)[:, None]
    np.testing.assert_allclose(
        found.cosine, (unit(found.sums) * signs * found.explanation.components).sum(1), atol=1e-12
    )
    assert (found.cosine > 0.3).all()


def test_the_threshold_counts_singular_values_or_variance():
    singular = explain_components(DATA, TEXTS, threshold=1.0).singular_values
    for of, counted in (("singular_values", singular), ("variance", singular**2)):
        rank = explain_components(DATA, TEXTS, threshold=0.8, threshold_of=of).rank
        assert counted[:rank].sum() >= 0.8 * counted.sum() > counted[: rank - 1].sum()
    with pytest.raises(ValueError, match="threshold_of is 'both'"):
        explain_components(DATA, TEXTS, threshold_of="both")


def test_a_budget_of_texts_spans_these_texts_in_the_heads_space():
    """Not the components themselves: random names must recover less than right ones."""
    found = explain_components(DATA, TEXTS, threshold=1.0)
    told = explain("components", Moments.from_data(DATA), TEXTS, budget=9, rng=rng, options={"threshold": 1.0})
    centred = (TEXTS - TEXTS.mean(0))[found.chosen_text[:4]] @ found.components.T @ found.components
    expected = np.linalg.svd(centred)[2][: np.linalg.matrix_rank(centred)]
    span = told.directions(4)
    np.testing.assert_allclose(span.T @ span, expected.T @ expected, atol=1e-10)


def test_orthonormal_and_highest():
    rows = rng.normal(size=(6, 8))
    rows[3] = rows[0] + 2 * rows[1]
    found, places = orthonormal(rows)
    assert places.tolist() == [0, 1, 2, 4, 5]
    np.testing.assert_allclose(found @ found.T, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(rows @ found.T @ found, rows, atol=1e-12)
    values = rng.integers(0, 4, (50, 30)).astype(float)
    for count in (1, 5, 40):
        np.testing.assert_array_equal(highest(values, count), np.argsort(-values, axis=1, kind="stable")[:, :count])


@pytest.mark.parametrize("name", SMALL)
def test_weights_are_the_value_output_map_of_every_family(name, tmp_path):
    """Every head's map from values to the joint space times the map from normalised tokens to values."""
    found = adapt(small(name).visual)
    basis, gram = head_basis(found), value_grams(found)
    assert torch.isfinite(gram).all()
    block, layer = gram.shape[-1], found.layers[-1]
    groups = len(found.linear()[0])
    assert basis.shape[-1] >= groups * block
    expected = sum(
        basis[-1, 1, :, g * block : (g + 1) * block] @ gram[-1, 1] @ basis[-1, 1, :, g * block : (g + 1) * block].T
        for g in range(groups)
    )
    stored = object.__new__(StoredActivations)
    save_arrays(tmp_path / "basis.safetensors", {"basis": basis.numpy(), "value_gram": gram.numpy()}, {})
    stored.basis_path, stored.basis = tmp_path / "basis.safetensors", basis.numpy()
    stored.scalars = basis.shape[-1] - groups * block
    moments = stored.weight_moments(len(found.layers) - 1)[1]
    dense = moments.basis @ moments.covariance @ moments.basis.T
    np.testing.assert_allclose(dense, expected, atol=1e-10 * float(expected.abs().max()))
    if name == "ViT":  # written out: M W_O W_V diag(gamma) (1 - 11^T / d)
        visual, block = found.visual, layer.attention
        d, rows = visual.proj.shape[0], slice(12, 24)
        reading = (visual.proj.T * visual.ln_post.weight) @ block.out_proj.weight[:, rows]
        norm = visual.transformer.resblocks[-1].ln_1.weight
        value = block.in_proj_weight[2 * d :][rows] * norm @ (torch.eye(d) - torch.ones(d, d).double() / d)
        singular = torch.linalg.svdvals(reading @ value).detach().numpy()[:12]
        told = explain_components(moments, TEXTS_24, threshold=1.0)
        np.testing.assert_allclose(told.singular_values, singular, rtol=1e-9)


TEXTS_24 = rng.normal(size=(30, 24))


@pytest.mark.parametrize("method", [*METHODS, *CONTROLS])
@pytest.mark.parametrize(
    ("rows", "rank"), [(np.ones((20, 16)), 0), (np.outer(np.arange(20.0), TEXTS[0]), 1)], ids=["constant", "rank 1"]
)
def test_constant_and_rank_one_heads_have_as_many_components_as_they_have(method, rows, rank):
    moments = Moments.from_data(rows)
    told = explain(method, moments, TEXTS[:4], budget=5, rng=rng, weights=moments)
    assert told.rank == rank
    assert (told.table.empty, len(told.steps)) == (True, 0) if rank == 0 else len(told.table) >= 1
    np.testing.assert_allclose(told.mean, rows.mean(0))
    if method == "components" and rank:
        np.testing.assert_allclose(told.reconstruct(rows), rows, atol=1e-9)
        assert len(told.table) == 2 * 4  # fewer texts than asked for


def test_what_is_told_is_stored(tmp_path):
    told = {
        (3, head): explain(method, Moments.from_data(DATA), TEXTS, budget=6, rng=rng)
        for head, method in enumerate(("components", "textspan", "sparse"))
    }
    save_explanations(tmp_path / "told.safetensors", told, {})
    read = load_explanations(tmp_path / "told.safetensors")
    assert list(read) == list(told)
    for key, of_head in told.items():
        for budget in (0, 1, 5, 6, 99):
            np.testing.assert_allclose(read[key].directions(budget), of_head.directions(budget), atol=1e-6)
    assert read[3, 1].components is None
    assert list(load_explanations(tmp_path / "told.safetensors", [(3, 2)])) == [(3, 2)]


def test_label_hits_against_chance():
    """Eight components, each moved by one colour or one size; their texts say so, in six of eight cases."""
    vocabulary = {"colour": {"red": ["red"], "blue": ["blue", "azure"]}, "size": {"big": ["big"], "tiny": ["tiny"]}}
    assert names_any("An AZURE sea", ["azure"])
    assert not names_any("a bigger hat", ["big"])
    moved = [("colour", "red")] * 2 + [("colour", "blue")] * 2 + [("size", "big")] * 2 + [("size", "tiny")] * 2
    said = ["a red car", "red", "azure", "blue sky", "big", "a big hat", "a red car", "a hat"]
    factors = pd.DataFrame({"layer": 0, "head": 0, "component": range(8)})
    for factor in vocabulary:
        factors[f"eta2_{factor}"] = [0.9 if name == factor else 0.1 for name, _ in moved]
        factors[f"high_{factor}"] = factors[f"low_{factor}"] = [
            value if name == factor else next(iter(vocabulary[factor])) for name, value in moved
        ]
    texts = pd.DataFrame(
        {"layer": 0, "head": 0, "component": range(8), "pole": ["top", "bottom"] * 4, "place": 0, "text": said}
    )
    found = hit_rates(texts, factors, vocabulary, rng=np.random.default_rng(0)).set_index("components")
    row = found.loc["of heads"]
    assert (row["poles"], row["factor_hits"], row["value_hits"]) == (8, 75, 75)
    # 5 texts name a colour, 2 a size, of 8; half of the components are moved by either
    assert row["factor_hits_by_chance"] == pytest.approx(100 * (5 / 8 * 0.5 + 2 / 8 * 0.5), abs=2)
    assert row["value_hits_by_chance"] < row["factor_hits_by_chance"]
    assert "of the whole embedding" not in found.index


def test_stability_of_the_same_and_of_turned_components():
    features = unit(TEXTS - TEXTS.mean(0))
    found = explain_components(DATA, TEXTS, threshold=1.0)
    poles = np.stack([found.top_text[:, 0], found.bottom_text[:, 0]], axis=1)
    same = compare_components(found.components, found.components, poles, poles, features)
    assert same["largest_angle"] == pytest.approx(0, abs=1e-4)
    assert (same["same_text"], same["components"]) == (100, 9)
    assert same["text_cosine"] == pytest.approx(1)
    order = rng.permutation(9)
    signs = np.where(np.arange(9) % 2, 1, -1)[:, None]
    swapped = np.where(signs > 0, poles[order], poles[order][:, ::-1])
    turned = compare_components(found.components, signs * found.components[order], poles, swapped, features)
    assert (turned["same_text"], turned["cosine"]) == (100, pytest.approx(1))
    other = np.linalg.qr(rng.normal(size=(16, 16)))[0][:9]
    away = compare_components(found.components, other, poles, rng.integers(0, 70, (9, 2)), features)
    assert away["largest_angle"] > 45
    assert abs(away["text_cosine"]) < 0.3
    halves = compare_halves(found.components, features, rng)
    assert np.isnan(halves["same_text"])
    assert halves["text_cosine"] > halves["text_cosine_by_chance"]


def test_latex_has_mean_and_sd(tmp_path):
    save_latex(tmp_path / "t.tex", pd.DataFrame({"model": ["a_b"], "top1": [71.234], "top1_sd": [0.5], "n": [3]}))
    text = (tmp_path / "t.tex").read_text()
    assert r"a\_b & 71.23 $\pm$ 0.50 & 3" in text
    assert "sd" not in text
