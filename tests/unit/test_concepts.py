"""Components of a concept: their shares add up, equal those of dense contributions, and are counted by the rule."""

import numpy as np
import pandas as pd
import pytest
from stored_small import stored_small

from clipspectra import InputError
from clipspectra.concepts.carriers import (
    component_table,
    concept_components,
    concept_directions,
    concept_shares,
    number_for_share,
)
from clipspectra.concepts.interventions import Intervention
from clipspectra.concepts.outcomes import (
    Outcome,
    PreparedIntervention,
    evaluate,
    matched_units,
    predictions,
    prepare,
    select_units,
    unit_counts,
    variances,
)
from clipspectra.concepts.tables import (
    accuracy,
    check_about,
    curve,
    role_groups,
    settings,
    value_changes,
    value_counts,
    with_splits,
    with_texts,
)
from clipspectra.evaluation.intervals import change
from clipspectra.figures.concepts import edit_labels, neighbours_title, query_title, scores_note

rng = np.random.default_rng(7)
TEXTS, CLASSIFIER = rng.normal(size=(3, 24)), rng.normal(size=(24, 4))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    small = stored_small(tmp_path_factory.mktemp("study"))
    small.table = component_table(small.stored, small.explanations)
    return small


def test_the_components_of_all_heads_hold_their_variance(study):
    assert study.table["variance"].sum() == pytest.approx(100)
    heads = study.exact.heads.numpy()[study.stored.fit].var(0).sum(2)  # [layer, head]
    shares = study.table.groupby(["layer", "head"])["variance"].sum().to_numpy()
    np.testing.assert_allclose(shares, 100 * heads.ravel() / heads.sum(), atol=1e-9)


@pytest.mark.parametrize("ranking", ["evidence", "sway"])
def test_shares_are_those_of_dense_contributions(study, ranking):
    directions = concept_directions(TEXTS, None)
    np.testing.assert_allclose(directions, TEXTS - TEXTS.mean(0))
    table = concept_shares(study.table, study.stored, study.explanations, directions, CLASSIFIER, ranking)
    fit = study.stored.fit
    centred = study.exact.heads.numpy()[fit] - study.exact.heads.numpy()[fit].mean(0)
    whole = study.exact.total().numpy()[fit]
    whole = whole - whole.mean(0)
    classes = CLASSIFIER.T - CLASSIFIER.mean(1)
    readout = directions if ranking == "evidence" else classes
    total = (whole @ directions.T).T @ (whole @ readout.T)
    heads = table.groupby(["layer", "head"])["share"].sum()
    for (layer, head), share in heads.items():  # a head's components add up to the head
        covariance = (whole @ directions.T).T @ (centred[:, layer, head] @ readout.T)
        assert share == pytest.approx((covariance * total).sum() / (total**2).sum(), abs=1e-9)
    mlps = study.exact.mlps.numpy()[fit]
    covariance = (whole @ directions.T).T @ ((mlps - mlps.mean(0)).sum(1) @ readout.T)
    rest = (covariance * total).sum() / (total**2).sum()
    assert heads.sum() + rest == pytest.approx(1, abs=1e-9)  # and all parts to the whole
    row = table.iloc[17]
    direction = study.explanations[row["layer"], row["head"]].components[int(row["component"])]
    assert row["concept"] == pytest.approx(((directions @ direction) ** 2).sum() / (directions**2).sum())
    assert row["classes"] == pytest.approx(((classes @ direction) ** 2).sum() / (classes**2).sum())


def test_averaging_prompts_changes_no_components(study):
    """Texts that differ less because more prompts were averaged lie along the same components."""
    directions = concept_directions(TEXTS, None)
    one = concept_shares(study.table, study.stored, study.explanations, directions, CLASSIFIER, "evidence")
    mean = CLASSIFIER.mean(1, keepdims=True)
    averaged = concept_shares(
        study.table, study.stored, study.explanations, directions, 0.1 * (CLASSIFIER - mean), "evidence"
    )
    pd.testing.assert_frame_equal(concept_components(one), concept_components(averaged))
    assert len(concept_components(one, 2.0)) < len(concept_components(one)) < len(concept_components(one, 0.5))


def test_the_direction_of_one_text_is_from_the_pools_mean():
    np.testing.assert_allclose(concept_directions(TEXTS[:1], TEXTS.mean(0)), TEXTS[:1] - TEXTS.mean(0))


