"""Methods of explanation, their files and exports, agreement of texts with labels, stability over seeds and texts."""

import numpy as np
import pandas as pd
import pytest
import torch
from towers_small import SMALL, small

from clipspectra.arrays import load_table, over_seeds, save_arrays, save_latex, save_table
from clipspectra.contributions.exact import head_basis, value_grams
from clipspectra.contributions.moments import Moments
from clipspectra.contributions.stored import StoredActivations
from clipspectra.evaluation.labels import hit_rates, names_any
from clipspectra.evaluation.stability import by_chance, compare_components, compare_halves
from clipspectra.explanations.catalogue import CONTROLS, METHODS
from clipspectra.explanations.exports import export_lines
from clipspectra.explanations.head import load_explanations, save_explanations
from clipspectra.explanations.methods import explain, explain_by_control
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
    residual = target
    for _ in range(4):
        score = [
            -np.inf
            if i in chosen
            else residual @ row + (coherence * np.mean([row @ dictionary[j] for j in chosen]) if chosen else 0)
            for i, row in enumerate(dictionary)
        ]
        chosen.append(int(np.argmax(score)))
        weight, _ = nnls(dictionary[chosen].T, target)
        residual = target - weight @ dictionary[chosen]
    text, weights = matching_pursuit(target[None], dictionary, count=4, coherence=coherence)
    assert text[0].tolist() == chosen
    np.testing.assert_allclose(weights[0], weight, atol=1e-12)


def test_a_sparse_code_stands_for_the_pole_of_larger_cosine():
    code = explain_sparsely(DATA, TEXTS, texts_per_component=4, threshold=1.0)
    assert set(code.pole) <= {"top", "bottom"}
    signs = np.where(code.pole == "top", 1, -1)[:, None]
    cosine = (unit(code.sums) * signs * code.explanation.components).sum(1)
    np.testing.assert_allclose(code.cosine, cosine, atol=1e-12)
    assert (code.cosine > 0.3).all()


def test_the_threshold_counts_singular_values_or_variance():
    singular = explain_components(DATA, TEXTS, threshold=1.0).singular_values
    for threshold_of, spectrum in (("singular_values", singular), ("variance", singular**2)):
        rank = explain_components(DATA, TEXTS, threshold=0.8, threshold_of=threshold_of).rank
        assert spectrum[:rank].sum() >= 0.8 * spectrum.sum() > spectrum[: rank - 1].sum()
    with pytest.raises(ValueError, match="threshold_of is 'both'"):
        explain_components(DATA, TEXTS, threshold_of="both")


def test_a_budget_of_texts_spans_these_texts_in_the_heads_space():
    """Not the components themselves: random texts must recover less than the right ones."""
    components = explain_components(DATA, TEXTS, threshold=1.0)
    explanation = explain("components", Moments.from_data(DATA), TEXTS, options={"threshold": 1.0})
    centred = (TEXTS - TEXTS.mean(0))[components.chosen_text[:4]] @ components.components.T @ components.components
    expected = np.linalg.svd(centred)[2][: np.linalg.matrix_rank(centred)]
    span = explanation.directions(4)
    np.testing.assert_allclose(span.T @ span, expected.T @ expected, atol=1e-10)


