"""Queries and neighbours: the same as written out, with the reference's stopping and sampling."""

import json

import numpy as np
import pandas as pd
import pytest
from stored_small import stored_small

from clipspectra import InputError
from clipspectra.concepts.retrieval import Components, View, best_texts, centred_queries, ends, trace
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.data.texts import unknown_words
from clipspectra.explanations.methods import save_explanations
from clipspectra.towers import models

rng = np.random.default_rng(3)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    found = stored_small(folder)
    save_explanations(folder / "components.safetensors", found.told, {})
    found.components = Components.load(folder / "components.safetensors")
    return found


def test_components_are_those_of_the_heads(study):
    where, directions = study.components.where, study.components.directions
    assert {tuple(place) for place in where[:, :2]} == {place for place in study.told if place[0] >= 0}
    assert (where == np.array(sorted(map(tuple, where)))).all()
    for place, direction in zip(where, directions):
        np.testing.assert_allclose(direction, study.told[tuple(place[:2])].components[place[2]], atol=1e-7)


def cosine(one, other):
    return one @ other / (np.linalg.norm(one) * np.linalg.norm(other))


@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_a_trace_is_the_references_loop(study, share):
    """One component after another, by |score|, until the share of the reachable cosine."""
    query, directions = rng.normal(size=24), study.components.directions.astype(np.float64)
    found = trace(query, study.components, share=share, most=1000, rng=np.random.default_rng(0))
    scores = directions @ query
    reachable = cosine(scores @ directions, query)
    order, rebuilt, cosines = np.argsort(-np.abs(scores)), np.zeros(24), []
    for place in order:
        rebuilt = rebuilt + scores[place] * directions[place]
        cosines.append(cosine(rebuilt, query))
        if cosines[-1] >= share * reachable:
            break
    assert found.reachable == pytest.approx(reachable, abs=1e-6)
    assert len(found.order) == len(cosines)
    np.testing.assert_array_equal(found.order, order[: len(cosines)])
    np.testing.assert_allclose(found.score, scores[found.order], atol=1e-6)
    np.testing.assert_allclose(found.cosine, cosines, atol=1e-6)
    assert found.control.shape == (20, len(cosines))
    assert found.control[:, 0].mean() < found.cosine[0]
    again = trace(query, study.components, share=share, most=1000, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(found.control, again.control)
    assert len(trace(query, study.components, share=1.0, most=7, rng=rng).order) == 7


def test_a_query_at_the_mean_is_refused(study):
    with pytest.raises(InputError, match="The query is the mean of all"):
        trace(np.zeros(24), study.components, rng=rng)


def test_queries_are_taken_from_the_mean_of_their_kind():
    features, mean = rng.normal(size=(9, 24)), rng.normal(size=24)
    np.testing.assert_allclose(
        centred_queries({"features": features[:2]}, features, mean), features[:2] - features.mean(0)
    )
    picture = rng.normal(size=(1, 24))
    found = centred_queries({"embedding": picture, "z": None}, features, mean)
    np.testing.assert_allclose(found[0], picture[0] / np.linalg.norm(picture) - mean)


def test_ends_are_the_references_samples():
    values, count = rng.normal(size=101), 20
    found, order = ends(values, count), np.sort(values)
    np.testing.assert_array_equal(values[found["top"]], order[::-1][:count])
    np.testing.assert_array_equal(values[found["bottom"]], order[:count])
    scaled = 0.5 * (1 - np.cos(np.pi * np.linspace(0, 1, num=count)))
    np.testing.assert_array_equal(values[found["spread"]], order[::-1][(scaled * 100).astype(int)])
    assert [len(of) for of in ends(values[:3], count).values()] == [3, 3, 3]


@pytest.mark.parametrize("place", [(EMBEDDING, EMBEDDING), (1, 2)])
def test_views_have_the_angles_of_the_contributions(study, place):
    dense = study.exact.total() if place[0] == EMBEDDING else study.exact.heads[:, place[0], place[1]]
    dense = dense.numpy() - dense.numpy()[study.stored.fit].mean(0)
    view = View(study.stored, *place, study.told[place].mean)
    own = np.concatenate(list(view.rows()))[5]
    expected = [cosine(row, dense[5]) for row in dense]
    np.testing.assert_allclose(view.cosines(own), expected, atol=1e-9)
    direction = study.told[place].components[1]
    np.testing.assert_allclose(view.scores(direction), dense @ direction, atol=1e-10)
    texts = rng.normal(size=(4, 24))
    np.testing.assert_allclose(view.seen(texts) @ own, texts @ dense[5], atol=1e-10)


def test_best_texts_of_an_explanation(tmp_path):
    rows = [
        {"layer": 0, "head": 1, "component": number, "pole": pole, "place": place, "strength": 0.5, "text": text}
        for number in (0, 1)
        for pole, names in (("top", "ab"), ("bottom", "yz"))
        for place, text in enumerate(names)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "table.parquet")
    found = best_texts(tmp_path / "table.parquet")
    assert found.loc[(0, 1, 1), ["top", "bottom", "strength"]].tolist() == ["a", "y", 0.5]


def test_words_that_the_demos_model_never_learnt(request):
    folder = request.config.rootpath / "config" / "demo"
    loaded = models.load(str(folder / "digits-clip.json"), str(folder / "balanced.safetensors"))
    assert unknown_words(loaded, ["a photo of a red digit", "cat fur"]) == []
    assert unknown_words(loaded, ["a photo of a zebra on grass"]) == ["zebra"]
    golden = request.config.rootpath / "tests" / "golden"
    other = models.load(str(golden / "model_config.json"), str(golden / "model.safetensors"))
    assert unknown_words(other, ["a zebra"]) == []
    assert json.dumps(unknown_words(loaded, ["un éléphant"]))