def test_the_rule_counts_what_holds_the_share():
    table = pd.DataFrame({"share": [0.1, -0.2, 0.5, 0.3, 0.4], "concept": [2.0, 2, 2, 2, 1], "classes": 1.5})
    table = concept_components(table)
    assert table["share"].tolist() == [0.5, 0.3, 0.1]
    np.testing.assert_allclose(table["held"], [5 / 9, 8 / 9, 1])
    np.testing.assert_allclose(table["held_of_heads"], [5 / 11, 8 / 11, 9 / 11])
    np.testing.assert_allclose(table["held_of_all"], [0.5, 0.8, 0.9])
    assert [number_for_share(table, share) for share in (0.5, 0.8, 0.9, 1.0)] == [1, 2, 3, 3]
    assert number_for_share(table, 0.9, 2) == 2
    with pytest.raises(InputError, match="4 components are asked for, but only 3 carry the concept"):
        number_for_share(table, 0.9, 4)
    with pytest.raises(InputError, match="No component carries the concept"):
        number_for_share(table[:0], 0.9)


def test_random_units_are_drawn_from_those_not_held_at_their_mean(study):
    before = Intervention().edited({"do": "remove", "all_but_last": 1}, [], study.stored)
    assert list(variances({"heads": []}, before, study.table)) == [(2, head) for head in range(4)]
    assert {unit[0] for unit in variances({"components": []}, before, study.table)} == {2}
    assert variances({"mlps": True}, before, study.table) == {}
    edit = {"do": "remove", "heads": [[2, 1], [0, 3]]}
    units, chosen_count, table = select_units(edit, study.table, study.stored, study.explanations, None)
    assert (units, chosen_count, len(table)) == ([(2, 1), (0, 3)], 2, 2)


def test_random_units_have_the_variance_of_their_counterparts():
    """Of 300 units whose variances span five orders of magnitude; each counterpart is drawn as often as its like."""
    variance = {(0, 0, number): value for number, value in enumerate(10 ** rng.uniform(-4, 1, 300))}
    units = [list(variance)[number] for number in rng.permutation(300)[:30]]
    draws = [matched_units(units, variance, rng) for _ in range(400)]
    ratios = np.log10([[variance[drawn] / variance[unit] for unit, drawn in zip(units, draw)] for draw in draws])
    assert np.abs(ratios).max() < 0.6
    assert np.abs(ratios.mean()) < 0.02
    assert all(len(set(draw)) == 30 for draw in draws)
    # Each is drawn from its 10 nearest: itself, and 9 of which every tenth is the counterpart of another one.
    assert np.mean([len(set(draw) & set(units)) for draw in draws]) == pytest.approx(30 * 0.19, abs=1)
    assert sorted(matched_units(list(variance), variance, rng)) == sorted(variance)


def test_random_units_show_what_the_rule_is_worth(study):
    """A concept's units are no better than chance where the labels are drawn at random."""
    prepared = prepare(
        [{"do": "amplify", "by": 30, "concept": ["a", "b", "c"], "rank_by": "evidence", "share": 0.9, "number": None}],
        *(study.stored, study.explanations, [*TEXTS, *rng.normal(size=(2, 24))], np.zeros(24), CLASSIFIER),
        {"other": ["d", "e"]},
    )
    names = ["edited, concept > 0.5 × classes", "edited, concept > 2 × classes", "control: other"]
    assert list(prepared.alternatives) == names
    assert prepared.variance_of(list(prepared.variance)) == pytest.approx(100)
    reached = []
    for _ in range(12):
        outcome = evaluate(prepared, study.stored, study.explanations, CLASSIFIER, rng.integers(0, 4, 40), rng)
        rows = pd.DataFrame(settings(prepared, outcome, {"eval": {"all": np.ones(40, bool)}})).set_index("setting")
        edited = rows.loc["edited"]
        assert edited["random_variance"] == pytest.approx(edited["variance"], rel=0.35)
        assert rows.loc[names, "random_variance"].tolist() == pytest.approx(
            rows.loc[names, "variance"].tolist(), rel=0.6
        )
        assert rows.loc[names, "random"].notna().all()
        reached.append(edited["random_as_high"])
    assert 25 < np.mean(reached) < 80


def test_accuracy_by_group_and_the_worst():
    correct = np.array([[1, 1, 0, 0], [1, 1, 1, 0]], bool)
    groups = {"all": np.ones(4, bool), "a": np.array([1, 1, 0, 0], bool), "b": np.array([0, 0, 1, 1], bool)}
    scores = {name: percent.tolist() for name, percent in accuracy(correct, groups).items()}
    assert scores == {"all": [50, 75], "a": [100, 100], "b": [0, 50], "worst": [0, 50]}
    assert "worst" not in accuracy(correct, {"all": groups["all"]})


