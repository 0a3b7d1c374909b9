"""Components of a concept: their shares add up, follow from dense contributions, and are counted by the rule."""

import numpy as np
import pandas as pd
import pytest
from stored_small import stored_small

from clipspectra import InputError
from clipspectra.concepts.carriers import carriers, component_table, concept_directions, concept_shares, count_enough
from clipspectra.concepts.interventions import Intervention
from clipspectra.concepts.outcomes import (
    accuracy,
    check_about,
    unit_counts,
    random_pool,
    readings,
    role_groups,
    select_units,
    value_changes,
)
from clipspectra.evaluation.accuracy import accuracy_change

rng = np.random.default_rng(7)
TEXTS, CLASSIFIER = rng.normal(size=(3, 24)), rng.normal(size=(24, 4))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    found = stored_small(tmp_path_factory.mktemp("study"))
    found.table = component_table(found.stored, found.told)
    return found


def test_components_hold_all_of_their_head(study):
    shares = study.table.groupby(["layer", "head"])["share_of_head"].sum()
    assert len(shares) == 12
    np.testing.assert_allclose(shares, 1, atol=1e-9)


@pytest.mark.parametrize("ranking", ["evidence", "sway"])
def test_shares_are_those_of_dense_contributions(study, ranking):
    directions = concept_directions(TEXTS, None)
    np.testing.assert_allclose(directions, TEXTS - TEXTS.mean(0))
    table = concept_shares(study.table, study.stored, study.told, directions, CLASSIFIER, ranking)
    fit = study.stored.fit
    away = study.exact.heads.numpy()[fit] - study.exact.heads.numpy()[fit].mean(0)
    whole = study.exact.total().numpy()[fit]
    whole = whole - whole.mean(0)
    classes = CLASSIFIER.T - CLASSIFIER.mean(1)
    readout = directions if ranking == "evidence" else classes
    total = (whole @ directions.T).T @ (whole @ readout.T)
    heads = table.groupby(["layer", "head"])["share"].sum()
    for (layer, head), share in heads.items():  # a head's components add up to the head
        of_head = (whole @ directions.T).T @ (away[:, layer, head] @ readout.T)
        assert share == pytest.approx((of_head * total).sum() / (total**2).sum(), abs=1e-9)
    mlps = study.exact.mlps.numpy()[fit]
    scale_mlps = (whole @ directions.T).T @ ((mlps - mlps.mean(0)).sum(1) @ readout.T)
    rest = (scale_mlps * total).sum() / (total**2).sum()
    assert heads.sum() + rest == pytest.approx(1, abs=1e-9)  # and all parts to the whole
    row = table.iloc[17]
    direction = study.told[row["layer"], row["head"]].components[int(row["component"])]
    assert row["concept"] == pytest.approx(((directions @ direction) ** 2).mean())
    assert row["classes"] == pytest.approx(((classes @ direction) ** 2).mean())


def test_one_text_is_taken_from_the_pools_mean():
    np.testing.assert_allclose(concept_directions(TEXTS[:1], TEXTS.mean(0)), TEXTS[:1] - TEXTS.mean(0))


def test_the_rule_counts_what_holds_the_share():
    table = pd.DataFrame({"share": [0.1, -0.2, 0.5, 0.3, 0.4], "concept": [2.0, 2, 2, 2, 1], "classes": 1.5})
    found = carriers(table)
    assert found["share"].tolist() == [0.5, 0.3, 0.1]
    np.testing.assert_allclose(found["held"], [5 / 9, 8 / 9, 1])
    assert [count_enough(found, share) for share in (0.5, 0.8, 0.9, 1.0)] == [1, 2, 3, 3]
    assert count_enough(found, 0.9, 2) == 2
    with pytest.raises(InputError, match="4 components are asked for, but only 3 carry the concept"):
        count_enough(found, 0.9, 4)
    with pytest.raises(InputError, match="No component carries the concept"):
        count_enough(found[:0], 0.9)


def test_random_units_are_none_that_are_held_already(study):
    before = Intervention().edited({"do": "remove", "all_but_last": 1}, [], study.stored)
    assert random_pool({"heads": []}, before, study.table) == [(2, head) for head in range(4)]
    pool = random_pool({"components": []}, before, study.table)
    assert {unit[0] for unit in pool} == {2}
    assert len(pool) == ((study.table["layer"] == 2) & (study.table["share_of_head"] >= 0.01)).sum()
    assert random_pool({"mlps": True}, before, study.table) == []
    edit = {"do": "remove", "heads": [[2, 1], [0, 3]]}
    units, wanted, table = select_units(edit, study.table, study.stored, study.told, [], None, CLASSIFIER)
    assert (units, wanted, len(table)) == ([(2, 1), (0, 3)], 2, 2)