def test_orthonormal_and_highest():
    rows = rng.normal(size=(6, 8))
    rows[3] = rows[0] + 2 * rows[1]
    directions, indices = orthonormal(rows)
    assert indices.tolist() == [0, 1, 2, 4, 5]
    np.testing.assert_allclose(directions @ directions.T, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(rows @ directions.T @ directions, rows, atol=1e-12)
    scores = rng.integers(0, 4, (50, 30)).astype(float)
    for count in (1, 5, 40):
        np.testing.assert_array_equal(highest(scores, count), np.argsort(-scores, axis=1, kind="stable")[:, :count])


@pytest.mark.parametrize("name", SMALL)
def test_weights_are_the_value_output_map_of_every_family(name, tmp_path):
    """Every head's map from values to the joint space times the map from normalised tokens to values."""
    tower = adapt(small(name).visual)
    basis, gram = head_basis(tower), value_grams(tower)
    assert torch.isfinite(gram).all()
    block, layer = gram.shape[-1], tower.layers[-1]
    groups = len(tower.linear()[0])
    assert basis.shape[-1] >= groups * block
    group_bases = basis[-1, 1, :, : groups * block].split(block, dim=1)
    expected = sum(group_basis @ gram[-1, 1] @ group_basis.T for group_basis in group_bases)
    stored = object.__new__(StoredActivations)
    save_arrays(tmp_path / "basis.safetensors", {"basis": basis.numpy(), "value_gram": gram.numpy()}, {})
    stored.basis_path, stored.basis = tmp_path / "basis.safetensors", basis.numpy()
    stored.scalars = basis.shape[-1] - groups * block
    moments = stored.weight_moments(len(tower.layers) - 1)[1]
    dense = moments.basis @ moments.covariance @ moments.basis.T
    np.testing.assert_allclose(dense, expected, atol=1e-10 * float(expected.abs().max()))
    if name == "ViT":  # written out: M W_O W_V diag(gamma) (1 - 11^T / d)
        visual, attention = tower.visual, layer.attention
        d, rows = visual.proj.shape[0], slice(12, 24)
        output = (visual.proj.T * visual.ln_post.weight) @ attention.out_proj.weight[:, rows]
        norm = visual.transformer.resblocks[-1].ln_1.weight
        value = attention.in_proj_weight[2 * d :][rows] * norm @ (torch.eye(d) - torch.ones(d, d).double() / d)
        singular = torch.linalg.svdvals(output @ value).detach().numpy()[:12]
        explanation = explain_components(moments, TEXTS_24, threshold=1.0)
        np.testing.assert_allclose(explanation.singular_values, singular, rtol=1e-9)


TEXTS_24 = rng.normal(size=(30, 24))


@pytest.mark.parametrize("method", [*METHODS, *CONTROLS])
@pytest.mark.parametrize(
    ("rows", "rank"), [(np.ones((20, 16)), 0), (np.outer(np.arange(20.0), TEXTS[0]), 1)], ids=["constant", "rank 1"]
)
def test_constant_and_rank_one_heads_are_explained_to_their_rank(method, rows, rank):
    moments = Moments.from_data(rows)
    if method in CONTROLS:
        explanation = explain_by_control(method, {0: moments}, TEXTS[:4], rng=rng)[0]
    else:
        explanation = explain(method, moments, TEXTS[:4], weights=moments)
    assert explanation.rank == rank
    assert (explanation.table.empty, len(explanation.steps)) == (True, 0) if rank == 0 else len(explanation.table) >= 1
    np.testing.assert_allclose(explanation.mean, rows.mean(0))
    if method == "components" and rank:
        np.testing.assert_allclose(explanation.reconstruct(rows), rows, atol=1e-9)
        assert len(explanation.table) == 2 * 4  # the pool has fewer texts than texts_per_pole


def test_explanations_are_saved_and_loaded(tmp_path):
    path, moments = tmp_path / "explanations.safetensors", Moments.from_data(DATA)
    explanations = {
        (3, head): explain(method, moments, TEXTS) for head, method in enumerate(("components", "textspan", "sparse"))
    }
    save_explanations(path, explanations, {})
    loaded = load_explanations(path)
    assert list(loaded) == list(explanations)
    for key, explanation in explanations.items():
        for budget in (0, 1, 5, 6, 99):
            np.testing.assert_allclose(loaded[key].directions(budget), explanation.directions(budget), atol=1e-6)
    assert loaded[3, 1].components is None
    assert list(load_explanations(path, [(3, 2)])) == [(3, 2)]


@pytest.mark.parametrize(("algorithm", "method"), [("svd_data_approx", "components"), ("text_span", "textspan")])
def test_exports_have_the_keys_of_the_reference(algorithm, method):
    moments = Moments.from_data(DATA)
    units = [(3, 0), (3, 1), (-1, -1)]
    explanations = {unit: explain(method, moments, TEXTS) for unit in units}
    tables = [explanations[unit].table.assign(layer=unit[0], head=unit[1]) for unit in units]
    table = pd.concat(tables).assign(text=lambda rows: rows["text"].map("text {}".format))
    *heads, whole = export_lines(explanations, table, algorithm, text_mean=TEXTS.mean(0), accuracy=50)
    common = ["mean_values_att", "mean_values_text", "project_matrix"]
    own = ["vh", "s", "embeddings_sort"] if algorithm == "svd_data_approx" else ["embeddings_sort"]
    assert [list(line) for line in heads] == [["layer", "head", *common, *own]] * 2
    assert list(whole) == ["layer", "head", "accuracy", "nr_texts", *common, *own]
    explanation, line, head_table = explanations[3, 1], heads[1], tables[1]
    assert (line["layer"], line["head"], whole["accuracy"]) == (3, 1, 50)
    assert whole["nr_texts"] == head_table["text"].nunique()
    matrix, listed = np.array(line["project_matrix"]), line["embeddings_sort"]
    if algorithm == "text_span":
        np.testing.assert_array_equal(matrix, explanation.steps)
        assert listed == [{"text": f"text {text}"} for text in head_table["text"]]
        return
    projection = explanation.steps.T @ explanation.steps
    np.testing.assert_allclose(matrix, explanation.components @ projection @ explanation.components.T, atol=1e-12)
    assert len(listed) == len(line["s"]) == len(line["vh"])
    for component, entry in enumerate(listed):
        rows = head_table[head_table["component"] == component]
        largest, smallest = (rows[rows["pole"] == pole].iloc[0] for pole in ("top", "bottom"))
        poles = (("max", largest), ("min", smallest))
        name, first = max(poles, key=lambda pole: abs(pole[1]["score"]))
        assert entry["text"][0] == {f"text_{name}_0": f"text {first['text']}", f"corr_{name}_0": first["score"]}
        assert (len(entry["text"]), entry["cosine_similarity"]) == (len(rows), largest["score"])
    assert sum(entry["strength_rel"] for entry in listed) == pytest.approx(100)


def test_label_hits_against_chance():
    """Eight components, each driven by one colour or one size; the texts name it in six of eight cases."""
    vocabulary = {"colour": {"red": ["red"], "blue": ["blue", "azure"]}, "size": {"big": ["big"], "tiny": ["tiny"]}}
    assert names_any("An AZURE sea", ["azure"])
    assert not names_any("a bigger hat", ["big"])
    drivers = [("colour", "red")] * 2 + [("colour", "blue")] * 2 + [("size", "big")] * 2 + [("size", "tiny")] * 2
    names = ["a red car", "red", "azure", "blue sky", "big", "a big hat", "a red car", "a hat"]
    factors = pd.DataFrame({"layer": 0, "head": 0, "component": range(8)})
    for factor in vocabulary:
        factors[f"eta2_{factor}"] = [0.9 if driver == factor else 0.1 for driver, _ in drivers]
        factors[f"high_{factor}"] = factors[f"low_{factor}"] = [
            value if driver == factor else next(iter(vocabulary[factor])) for driver, value in drivers
        ]
    texts = pd.DataFrame(
        {"layer": 0, "head": 0, "component": range(8), "pole": ["top", "bottom"] * 4, "place": 0, "text": names}
    )
    table = hit_rates(texts, factors, vocabulary, rng=np.random.default_rng(0))
    assert set(table["which_poles"]) == {"better"}  # no component has names at both poles
    table = table.set_index(["components", "which_names"])
    row = table.loc[("of heads", "any")]
    assert (row["poles"], row["factor_hits"], row["value_hits"]) == (8, 75, 75)
    # 5 texts name a colour, 2 a size, of 8; half of the components are driven by either
    assert row["factor_hits_by_chance"] == pytest.approx(100 * (5 / 8 * 0.5 + 2 / 8 * 0.5), abs=2)
    assert row["value_hits_by_chance"] < row["factor_hits_by_chance"]
    assert "of the whole embedding" not in table.index.levels[0]
    one = table.loc[("of heads", "one factor")]
    assert (one["poles"], one["share"], one["factor_hits"]) == (7, 87.5, pytest.approx(100 * 6 / 7))
    assert ("of heads", "several factors") not in table.index
    # dropped components are misses, however good the names of the others are
    kept = hit_rates(texts[:4], factors, vocabulary, rng=rng, draws=9).set_index(["components", "which_names"])
    assert kept.loc[("of heads", "any"), ["poles", "value_hits"]].tolist() == [8, 50]


def test_methods_with_one_pole_and_with_two_are_scored_alike():
    """The better pole of each component is that of the larger |score|; both are scored beside it."""
    vocabulary = {"colour": {"red": ["red"], "blue": ["blue"]}, "size": {"big": ["big"]}}
    factors = pd.DataFrame({"layer": 0, "head": 0, "component": [0, 1], "eta2_colour": 0.9, "eta2_size": 0.1})
    factors = factors.assign(high_colour="red", low_colour="blue", high_size="big", low_size="big")
    two = pd.DataFrame({"layer": 0, "head": 0, "component": [0, 0, 1, 1], "pole": ["top", "bottom"] * 2, "place": 0})
    two = two.assign(text=["a big red", "a hat", "a hat", "blue"], score=[0.3, -0.1, 0.1, -0.2])
    table = hit_rates(two, factors, vocabulary, rng=rng, draws=9).set_index(
        ["components", "which_poles", "which_names"]
    )
    assert table.loc[("of heads", "better", "any"), "value_hits"] == 100
    assert table.loc[("of heads", "both", "any"), ["poles", "value_hits"]].tolist() == [4, 50]
    assert table.loc[("of heads", "better", "several factors"), ["poles", "share"]].tolist() == [1, 50]
    one = two.iloc[[0, 3]].drop(columns="score").assign(place=1)  # the first text of a sum may have lost its weight
    assert hit_rates(one, factors, vocabulary, rng=rng, draws=9)["value_hits"].iloc[0] == 100


def test_factor_values_that_look_like_numbers_stay_text(tmp_path):
    """They are found again in the table of factors that the hits are counted on."""
    vocabulary = {"lens": {"007": ["wide"], "1.50": ["long"]}}
    factors = pd.DataFrame({"layer": 0, "head": 0, "component": range(2), "eta2_lens": 0.9})
    factors = factors.assign(high_lens=["007", "1.50"], low_lens=["1.50", "007"])
    save_table(tmp_path / "factors.csv", factors)
    texts = factors[["layer", "head", "component"]].assign(pole="top", place=0, text=["a wide lens", "a wide lens"])
    table = hit_rates(texts, load_table(tmp_path / "factors.csv"), vocabulary, rng=rng, draws=9)
    assert table.loc[table["which_names"] == "any", "value_hits"].tolist() == [50, 50]


def test_stability_of_the_same_and_of_turned_components():
    texts = TEXTS - TEXTS.mean(0)
    components = explain_components(DATA, TEXTS, threshold=1.0).components
    same = compare_components(components, components, texts)
    assert same["largest_angle"] == pytest.approx(0, abs=1e-4)
    assert (same["same_text"], same["components"]) == (100, 9)
    assert same["text_cosine"] == pytest.approx(1)
    signs = np.where(np.arange(9) % 2, 1, -1)[:, None]
    turned = compare_components(components, signs * components[rng.permutation(9)], texts)
    assert (turned["same_text"], turned["cosine"]) == (100, pytest.approx(1))
    different = compare_components(components, np.linalg.qr(rng.normal(size=(16, 16)))[0][:9], texts)
    assert different["largest_angle"] > 45
    assert different["text_cosine"] < 0.8
    halves = np.array_split(rng.permutation(len(texts)), 2)
    named = compare_halves(components, components, texts, halves)
    assert np.isnan(named["same_text"])
    chance = by_chance(lambda turned: compare_halves(components, turned, texts, halves), components, rng)
    assert named["text_cosine"] > chance["text_cosine_by_chance"]


def test_chance_of_stability_is_that_of_random_spans():
    """Of 40 dimensions, two random spans of 10; and a text in a thousand of random ones is the same one."""
    components, texts = np.linalg.qr(rng.normal(size=(50, 50)))[0][:40], rng.normal(size=(1000, 50))
    chance = by_chance(lambda turned: compare_components(components, turned, texts), components, rng)
    expected = [
        np.degrees(np.arccos(np.linalg.svd(np.linalg.qr(rng.normal(size=(40, 10)))[0][:10], compute_uv=False)))
        for _ in range(300)
    ]
    assert chance["mean_angle_by_chance"] == pytest.approx(np.mean(expected), abs=1)
    assert chance["same_text_by_chance"] < 3
    own = by_chance(lambda turned: compare_components(components[:10], turned, texts), components[:10], rng)
    assert own["mean_angle_by_chance"] == pytest.approx(
        0, abs=1e-4
    )  # the span is the whole space: no proof of anything


def test_blank_numbers_are_read_as_numbers(tmp_path):
    table = pd.DataFrame(
        {"share": [np.nan] * 2, "share_low": np.nan, "share_high": np.nan, "share_sd": np.nan, "p": 0.5}
    )
    save_table(tmp_path / "t.csv", table.assign(text=["1", ""], model="007"))
    loaded = load_table(tmp_path / "t.csv")
    assert loaded.drop(columns=["text", "model"]).dtypes.eq(float).all()
    assert loaded["text"].tolist() == ["1", ""]
    assert loaded["model"].tolist() == ["007", "007"]


def test_latex_has_intervals_or_deviations(tmp_path):
    table = pd.DataFrame({"top1": [71.0, 60.0], "top1_low": [68.0, np.nan], "top1_high": [74.0, np.nan], "p": 0.0123})
    save_latex(tmp_path / "t.tex", table.assign(top1_sd=[0.5, np.nan]))
    text = (tmp_path / "t.tex").read_text()
    assert r"71.00 [68.00, 74.00] & 0.0123 & 0.50" in text
    assert "60.00 & 0.0123 & " in text
    save_latex(tmp_path / "t.tex", pd.DataFrame({"name": ["a<b"], "p": [1e-9]}))  # no p value is 0
    assert r"a$<$b & $<$0.0001 \\" in (tmp_path / "t.tex").read_text()
    save_latex(tmp_path / "t.tex", pd.DataFrame({"model": ["a_b"], "top1": [71.234], "top1_sd": [0.5], "n": [3]}))
    text = (tmp_path / "t.tex").read_text()
    assert r"a\_b & 71.23 $\pm$ 0.50 & 3" in text
    assert "sd" not in text


def test_seeds_that_skipped_images_are_averaged():
    table = pd.DataFrame({"model": "m", "seed": [0, 1], "images": [200, 199], "group": "all", "top1": [60.0, 70.0]})
    row = over_seeds(table, ["top1"])
    assert row.columns.tolist() == ["model", "images", "group", "seeds", "top1", "top1_sd"]
    assert row[["images", "seeds", "top1"]].to_numpy().tolist() == [[199.5, "0, 1", 65]]
    table = table.assign(top1_low=[50.0, 62], top1_high=[70.0, 78], p=[0.01, 0.2])
    row = over_seeds(table, ["top1"])
    assert row.columns.tolist()[-5:] == ["top1", "top1_sd", "top1_low", "top1_high", "p"]
    assert row[["top1_low", "top1_high", "p"]].to_numpy().tolist() == [[56, 74, 0.2]]  # bounds: means; p: the largest
    assert over_seeds(table[:1], ["top1"])["top1_sd"].isna().all()  # one seed tells no spread
    assert over_seeds(table.assign(images=200), ["top1"])["images"].dtype == int
    assert over_seeds(table, ["top1"], ["images"])["images"].tolist() == [199.5]
