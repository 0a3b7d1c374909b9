"""Names of components: both namings against plain computation, how sure they are, the judges against brute force."""

import numpy as np
import pandas as pd
import pytest
from stored_small import stored_small

from clipspectra import InputError
from clipspectra.contributions.moments import Moments
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.data.choosing import ChosenRows
from clipspectra.data.pairs import check_pairs, pair_halves
from clipspectra.demo.world import VALUES, World
from clipspectra.evaluation.clearest import candidates, distinct, factor_features, monosemanticity
from clipspectra.evaluation.judges import PairedChanges, Removal, Truth, half_width, matched_texts
from clipspectra.evaluation.labels import Vocabulary
from clipspectra.evaluation.verdicts import Part
from clipspectra.explanations.methods import explain, with_names
from clipspectra.explanations.naming import (
    NAMED_BY,
    NAMINGS,
    ActivitySums,
    TextPool,
    activities,
    chance,
    name_components,
    text_scores,
)
from clipspectra.explanations.spectral import component_scores, explain_components
from clipspectra.towers import models

rng = np.random.default_rng(17)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A stored study, its fit embeddings in memory, and a pool of texts in which two are equal."""
    small = stored_small(tmp_path_factory.mktemp("study"))
    small.embeddings = np.concatenate(list(small.stored.embeddings()))
    texts = unit(rng.normal(size=(50, small.embeddings.shape[1])))
    texts[7] = texts[3]
    small.pool = TextPool(texts, *small.stored.fit_moments(EMBEDDING))
    return small


def plain_scores(naming, scores, embeddings, texts, components):
    """[pole, component, text] from the matrix of images and texts."""
    similarity = embeddings @ texts.T
    standard = (similarity - similarity.mean(0)) / similarity.std(0)
    projection = components @ (texts - texts.mean(0)).T
    if naming == "says":
        return np.stack([projection, -projection])
    if naming == "pattern":
        correlation = np.corrcoef(scores.T, similarity.T)[: len(components), len(components) :]
        return np.stack([correlation, -correlation])
    weights = [np.maximum(sign * scores, 0) for sign in (1, -1)]
    means = np.stack([weight.T @ standard / weight.sum(0)[:, None] for weight in weights])
    return means if naming == "fires_on" else np.where(np.stack([projection, -projection]) > 0, means, -np.inf)


@pytest.mark.parametrize("unit_of", [(2, 1), (EMBEDDING, EMBEDDING)])
def test_namings_equal_the_plain_computation(study, unit_of):
    explanation, fit = study.explanations[unit_of], study.stored.fit
    rows, basis = study.stored.rows_and_basis(*unit_of)
    scores = component_scores(rows[fit], basis, explanation.components, explanation.mean)
    ((activity,),) = activities(study.stored, unit_of[0], {"a": (unit_of[1], explanation)}, [fit]).values()
    names = name_components(explanation.components, activity, study.pool, texts_per_pole=4)
    for naming in NAMINGS:
        plain = plain_scores(naming, scores, study.embeddings[fit], study.pool.features, explanation.components)
        streamed, allowed = text_scores(naming, explanation.components, activity, study.pool), np.isfinite(plain)
        np.testing.assert_allclose(streamed[allowed], plain[allowed], atol=1e-9)
        if naming not in NAMED_BY:
            assert (np.where(allowed, streamed, -np.inf).max(-1) == streamed.max(-1)).all()
            continue
        rows_of = names[names["naming"] == naming]
        for (component, pole), texts in rows_of.groupby(["component", "pole"]):
            of_pole = plain[int(pole == "bottom"), component].round(12)
            assert texts["text"].tolist() == np.argsort(-of_pole, kind="stable")[:4].tolist()
            for column, of in (("projection", "says"), ("activation", "fires_on")):
                own = plain_scores(of, scores, study.embeddings[fit], study.pool.features, explanation.components)
                expected = own[int(pole == "bottom"), component, texts["text"]]
                np.testing.assert_allclose(texts[column], expected, atol=1e-9)


def test_says_is_the_references_naming(study):
    moments = study.stored.fit_moments(2)[1]
    explanation = explain_components(moments, study.pool.features, texts_per_pole=5)
    whole = explain("components", moments, study.pool.features)
    ((activity,),) = activities(study.stored, 2, {"a": (1, whole)}, [study.stored.fit]).values()
    table = with_names(whole, activity, study.pool, texts=5).table
    says = table[table["naming"] == "says"]
    for pole, texts, scores in (
        ("top", explanation.top_text, explanation.top_score),
        ("bottom", explanation.bottom_text, explanation.bottom_score),
    ):
        rows = says[says["pole"] == pole]
        assert rows["text"].tolist() == texts.ravel().tolist()
        np.testing.assert_allclose(rows["score"], scores.ravel(), atol=1e-12)
    assert says.columns.tolist()[:4] == ["component", "singular_value", "strength", "pole"]


def test_names_do_not_depend_on_the_order_of_images_or_chunks():
    scores, embeddings = rng.normal(size=(90, 4)), unit(rng.normal(size=(90, 12)))
    pool = TextPool(unit(rng.normal(size=(30, 12))), Moments.from_data(embeddings))
    tables = []
    for order, parts in ((np.arange(90), 1), (rng.permutation(90), 7)):
        sums = ActivitySums()
        for rows in np.array_split(order, parts):
            sums.add(scores[rows], embeddings[rows])
        components = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 4)))[0].T
        tables.append(name_components(components, sums.activity(), pool, texts_per_pole=5))
    pd.testing.assert_frame_equal(*tables, rtol=1e-12)


@pytest.mark.parametrize(
    "case", ["two texts", "one text", "equal texts", "nothing moves", "one direction", "one image at a pole"]
)
def test_degenerate_cases_have_defined_names(case):
    embeddings, count = unit(rng.normal(size=(20, 8))), {"two texts": 2, "one text": 1}.get(case, 6)
    scores = rng.normal(size=(20, 3))
    texts = unit(rng.normal(size=(count, 8)))
    if case == "equal texts":
        texts[:] = texts[0]
    if case == "nothing moves":
        embeddings, scores = np.tile(embeddings[:1], (20, 1)), np.zeros((20, 3))
    if case == "one direction":
        embeddings = np.linspace(0, 1, 20)[:, None] * embeddings[:1]
    if case == "one image at a pole":
        scores = -np.ones((20, 3))
        scores[0] = 19
    sums = ActivitySums()
    sums.add(scores, embeddings)
    pool = TextPool(texts, Moments.from_data(embeddings))
    components = np.linalg.qr(rng.normal(size=(8, 3)))[0].T
    table = name_components(components, sums.activity(), pool, texts_per_pole=5)
    assert len(table) == 3 * 2 * 2 * min(5, count)
    assert np.isfinite(table.select_dtypes(float)).all().all()
    if case in ("equal texts", "nothing moves"):
        assert table.loc[(table["naming"] == "fires_on") & (table["place"] == 0), "text"].tolist() == [0] * 6
    if case == "nothing moves":
        assert not table.loc[table["naming"] == "fires_on", "named"].any()
    lost, beats = Removal(embeddings, pool).judge(np.arange(6), np.zeros(6, int), scores, components)
    assert np.isfinite([lost, beats]).all()


def test_a_head_without_components_has_no_names():
    """One that writes the same for every image."""
    embeddings = unit(rng.normal(size=(20, 8)))
    sums, pool = ActivitySums(), TextPool(unit(rng.normal(size=(6, 8))), Moments.from_data(embeddings))
    sums.add(np.zeros((20, 0)), embeddings)
    table = name_components(np.zeros((0, 8)), sums.activity(), pool, texts_per_pole=5)
    assert len(table) == 0
    assert {"component", "pole", "naming", "text", "named"} <= set(table.columns)


def test_chance_is_what_random_texts_reach():
    embeddings = unit(rng.normal(size=(400, 24)) * 0.8 ** np.arange(24) + 1)
    scores, texts = embeddings @ rng.normal(size=(24, 3)), unit(rng.normal(size=(60, 24)))
    sums, pool = ActivitySums(), TextPool(texts, Moments.from_data(embeddings))
    sums.add(scores - scores.mean(0), embeddings)
    activity, covariance = sums.activity(), pool.embedding.covariance
    components = np.linalg.qr(rng.normal(size=(24, 3)))[0].T
    length = np.sqrt((pool.centred**2).sum(1).mean())
    best = {"fires_on": [], "says": []}
    for _ in range(600):
        random = rng.normal(size=texts.shape)
        spread = np.sqrt(np.einsum("td,de,te->t", random, covariance, random))
        best["fires_on"].append((np.concatenate(activity.means) @ (random / spread[:, None]).T).max(1))
        best["says"].append(np.concatenate([components, -components]) @ (length * unit(random)).T)
        best["says"][-1] = best["says"][-1].max(1)
    for naming, maxima in best.items():
        drawn = np.quantile(maxima, (0.5, 0.95), axis=0)
        np.testing.assert_allclose(chance(naming, activity, pool), drawn, rtol=0.06)


def test_intervals_over_heads_and_pairs():
    values, heads = rng.normal(size=40) + np.repeat(rng.normal(size=8), 5), np.repeat(np.arange(8), 5)
    of_heads = values.reshape(8, 5).mean(1)  # of equal size: Student's interval of their means
    spread = 2.3646 * of_heads.std(ddof=1) / np.sqrt(8)
    row = Part.over_heads(values, heads, largest=None).columns()
    assert row["score"] == pytest.approx(values.mean())
    assert (row["score_high"] - row["score_low"]) / 2 == pytest.approx(spread, rel=1e-3)
    influence = rng.normal(size=50) / 50
    wider = Part.over_heads(values, heads, influence, largest=None).columns()
    half = (wider["score_high"] - wider["score_low"]) / 2
    assert half == pytest.approx(np.hypot(spread, half_width(influence)), rel=1e-3)
    shares = Part.over_heads(np.array([100.0, 100, 90]), np.arange(3)).columns()
    assert (shares["score_low"] > 0, shares["score_high"]) == (True, 100)
    other = Part.over_heads(values - 1, heads, influence)
    assert Part.over_heads(values, heads, influence).minus(other, 0.25)["against_says"] == pytest.approx(0.75)
    assert np.isnan(Part.over_heads(values[:3], np.zeros(3)).columns()["score_low"])  # of a single head


VOCABULARY = {"colour": {"red": ["red"], "blue": ["blue"]}, "size": {"big": ["big"], "tiny": ["tiny"], "mid": ["mid"]}}
NAMES = ["a red car", "blue", "big", "tiny", "a red and big hat", "a hat", "mid", "a blue or red thing"]


def small_pairs(count=60):
    """(moves [component, pair], changed [pair], first, second: bool [pair, value]) of a world of two factors."""
    changed = np.arange(count) % 2
    first = np.zeros((count, 5), bool)
    colours, sizes = rng.integers(0, 2, count), rng.integers(0, 3, count)
    first[np.arange(count), colours] = first[np.arange(count), 2 + sizes] = True
    second = np.zeros_like(first)
    second[np.arange(count), np.where(changed == 0, 1 - colours, colours)] = True
    second[np.arange(count), 2 + np.where(changed == 1, (sizes + 1) % 3, sizes)] = True
    effects = rng.normal(size=(5, 4))
    moves = (second.astype(float) - first) @ effects + 0.5 * rng.normal(size=(count, 4))
    moves[:, 3] = 0  # moves with nothing
    return moves.T, changed, first, second


def test_paired_changes_equal_brute_force():
    vocabulary, (moves, changed, first, second) = Vocabulary(VOCABULARY, NAMES), small_pairs()
    paired = PairedChanges(moves, changed, first, second, vocabulary)
    poles, names = np.arange(8), np.array([0, 2, 1, 4, 5, 7, 3, 6])
    judged = paired.judge(poles, names)
    for pole, name in zip(poles, names):
        move, sign = moves[pole // 2], 1 - 2 * (pole % 2)
        inside = vocabulary.names_factor[name][changed]
        own, others = np.abs(move)[inside], np.abs(move)[~inside]
        wins = (own[:, None] > others) + 0.5 * (own[:, None] == others)
        assert judged["auc"][pole] == pytest.approx(wins.mean() if wins.size else 0.5)
        hits = []
        for value in np.flatnonzero(vocabulary.names_value[name]):
            for pair in np.flatnonzero(changed == vocabulary.factor_of_value[value]):
                if first[pair, value] != second[pair, value]:
                    hits.append(50 * (1 + np.sign(move[pair]) * sign * (1 if second[pair, value] else -1)))
        assert judged["signed_hits"][pole] == pytest.approx(np.mean(hits) if hits else 50)
        means = np.array([np.abs(move)[changed == factor].mean() for factor in (0, 1)])
        share = 100 * means[vocabulary.names_factor[name]].sum() / means.sum() if means.sum() else 0
        assert judged["purity"][pole] == pytest.approx(share)


def test_intervals_over_pairs_have_the_spread_of_the_bootstrap():
    vocabulary, pairs = Vocabulary(VOCABULARY, NAMES), small_pairs(200)
    poles, names = np.arange(6), np.array([0, 1, 2, 3, 4, 2])
    paired = PairedChanges(*pairs, vocabulary)
    judged = paired.judge(poles, names)
    influence = paired.influence(poles, names, judged)
    drawn = {name: [] for name in judged}
    for _ in range(400):
        rows = np.concatenate([rng.choice(np.flatnonzero(pairs[1] == factor), 100) for factor in (0, 1)])
        again = PairedChanges(pairs[0][:, rows], *(array[rows] for array in pairs[1:]), vocabulary).judge(poles, names)
        for name, values in again.items():
            drawn[name].append(values.mean())
    for name, values in drawn.items():
        spread = half_width(influence[name]) / 1.97
        assert spread == pytest.approx(np.std(values), rel=0.2)


def test_truth_is_what_moves_the_component():
    vocabulary = Vocabulary(VOCABULARY, NAMES)
    table = pd.DataFrame({"colour": ["red", "blue"] * 9, "size": ["big", "tiny", "mid"] * 6})
    has_value = vocabulary.one_hot(table)
    scores = has_value @ np.array([[3, 0], [0, 0], [0, -2], [0.1, 0], [0, 2.0]])
    truth = Truth.of(scores, table, vocabulary)
    assert truth.strongest.tolist() == [0, 1]
    assert truth.extremes.tolist() == [[0, 1], [4, 2]]  # red over blue, mid over big
    value, factor = truth.hits(np.array([0, 1, 2, 3]), np.array([0, 0, 6, 3]), vocabulary)
    assert (value.tolist(), factor.tolist()) == ([True, False, True, False], [True, True, True, True])


def test_removal_is_what_goes_of_a_texts_differences():
    embeddings, texts = rng.normal(size=(70, 10)), unit(rng.normal(size=(30, 10)))
    pool = TextPool(texts, Moments.from_data(embeddings))
    components = np.linalg.qr(rng.normal(size=(10, 2)))[0].T
    scores = rng.normal(size=(70, 2)) + embeddings @ components.T
    poles, names = np.array([0, 1, 2]), np.array([4, 9, 20])
    lost, beats = Removal(embeddings, pool).judge(poles, names, scores, components)
    matched = matched_texts(pool)
    assert matched.shape == (30, 20)
    assert all(row not in others for row, others in enumerate(matched))

    def plain(component, text):
        """Slope of what is removed on what was there."""
        before = embeddings @ texts[text]
        gone = scores[:, component] * (components[component] @ texts[text])
        return 100 * np.polyfit(before, gone, 1)[0]

    for pole, name, share, beaten in zip(poles, names, lost, beats):
        assert share == pytest.approx(plain(pole // 2, name))
        assert beaten == pytest.approx(100 * np.mean([share > plain(pole // 2, text) for text in matched[name]]))


PAIRS = pd.DataFrame(
    {
        "image": [f"{number}.png" for number in range(6)],
        "pair": ["", "", "a", "b", "b", "a"],
        "changed": ["", "", "colour", "size", "size", "colour"],
        "colour": ["red", "red", "red", "blue", "blue", "blue"],
        "size": ["big", "big", "big", "big", "tiny", "big"],
    }
)


def test_pairs_are_taken_out_of_the_manifest():
    roles = {"fit": {"per_class": 1}, "eval": {"per_class": 1}}
    chosen = pd.concat(ChosenRows([PAIRS.assign(split="", **{"class": "a"})], roles, 0, pairs=True))
    assert chosen["role"].tolist() == ["fit", "eval", "pair", "pair", "pair", "pair"]
    pairs = chosen[chosen["role"] == "pair"]
    check_pairs(pairs, ["colour", "size"], "digits")
    assert pairs["row"].tolist() == [2, 3, 4, 5]
    first, second = pair_halves(pairs)
    assert list(zip(first["image"], second["image"])) == [("2.png", "5.png"), ("3.png", "4.png")]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pair": ["", "", "a", "b", "b", ""]}, "The pair 'a' of digits has one image, not two"),
        ({"pair": ["a", "", "a", "b", "b", "a"]}, "The pair 'a' of digits has 3 images, not two"),
        ({"changed": ["", "", "shade", "size", "size", "shade"]}, "changed 'shade', which is not one of the factors"),
        ({"changed": ["", "", "colour", "", "", "colour"]}, "The pair 'b' of digits has a blank 'changed'"),
        (
            {"changed": ["", "", "colour", "size", "colour", "colour"]},
            "rows of the pair 'b' of digits have different values of changed, 'size' and 'colour'",
        ),
        (
            {"size": ["big", "big", "big", "big", "tiny", "tiny"]},
            "changed 'colour', but its images also differ in 'size'",
        ),
        (
            {"colour": ["red", "red", "red", "blue", "blue", "red"]},
            "changed 'colour', but its images do not differ in it",
        ),
        ({"pair": ""}, "has none: fill the columns pair and changed, or set pairs: false"),
    ],
)
def test_wrong_pairs_are_named(change, words):
    with pytest.raises(InputError, match="pair") as error:
        changed = PAIRS.assign(**change)
        check_pairs(changed[changed["pair"] != ""], ["colour", "size"], "digits")
    assert words in str(error.value)


def test_pairs_of_the_demo_differ_in_one_thing():
    world, draws = World("test"), np.random.default_rng(0)
    for changed in VALUES:
        factors = world.draw_factors(draws, 1)[0]
        other = world.draw_pair(factors, changed, draws)
        assert [name for name, a, b in zip(VALUES, factors, other) if a != b] == [changed]
        pictures, inks = zip(
            *(world.render(row, np.random.default_rng(5), np.random.default_rng(6)) for row in (factors, other))
        )
        if changed in ("colour", "texture"):
            np.testing.assert_array_equal(*inks)
        if changed != "texture":  # noise is drawn alike, so what neither ink covers is the same
            ground = ~(inks[0] | inks[1])
            far = np.abs(pictures[0].astype(int) - pictures[1]).max(-1)
            assert (far[ground] <= 8).mean() > 0.9


def test_shuffled_weights_are_the_same_numbers_in_the_same_new_order(request):
    golden = request.config.rootpath / "tests" / "golden"
    files = str(golden / "model_config.json"), str(golden / "model.safetensors")
    trained, shuffled = (
        dict(models.load(*files, shuffle=shuffle).model.named_parameters()) for shuffle in (False, True)
    )
    tower = dict(models.load(*files, shuffle=True, towers="image").model.named_parameters())
    for name, weight in trained.items():
        np.testing.assert_array_equal(np.sort(weight.flatten()), np.sort(shuffled[name].flatten()))
        if name in tower and weight.numel() > 9:
            np.testing.assert_array_equal(shuffled[name], tower[name])
    assert not np.array_equal(trained["visual.proj"], shuffled["visual.proj"])


def test_monosemanticity_is_the_weighted_mean_over_pairs():
    scores, table = rng.normal(size=(12, 3)), pd.DataFrame({"a": list("xxyyzz") * 2, "b": list("pq") * 6})
    features = factor_features(table, ["a", "b"])
    alike = np.mean([table[name].to_numpy()[:, None] == table[name].to_numpy() for name in table], axis=0)
    top, bottom, by_chance = monosemanticity(scores, features)
    different = ~np.eye(12, dtype=bool)
    for sign, found in ((1, top), (-1, bottom)):
        for component in range(3):
            weight = np.outer(*[np.maximum(sign * scores[:, component], 0)] * 2)[different]
            assert found[component] == pytest.approx((weight * alike[different]).sum() / weight.sum())
    assert by_chance == pytest.approx(alike[different].mean())


def test_cards_differ_and_are_chosen_by_their_names():
    scores = rng.normal(size=(50, 4))
    scores[:, 1] = scores[:, 0] + 0.1 * scores[:, 1]  # a copy
    texts = [{"a"}, {"b"}, {"c", "d"}, {"d", "e"}]
    assert distinct(scores, [{name} for name in "wxyz"]) == [0, 2, 3]
    assert distinct(scores, texts) == [0, 2]  # the last has a name of the third
    assert distinct(scores, texts, count=1) == [0]
    factors = pd.DataFrame({"layer": [-1, 0, 0, 0], "head": [-1, 0, 0, 1], "component": [0, 0, 1, 0]})
    factors["share"] = [0.9, 0.6, 0.01, 0.5]
    names = factors.merge(pd.DataFrame({"pole": ["top", "bottom"]}), how="cross")
    names = names.assign(score=[9, -9, 1, -1, 5, -5, 2, -2], score_by_chance_95=1.0, named=True)
    assert candidates(names, factors)[["layer", "head", "sureness"]].to_numpy().tolist() == [[0, 1, 2], [0, 0, 1]]
    small = factors.assign(share=0.01)  # of components of little variance the best are shown
    assert candidates(names, small)["sureness"].tolist() == [5, 2, 1]
    named = names["score"].abs() > 1
    assert candidates(names.assign(named=named), factors)["sureness"].tolist() == [2]
    assert candidates(names.assign(named=False), factors)["sureness"].tolist() == [2, 1]