def test_accuracy_by_group_and_the_worst():
    found = np.array([[1, 1, 0, 0], [1, 1, 1, 0]], bool)
    groups = {"all": np.ones(4, bool), "a": np.array([1, 1, 0, 0], bool), "b": np.array([0, 0, 1, 1], bool)}
    scores = {name: values.tolist() for name, values in accuracy(found, groups).items()}
    assert scores == {"all": [50, 75], "a": [100, 100], "b": [0, 50], "worst": [0, 50]}
    assert "worst" not in accuracy(found, {"all": groups["all"]})


def test_missing_and_empty_groups_are_named():
    manifest = pd.DataFrame({"image": list("pqrs"), "group": ["a", "b", "", "a"]})
    roles = {"eval": np.array([1, 0, 0, 1], bool), "validation": np.array([0, 1, 0, 0], bool)}
    with pytest.raises(InputError, match="1 of the 4 images of birds have no group, the first r; fill"):
        role_groups(manifest, roles, manifest, True, "birds")
    with pytest.raises(InputError, match="The group 'b' of birds has no eval images; take more"):
        role_groups(manifest, roles, manifest[manifest["group"] != ""], True, "birds")
    assert role_groups(manifest, roles, manifest, False, "birds")["eval"]["all"].sum() == 2
    with pytest.raises(InputError, match="A group of birds is called 'worst', which the tables need"):
        role_groups(manifest, roles, manifest.assign(group=["a", "b", "worst", "a"]), True, "birds")


def test_the_change_of_matched_pairs_has_a_width_even_without_change():
    before = np.array([1, 1, 1, 0] * 50, bool)
    middle, low, high = accuracy_change(before, before)
    assert low < middle == 0 < high < 1.5
    assert accuracy_change(before | True, before | True)[1:] == (pytest.approx(-1.96 / 2.02, abs=0.01), 0)
    after = before.copy()
    after[:6] = True
    after[8:11] = False
    middle, low, high = accuracy_change(before, after)
    assert middle == pytest.approx(100 * (after.mean() - before.mean()))
    assert low < middle < high


def test_what_moves_and_what_stays(study):
    """Values of two factors before and after: an edit of nothing changes nothing, and the aim is told from the rest."""
    classifiers = {"class": CLASSIFIER, "size": rng.normal(size=(24, 2))}
    truths = {"class": rng.integers(0, 4, 40), "size": rng.integers(0, 2, 40)}
    values, scored = {"class": list("abcd"), "size": ["big", "small"]}, study.stored.scored
    edited = Intervention().scale_mlps(0).scale(3, [(2, 1)])
    same, other = readings([Intervention(), edited], study.stored, study.told, classifiers, truths)
    whole = study.exact.total().numpy()
    np.testing.assert_array_equal(same["size"][0], (whole @ classifiers["size"]).argmax(1))
    text = CLASSIFIER.T[truths["class"]]
    np.testing.assert_allclose(same["class"][1], (whole * text).sum(1), atol=1e-9)
    rows = pd.DataFrame(value_changes(same, same, truths, scored, values, {})).set_index(["factor", "value"])
    assert (rows["change"] == 0).all()
    rows = pd.DataFrame(value_changes(same, other, truths, scored, values, {"class": ["b"]}))
    rows = rows.set_index(["factor", "value"])
    assert rows.index[rows["meant"] == "yes"].tolist() == [("class", "b")]
    others = scored & (truths["class"] != 1)
    after = (other["class"][0] == truths["class"])[others].mean()
    assert rows.loc[("class", "all others"), "after"] == pytest.approx(100 * after)
    assert rows.loc[("size", "all"), "images"] == scored.sum()


def test_what_an_intervention_is_about_must_exist():
    check_about({"class": ["a"]}, {"class": ["a", "b"]})
    with pytest.raises(InputError, match="about class 'z', but its values are a, b"):
        check_about({"class": ["z"]}, {"class": ["a", "b"]})
    with pytest.raises(InputError, match="about 'hue', but there are prompts for class"):
        check_about({"hue": ["z"]}, {"class": ["a", "b"]})


def test_the_grid_grows():
    assert unit_counts(12) == list(range(13))
    assert unit_counts(40)[-3:] == [32, 36, 40]
    assert len(unit_counts(2000)) < 90
