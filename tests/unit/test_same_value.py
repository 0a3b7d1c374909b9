"""Retrieval with a number: average precision equal to plain loops, chance to all orders, intervals to the jackknife."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from stored_small import stored_small

from clipspectra.concepts import same_value
from clipspectra.concepts.interventions import Edits, Intervention
from clipspectra.concepts.retrieval import View
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.evaluation.accuracy import eta_squared, in_top_k, zero_shot
from clipspectra.evaluation.ranking import (
    average_precision,
    blocks,
    hits_at,
    random_average_precision,
    random_hits_at,
)
from clipspectra.evaluation.text_retrieval import text_retrieval

rng = np.random.default_rng(5)


def plain(relevant):
    """Average precision of one ranking, bool [place]."""
    hits = np.flatnonzero(relevant)
    return np.mean([(number + 1) / (place + 1) for number, place in enumerate(hits)])


@pytest.mark.parametrize("values", [2, 3, 1000])
def test_average_precision_is_the_mean_over_all_orders_of_ties(values):
    """Of 7 candidates with few or no ties; negative scores, zeros of both signs, and the query itself left out."""
    scores = rng.integers(-values // 2, values // 2 + 1, size=(6, 7)) * np.where(rng.random((6, 7)) < 0.5, 1.0, -1.0)
    relevant = rng.random((6, 7)) < 0.4
    scores[:, 3], relevant[:, 3] = -np.inf, False
    relevant[0], relevant[1, [0, 1]] = False, True
    others = [0, 1, 2, 4, 5, 6]
    rankings = [
        [
            relevant[query, list(order)]
            for order in permutations(others)
            if (np.diff(scores[query, list(order)]) <= 0).all()
        ]
        for query in range(6)
    ]
    found = average_precision(scores, [relevant, ~relevant & (scores > -np.inf)])
    assert np.isnan(found[0][0])
    expected = [np.mean([plain(ranking) for ranking in of_query]) for of_query in rankings if of_query[0].any()]
    np.testing.assert_allclose(found[0][relevant.any(1)], expected, atol=1e-12)
    assert not np.isnan(found[1]).any()


def test_chance_is_the_mean_of_random_rankings():
    for candidates, count in ((6, 1), (6, 3), (6, 6), (1, 1)):
        ranked = np.array(list(permutations(np.arange(candidates) < count)))
        expected = np.mean([plain(ranking) for ranking in ranked])
        assert random_average_precision([count], candidates)[0] == pytest.approx(expected, abs=1e-12)
        for k in range(1, candidates):
            assert random_hits_at([count], candidates, k)[0] == pytest.approx(ranked[:, :k].any(1).mean(), abs=1e-12)
    assert np.isnan(random_average_precision([0, 0], 0)).all()


def test_many_queries_in_blocks_are_the_same(monkeypatch):
    rows, values = rng.normal(size=(50, 4)), {"a": rng.integers(3, size=50), "b": rng.integers(2, size=50)}
    images = same_value.SameValue(values, np.random.default_rng(0))
    whole = images.precisions(same_value.by_cosine(rows), ["a", "b"])
    monkeypatch.setattr("clipspectra.evaluation.ranking.BLOCK", 170)
    assert [len(part) for part in blocks(np.arange(50), 50)] == [4, 4, 4, 4, 4, *[3] * 10]
    in_blocks = images.precisions(same_value.by_cosine(rows), ["a", "b"])
    for factor in values:
        np.testing.assert_array_equal(whole[factor].by_query, in_blocks[factor].by_query)
        np.testing.assert_allclose(whole[factor].by_image, in_blocks[factor].by_image, atol=1e-12)
    monkeypatch.setattr(same_value, "MOST_QUERIES", 20)
    some = same_value.SameValue(values, np.random.default_rng(0))
    assert len(some.queries) == some.count("a") == 20
    chosen = whole["a"].by_query[some.queries]
    np.testing.assert_array_equal(some.precisions(same_value.by_cosine(rows), ["a"])["a"].by_query, chosen)


def test_intervals_are_those_of_leaving_out_each_image(monkeypatch):
    """As query and as candidate at once, and of a difference; queries alone would make them too narrow."""
    count = 120
    values = rng.integers(4, size=count)
    rows = [rng.normal(size=(count, 5)) + noise * np.eye(5)[values] for noise in (0.8, 1.6)]

    def difference(kept):
        images = same_value.SameValue({"a": values[kept]}, np.random.default_rng(0))
        first, second = (images.precisions(same_value.by_cosine(of_kind[kept]), ["a"])["a"] for of_kind in rows)
        return second - first, second

    every = np.arange(count)
    for which in (0, 1):
        found = difference(every)[which].columns("x", least=-1)
        without = [difference(np.delete(every, image))[which].by_query.mean() for image in every]
        error = 100 * np.sqrt((count - 1) / count * np.square(without - np.mean(without)).sum())
        assert (found["x_high"] - found["x_low"]) / 2 / 1.98 == pytest.approx(error, rel=0.06)
        assert error > 1.15 * 100 * difference(every)[which].by_query.std() / np.sqrt(count)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    small = stored_small(tmp_path_factory.mktemp("study"))
    colours = np.array(["red", "blue", "green"])[rng.integers(3, size=len(small.stored.images))]
    small.stored.images["colour"] = colours
    small.stored.images["class"] = np.where(rng.random(len(colours)) < 0.5, "low", "high")
    return small


def tables(study, values):
    stored, explanations = study.stored, dict(sorted(study.explanations.items()))
    fit, scored = (
        same_value.SameValue({factor: column[inside] for factor, column in values.items()}, np.random.default_rng(0))
        for inside in (stored.fit, stored.scored)
    )
    return *same_value.unit_tables(stored, explanations, fit, scored), scored


def plain_precision(closeness, values):
    """Mean average precision in %, image by image."""
    found = []
    for query in range(len(values)):
        others = np.delete(np.arange(len(values)), query)
        relevant = (values[others] == values[query])[np.argsort(-closeness[query, others])]
        found += [plain(relevant)] if relevant.any() else []
    return 100 * np.mean(found)


def best_component_on_fit(study, values):
    """Of the component of each head whose scores the values explain most, the one that finds them best; both on fit."""
    found = {}
    for unit, explanation in study.explanations.items():
        if unit[0] == EMBEDDING:
            continue
        view = View(study.stored, *unit, explanation.mean)
        scores = np.stack([view.scores(direction)[study.stored.fit] for direction in explanation.components], 1)
        of_fit = values[study.stored.fit]
        component = int(eta_squared(scores, of_fit).argmax())
        nearness = -np.abs(scores[:, component, None] - scores[:, component])
        found[(*unit, component)] = plain_precision(nearness, of_fit)
    return same_value.unit_label(max(found, key=found.get))


def test_heads_and_components_rank_as_neighbours_do(study):
    stored, colours = study.stored, study.stored.images["colour"].to_numpy()
    heads, rows, scored = tables(study, {"colour": colours})
    assert len(heads) == len(study.explanations) - 1
    for row in heads.itertuples():
        unit = row.layer, row.head
        view = View(stored, *unit, study.explanations[unit].mean)
        centred = np.concatenate([*view.rows()])
        for name, inside in (("score", stored.scored), ("fit_score", stored.fit)):
            cosines = np.array([view.cosines(image)[inside] for image in centred[inside]])
            expected = plain_precision(cosines, colours[inside])
            assert getattr(row, name) == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(heads["against_whole"], heads["score"] - heads["whole"], atol=1e-9)
    heads["named"] = np.where(heads.index == 2, 40.0, 0.0)
    heads["fit_score"] = np.where(heads.index == heads["score"].idxmin(), 99.0, heads["fit_score"])  # best on fit alone
    table = same_value.same_value_table(heads, rows, scored).set_index("by")
    assert list(table.index) == list(same_value.ORDER)
    best, named = heads.loc[heads["score"].idxmin()], heads.loc[2]
    assert table.loc[same_value.BEST_HEAD, "unit"] == same_value.unit_label((best["layer"], best["head"]))
    assert table.loc[same_value.BEST_HEAD, "score"] == best["score"]
    assert table.loc[same_value.NAMED_HEAD, "score"] == named["score"]
    label = table.loc[same_value.BEST_COMPONENT, "unit"]
    assert label == best_component_on_fit(study, colours)
    layer, head, component = (int(part[1:]) for part in label.split())
    scores = View(stored, layer, head, study.explanations[layer, head].mean).scores(
        study.explanations[layer, head].components[component].astype(np.float64)
    )[stored.scored]
    nearness = -np.abs(scores[:, None] - scores)
    expected = plain_precision(nearness, colours[stored.scored])
    assert table.loc[same_value.BEST_COMPONENT, "score"] == pytest.approx(expected, abs=1e-6)


def test_values_that_no_two_images_share_are_blank(study, recwarn):
    heads, rows, scored = tables(study, {"name": study.stored.images["image"].to_numpy()})
    table = same_value.same_value_table(heads.assign(named=np.nan), rows, scored)
    assert table["by"].tolist() == [same_value.WHOLE]
    assert table[["score", "score_low", "by_chance"]].isna().all(axis=None)
    assert table["queries"].tolist() == [0]
    assert not recwarn


def test_an_edit_of_nothing_changes_nothing_and_removed_heads_do(study):
    stored, explanations = study.stored, study.explanations
    scored = same_value.SameValue({"colour": stored.images["colour"][stored.scored]}, np.random.default_rng(0))
    edits = Edits(stored, explanations)
    before = edits.embeddings(Intervention())
    assert same_value.edited_table(before, before, stored, scored)["against_whole"].tolist() == [0]
    after = edits.embeddings(Intervention().scale(0.0, [unit for unit in explanations if unit[0] != EMBEDDING]))
    row = same_value.edited_table(before, after, stored, scored).iloc[0]
    centred = (after - after[stored.fit].mean(0))[stored.scored]
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    expected = plain_precision(centred @ centred.T, stored.images["colour"][stored.scored].to_numpy())
    assert row["score"] == pytest.approx(expected, abs=1e-6)


def test_texts_and_images_find_each_other(study):
    stored = study.stored
    embeddings = np.concatenate([*stored.embeddings()])[stored.scored]
    classifier, labels = rng.normal(size=(embeddings.shape[1], 12)), rng.integers(3, size=len(stored.images))
    table = pd.DataFrame(text_retrieval(stored, classifier, labels)).set_index(["direction", "measure"])
    own, cosines = labels[stored.scored], embeddings @ classifier
    at_one = table.loc["image to text", "recall_at_1"]
    assert at_one["score"] == 100 * (zero_shot(embeddings, classifier) == own).mean()
    assert at_one["by_chance"] == pytest.approx(100 / 12)
    assert table.loc[("image to text", "recall_at_5"), "score"] == 100 * in_top_k(embeddings, classifier, own, 5).mean()
    assert table.loc[("image to text", "recall_at_5"), "by_chance"] == pytest.approx(500 / 12)
    assert list(table.loc["image to text"].index) == ["recall_at_1", "recall_at_5", "recall_at_10", "mean_ap"]
    assert list(table.loc["text to image"].index) == ["recall_at_1", "recall_at_5", "mean_ap"]  # of ten images
    relevant = own == np.arange(3)[:, None]
    assert table.loc["text to image", "queries"].tolist() == [3, 3, 3]  # nine texts are of no image
    found = [plain(relevant[text, np.argsort(-cosines[:, text])]) for text in range(3)]
    assert table.loc[("text to image", "mean_ap"), "score"] == pytest.approx(100 * np.mean(found), abs=1e-6)
    hits = [relevant[text, cosines[:, text].argmax()] for text in range(3)]
    assert table.loc[("text to image", "recall_at_1"), "score"] == pytest.approx(100 * np.mean(hits))


def test_of_equal_scores_the_first_hits():
    assert hits_at(np.zeros((1, 3)), np.array([[False, True, False]]), 1).tolist() == [False]
    assert hits_at(np.zeros((1, 3)), np.array([[False, True, False]]), 2).tolist() == [True]


def test_a_class_that_is_a_factor_by_another_name_counts_once():
    images = pd.DataFrame({"class": ["1", "2", "1"], "digit": ["one", "two", "one"], "size": ["s", "s", "l"]})
    assert list(same_value.factor_values(images, ["digit", "size"], [])) == ["digit", "size"]
    assert list(same_value.factor_values(images, ["size"], ["class"])) == ["size", "class"]
    assert list(same_value.factor_values(images.assign(**{"class": ""}), ["size"], [])) == ["size"]
    assert list(same_value.factor_values(images.assign(**{"class": "x"}), ["size"], ["digit"])) == ["size", "digit"]


def test_a_head_names_a_factor_by_its_strong_components():
    texts = ["a red three", "a red one", "fog", "blue"]
    names = pd.DataFrame({"layer": 1, "head": [0, 0, 1, 1], "strength": [0.6, 0.6, 0.2, 0.2], "text": texts})
    whole = names.assign(layer=EMBEDDING, head=EMBEDDING)
    images = pd.DataFrame({"colour": ["red", "blue"], "digit": ["three", "one"]})
    shares = same_value.naming_shares(pd.concat([whole, names]), images, {"colour": {}, "digit": {}})
    assert shares["colour"] == pytest.approx({(1, 0): 30, (1, 1): 10})
    assert shares["digit"] == pytest.approx({(1, 0): 30, (1, 1): 0})
    assert same_value.naming_shares(names, images, {}) == {}
