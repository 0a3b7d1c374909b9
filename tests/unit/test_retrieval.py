"""Queries and neighbours: equal to plain loops, with the reference's stopping rule and sampling."""

import json

import numpy as np
import pandas as pd
import pytest
from stored_small import stored_small

from clipspectra import InputError
from clipspectra.arrays import save_table
from clipspectra.concepts.neighbours import component_ends, name_table, picture_neighbours, picture_row, select_view
from clipspectra.concepts.retrieval import Components, View, best_texts, centred_queries, ends, trace
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.data.texts import unknown_words
from clipspectra.explanations.head import save_explanations
from clipspectra.towers import models

rng = np.random.default_rng(3)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    small = stored_small(folder)
    save_explanations(folder / "components.safetensors", small.explanations, {})
    small.components = Components.load(folder / "components.safetensors")
    return small


def test_components_are_those_of_the_heads(study):
    units, directions = study.components.units, study.components.directions
    assert {tuple(place) for place in units[:, :2]} == {place for place in study.explanations if place[0] >= 0}
    assert (units == np.array(sorted(map(tuple, units)))).all()
    for place, direction in zip(units, directions):
        np.testing.assert_allclose(direction, study.explanations[tuple(place[:2])].components[place[2]], atol=1e-7)


def cosine(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_a_trace_is_the_references_loop(study, share):
    """One component after another, by |score|, until the share of the reachable cosine."""
    query, directions = rng.normal(size=24), study.components.directions.astype(np.float64)
    traced = trace(query, study.components, share=share, most=1000, rng=np.random.default_rng(0))
    scores = directions @ query
    reachable = cosine(scores @ directions, query)
    order, rebuilt, cosines = np.argsort(-np.abs(scores)), np.zeros(24), []
    for place in order:
        rebuilt = rebuilt + scores[place] * directions[place]
        cosines.append(cosine(rebuilt, query))
        if cosines[-1] >= share * reachable:
            break
    assert traced.reachable == pytest.approx(reachable, abs=1e-6)
    assert len(traced.order) == len(cosines)
    np.testing.assert_array_equal(traced.order, order[: len(cosines)])
    np.testing.assert_allclose(traced.score, scores[traced.order], atol=1e-6)
    np.testing.assert_allclose(traced.cosine, cosines, atol=1e-6)
    assert traced.control.shape == (20, len(cosines))
    assert traced.control[:, 0].mean() < traced.cosine[0]
    again = trace(query, study.components, share=share, most=1000, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(traced.control, again.control)
    assert len(trace(query, study.components, share=1.0, most=7, rng=rng).order) == 7


def test_a_query_at_the_mean_is_refused(study):
    with pytest.raises(InputError, match="The query is the mean of all"):
        trace(np.zeros(24), study.components, rng=rng)


def test_queries_are_centred_by_the_mean_of_their_kind():
    features, mean = rng.normal(size=(9, 24)), rng.normal(size=24)
    np.testing.assert_allclose(
        centred_queries({"features": features[:2]}, features, mean), features[:2] - features.mean(0)
    )
    picture = rng.normal(size=(1, 24))
    centred = centred_queries({"embedding": picture, "z": None}, features, mean)
    np.testing.assert_allclose(centred[0], picture[0] / np.linalg.norm(picture) - mean)


def test_ends_are_the_references_samples():
    values, count = rng.normal(size=101), 20
    indices, order = ends(values, count), np.sort(values)
    np.testing.assert_array_equal(values[indices["top"]], order[::-1][:count])
    np.testing.assert_array_equal(values[indices["bottom"]], order[:count])
    scaled = 0.5 * (1 - np.cos(np.pi * np.linspace(0, 1, num=count)))
    np.testing.assert_array_equal(values[indices["spread"]], order[::-1][(scaled * 100).astype(int)])
    assert [len(rows) for rows in ends(values[:3], count).values()] == [3, 3, 3]


@pytest.mark.parametrize("place", [(EMBEDDING, EMBEDDING), (1, 2)])
def test_views_have_the_angles_of_the_contributions(study, place):
    dense = study.exact.total() if place[0] == EMBEDDING else study.exact.heads[:, place[0], place[1]]
    dense = dense.numpy() - dense.numpy()[study.stored.fit].mean(0)
    view = View(study.stored, *place, study.explanations[place].mean)
    own = np.concatenate(list(view.rows()))[5]
    expected = [cosine(row, dense[5]) for row in dense]
    np.testing.assert_allclose(view.cosines(own), expected, atol=1e-9)
    direction = study.explanations[place].components[1]
    np.testing.assert_allclose(view.scores(direction), dense @ direction, atol=1e-10)
    texts = rng.normal(size=(4, 24))
    np.testing.assert_allclose(view.coordinates(texts) @ own, texts @ dense[5], atol=1e-10)


TEXTS = rng.normal(size=(5, 24))


@pytest.mark.parametrize("unit", [(), (1, 2), (1, 2, 1)], ids=["embedding", "head", "component"])
def test_a_pictures_neighbours(study, unit):
    """A picture of the dataset: itself left out, the others by cosine, or by their distance from its score."""
    head, rows = unit[:2] or (EMBEDDING, EMBEDDING), np.flatnonzero(study.stored.scored)
    dense = (study.exact.heads[:, head[0], head[1]] if unit else study.exact.total()).numpy()
    dense, own = dense - dense[study.stored.fit].mean(0), rows[3]
    q = np.concatenate(list(study.stored.reduced(1)))[own]  # [head, coordinate + scalar]
    query = {"embedding": np.concatenate(list(study.stored.embeddings()))[own][None], "scalars": q[:1, -3:]}
    query["z"] = np.repeat(q[None, None, :, :-3], 3, axis=1)
    view, direction = select_view(study.stored, study.explanations, *unit)
    options = {"name": "me.png", "itself": rows == own, "count": 40}
    images, texts = name_table(rows.tolist()), name_table(range(5))
    table = picture_neighbours(view, direction, picture_row(view, query), images, texts, TEXTS, **options)
    if direction is None:
        scores, text_scores = np.array([cosine(dense[own], dense[row]) for row in rows]), TEXTS @ dense[own]
        order, text_order, end = np.argsort(-scores), np.argsort(-text_scores), "nearest"
    else:
        score, scores, text_scores = dense[own] @ direction, dense[rows] @ direction, TEXTS @ direction
        order, text_order = np.argsort(np.abs(scores - score)), np.argsort(-text_scores * np.sign(score))
        end, picture = "top" if score > 0 else "bottom", table[table["kind"] == "picture"]
        assert picture[["end", "name"]].to_numpy().tolist() == [["itself", "me.png"]]
        assert picture["score"].item() == pytest.approx(score)
    order = order[rows[order] != own]
    for kind, names, expected in (("image", rows[order], scores[order]), ("text", text_order, text_scores[text_order])):
        shown = table[table["kind"] == kind]
        assert shown["name"].tolist() == names.tolist()
        np.testing.assert_allclose(shown["score"], expected, atol=1e-9)
    assert set(table.loc[table["kind"] == "text", "end"]) == {end}


def test_the_ends_of_a_component(study):
    view, direction = select_view(study.stored, study.explanations, 2, 0, 0)
    images = name_table([f"{row}.png" for row in np.flatnonzero(study.stored.scored)])
    table = component_ends(view, direction, images, name_table(list("abcde")), TEXTS, count=2)
    scores = view.scores(direction)[study.stored.scored]
    top = table[(table["kind"] == "image") & (table["end"] == "top")]
    assert top["score"].tolist() == np.sort(scores)[::-1][:2].tolist()
    assert top["name"].tolist() == images["name"].iloc[np.argsort(-scores)[:2]].tolist()
    bottom = table[(table["kind"] == "text") & (table["end"] == "bottom")]
    assert bottom["name"].tolist() == ["abcde"[place] for place in np.argsort(TEXTS @ direction)[:2]]
    assert table["place"].tolist() == [0, 1] * 6
    with pytest.raises(InputError, match="no layer 2, head 9: layer 2 has the heads 0 to 3"):
        select_view(study.stored, study.explanations, 2, 9)


def test_best_texts_of_an_explanation(tmp_path):
    rows = [
        {"layer": 0, "head": 1, "component": number, "pole": pole, "place": place, "strength": 0.5, "text": text}
        | {"naming": naming, "named": number == 1}
        for naming, more in (("says", ""), ("fires_on", "!"))
        for number in (0, 1)
        for pole, names in (("top", "ab"), ("bottom", "yz"))
        for place, text in enumerate([name + more for name in names])
    ]
    save_table(tmp_path / "table.parquet", pd.DataFrame(rows))
    for naming, top, bottom in (("says", "a", "y"), ("fires_on", "a!", "y!")):
        texts = best_texts(tmp_path / "table.parquet", naming)
        assert texts.loc[(0, 1, 1), ["top", "bottom", "strength"]].tolist() == [top, bottom, 0.5]
        assert texts.loc[(0, 1, 0), "top"] == f"unnamed ({top})"  # no better than chance


def test_words_that_the_demos_model_never_learnt(request):
    folder = request.config.rootpath / "config" / "demo"
    loaded = models.load(str(folder / "digits-clip.json"), str(folder / "balanced.safetensors"))
    assert unknown_words(loaded, ["a photo of a red digit", "cat fur"]) == []
    assert unknown_words(loaded, ["a photo of a zebra on grass"]) == ["zebra"]
    golden = request.config.rootpath / "tests" / "golden"
    untrained = models.load(str(golden / "model_config.json"), str(golden / "model.safetensors"))
    assert unknown_words(untrained, ["a zebra"]) == []
    assert json.dumps(unknown_words(loaded, ["un éléphant"]))