def test_missing_and_empty_groups_are_named():
    manifest = pd.DataFrame({"image": list("pqrs"), "group": ["a", "b", "", "a"]})
    roles = {"eval": np.array([1, 0, 0, 1], bool), "validation": np.array([0, 1, 0, 0], bool)}
    with pytest.raises(InputError, match="1 of the 4 images of birds have no group, the first r; fill in"):
        role_groups(manifest, roles, [manifest[:2], manifest[2:]], True, "birds")
    with pytest.raises(InputError, match="The group 'b' of birds has no eval images; take more"):
        role_groups(manifest, roles, [manifest[manifest["group"] != ""]], True, "birds")
    assert role_groups(manifest, roles, [manifest], False, "birds")["eval"]["all"].sum() == 2
    with pytest.raises(InputError, match="A group of birds is called 'worst', a word that the tables use"):
        role_groups(manifest, roles, [manifest.assign(group=["a", "b", "worst", "a"])], True, "birds")


def test_values_that_change_and_values_that_stay(study):
    """Two factors before and after: without an edit nothing changes; the values the edit targets are marked."""
    classifiers = {"class": CLASSIFIER, "size": rng.normal(size=(24, 2))}
    labels = {"class": rng.integers(0, 4, 40), "size": rng.integers(0, 2, 40)}
    values, scored = {"class": list("abcd"), "size": ["big", "small"]}, study.stored.scored
    edited = Intervention().scale_mlps(0).scale(3, [(2, 1)])
    before, after = predictions([Intervention(), edited], study.stored, study.explanations, classifiers, labels)
    whole = study.exact.total().numpy()
    np.testing.assert_array_equal(before["size"][0], (whole @ classifiers["size"]).argmax(1))
    text = CLASSIFIER.T[labels["class"]]
    np.testing.assert_allclose(before["class"][1], (whole * text).sum(1), atol=1e-9)
    nothing = pd.DataFrame(value_counts(before, before, labels, scored, values))
    rows = value_changes(nothing, {}).set_index(["factor", "value"])
    assert (rows["change"] == 0).all()
    assert (rows["change_low"] < 0).all()  # no change in a few images does not show that there is none
    counts = pd.DataFrame(value_counts(before, after, labels, scored, values)).assign(model="m")
    rows = value_changes(counts[["model", *counts.columns[:-1]]], {"class": ["b"]}).set_index(["factor", "value"])
    assert rows.index[rows["meant"] == "yes"].tolist() == [("class", "b")]
    others = scored & (labels["class"] != 1)
    share = (after["class"][0] == labels["class"])[others].mean()
    assert rows.loc[("class", "all others"), "after"] == pytest.approx(100 * share)
    row = rows.loc[("class", "all")]
    whole_change = change(*((value == labels["class"])[scored] for value, _ in (before["class"], after["class"])))
    assert row[list(whole_change)].tolist() == pytest.approx(list(whole_change.values()))
    assert row["cosine_after"] == pytest.approx(after["class"][1][scored].mean())
    assert rows.loc[("class", "b"), "called_after"] == pytest.approx(100 * (after["class"][0][scored] == 1).mean())
    assert rows.loc[("size", "all"), "images"] == scored.sum()
    assert rows["p_holm"].isna().sum() == 3  # sums are not tested beside their values


def test_settings_and_curve_of_an_outcome():
    """The best number is that of the worst group on validation images; random units only where as many were drawn."""
    validation = {
        "all": np.array([0, 0, 1, 1], bool),
        "a": np.array([0, 0, 1, 0], bool),
        "b": np.array([0, 0, 0, 1], bool),
    }
    groups = {"eval": {"all": np.array([1, 1, 0, 0], bool)}, "validation": validation}
    chosen = {0: np.array([0, 0, 1, 0], bool), 1: np.array([1, 0, 1, 1], bool), 2: np.array([1, 1, 0, 0], bool)}
    draws = {0: np.array([chosen[0]] * 2), 1: np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)}
    outcome = Outcome(chosen[0], chosen[0], chosen, draws, [0, 1, 2], [[(0, 0), (0, 1)], [(0, 1), (0, 0)]])
    prepared = PreparedIntervention(Intervention(), {}, [(0, 0), (0, 1)], 2, {(0, 0): 2.0, (0, 1): 1.0}, 2, None)
    table = pd.DataFrame(settings(prepared, outcome, groups)).set_index(["role", "setting", "group"])
    names = ["as it is", "before the last edit", "edited", "best number, by validation labels"]
    assert table.loc["eval"].index.tolist() == [(name, "all") for name in names]
    assert table.loc["eval"]["units"].tolist() == [0, 0, 2, 1]
    assert table.loc["eval"]["accuracy"].tolist() == [0, 0, 100, 50]
    assert table.loc[("eval", names[3], "all"), "random"] == 50
    assert np.isnan(table.loc[("eval", "edited", "all"), "random"])
    assert table.loc["eval", "variance"].tolist() == [0, 0, 3, 2]
    assert table.loc[("eval", names[3], "all"), ["random_variance", "random_shared"]].tolist() == [1.5, 50]
    assert table.loc[("eval", names[3], "all"), "random_as_high"] == pytest.approx(100 * 2 / 3)
    assert table.loc[("eval", "edited", "all"), ["change", "p"]].tolist() == [100, 0.5]  # two images, both gained
    assert table.loc[("validation", "edited", "worst"), "change"] == 0  # of b, of a after it: other images
    assert table.loc["validation", "images"].tolist() == [2, 1, 1, 1] * 4  # the worst group is one of them
    assert np.isnan(table.loc[("validation", "edited", "worst"), "p"])
    rows = pd.DataFrame(curve(outcome, groups)).set_index(["role", "units", "group"])
    assert rows.loc[("validation", 1, "worst"), "accuracy"] == 100
    assert len(rows) == 3 * (1 + 4)


def test_tables_name_their_source_and_splits():
    images = pd.DataFrame({"split": ["test", "val", "test", "train"]})
    roles = {"eval": np.array([1, 0, 1, 0], bool), "validation": np.array([0, 1, 0, 1], bool)}
    rows = [("eval", "a"), ("eval", "worst"), ("validation", "all")]
    table = with_splits(pd.DataFrame(rows, columns=["role", "group"]), {"model": "m", "seed": 3}, roles, images)
    assert table.columns.tolist() == ["model", "seed", "role", "split", "group"]
    assert table["split"].tolist() == ["test", "test", "train+val"]
    assert (table["seed"] == 3).all()


def test_units_are_named_by_the_texts_of_their_components():
    texts = pd.DataFrame({"top": ["a"], "bottom": ["z"]}, index=pd.MultiIndex.from_tuples([(1, 0, 2)]))
    units = pd.DataFrame({"layer": [1, 1], "head": [0, 0], "component": [2, np.nan]})
    assert with_texts(units, texts)[["top", "bottom"]].to_numpy().tolist() == [["a", "z"], ["", ""]]
    heads = units[["layer", "head"]]
    assert with_texts(heads, texts) is heads


def test_the_values_an_intervention_is_about_must_exist():
    check_about({"class": ["a"]}, {"class": ["a", "b"]}, "mine")
    with pytest.raises(InputError, match=r"interventions.mine.about: there is no class 'z'; known: a, b"):
        check_about({"class": ["z"]}, {"class": ["a", "b"]}, "mine")


def test_the_steps_between_unit_counts_grow():
    assert unit_counts(12) == list(range(13))
    assert unit_counts(40)[-3:] == [32, 36, 40]
    assert len(unit_counts(2000)) < 90


def test_titles_and_labels_of_an_entry():
    entry = {"model": "demo", "image": "some/where/me.png"}
    assert query_title(entry) == "What carries 'me.png' in demo"
    assert query_title({"model": "demo", "text": "a" * 61}) == f"What carries '{'a' * 58} …' in demo"
    assert neighbours_title(entry) == "Nearest to 'me.png' by the whole embedding of demo"
    assert neighbours_title(entry | {"layer": 2, "head": 0}) == "Nearest to 'me.png' by head 0 of layer 2 of demo"
    unit = {"model": "demo", "layer": 2, "head": 0, "component": 1}
    assert neighbours_title(unit) == "The ends of component 1 of head 0 of layer 2 of demo"
    assert scores_note(unit) == "projections on the component"
    assert scores_note(unit | entry) == "projections on the component; black frame: the picture itself"
    assert edit_labels({"do": "keep", "heads": [[1, 0]]}) == ("heads", "heads kept", "")
    edit = {"do": "remove", "concept": ["a", "b"], "share": 0.9, "rank_by": "sway", "number": None}
    assert edit_labels(edit) == ("components", "the concept's components removed", "90 % of the sway")
    assert edit_labels(edit | {"number": 3})[2] == ""
