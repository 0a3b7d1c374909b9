"""Edits of heads, components and MLPs: equal to editing the dense contributions, in float64."""

import numpy as np
import pytest
from stored_small import stored_small

from clipspectra import InputError
from clipspectra.concepts.interventions import Edits, Intervention, check_units

rng = np.random.default_rng(11)
HEADS = [(1, 0), (2, 3)]
COMPONENTS = [(1, 0, 2), (1, 0, 0), (0, 1, 1), (2, 2, 0)]
PLANS = {
    "nothing": [],
    "heads removed": [({"do": "remove"}, HEADS)],
    "components removed": [({"do": "remove"}, COMPONENTS)],
    "components inverted": [({"do": "invert"}, COMPONENTS)],
    "a head amplified": [({"do": "amplify", "by": 2.5}, HEADS[:1])],
    "heads kept": [({"do": "keep"}, HEADS)],
    "components kept": [({"do": "keep"}, COMPONENTS)],
    "as published": [
        ({"do": "remove", "all_but_last": 1}, []),
        ({"do": "remove", "mlps": True}, []),
        ({"do": "remove"}, HEADS),
    ],
    "one after another": [
        ({"do": "remove"}, COMPONENTS[:1]),
        ({"do": "amplify", "by": 3.0}, HEADS),
        ({"do": "amplify", "by": 0.5, "mlps": True}, []),
        ({"do": "invert"}, COMPONENTS),
        ({"do": "keep"}, [*HEADS, (0, 1, 1)]),
    ],
}


@pytest.fixture(scope="module", params=[0, 1], ids=["all layers", "last layers"])
def study(request, tmp_path_factory):
    return stored_small(tmp_path_factory.mktemp("study"), first=request.param)


def edited_by_hand(study, plan):
    """The dense contributions, edited one by one, added up and normalised."""
    stored, first = study.stored, study.stored.layers.start
    heads, mlps = study.exact.heads.numpy().copy(), study.exact.mlps.numpy().copy()
    means = heads[stored.fit].mean(0), mlps[stored.fit].mean(0)
    for edit, units in plan:
        factor = {"remove": 0, "invert": -1, "amplify": edit.get("by"), "keep": None}[edit["do"]]
        if "mlps" in edit:
            mlps = means[1] + factor * (mlps - means[1])
            continue
        if "all_but_last" in edit:
            last = 3 - edit["all_but_last"]
            heads[:, :last] = means[0][:last] + factor * (heads[:, :last] - means[0][:last])
            continue
        centred = heads - means[0]
        if edit["do"] == "keep":
            kept = np.zeros_like(centred)
            for layer, head, *component in units:
                part = centred[:, layer, head]
                if component:
                    direction = study.explanations[layer, head].components[component[0]]
                    part = kept[:, layer, head] + np.outer(part @ direction, direction)
                kept[:, layer, head] = part
            heads = means[0] + kept
            continue
        for layer, head, *component in units:
            part = centred[:, layer, head]
            if component:
                direction = study.explanations[layer, head].components[component[0]]
                part = np.outer(part @ direction, direction)
            heads[:, layer, head] += (factor - 1) * part
    assert first == 0 or all(unit[0] >= first for _, units in plan for unit in units)
    total = heads.sum((1, 2)) + mlps.sum(1)
    return total / np.linalg.norm(total, axis=1, keepdims=True)


@pytest.mark.parametrize("name", PLANS)
def test_edits_equal_edits_of_the_dense_contributions(study, name):
    first = study.stored.layers.start
    plan = [(edit, [unit for unit in units if unit[0] >= first]) for edit, units in PLANS[name]]
    intervention = Intervention()
    for edit, units in plan:
        intervention = intervention.edited(edit, check_units(units, study.explanations), study.stored)
    embeddings = Edits(study.stored, study.explanations).embeddings(intervention)
    np.testing.assert_allclose(embeddings, edited_by_hand(study, plan), atol=1e-12)
    if not plan:
        unedited = study.model.encode_image(study.images, normalize=True).detach().numpy()
        np.testing.assert_allclose(embeddings, unedited, atol=1e-12)


def test_edits_commute(study):
    units = [unit for unit in (*HEADS, *COMPONENTS) if unit[0] >= study.stored.layers.start]
    forward, backward = Intervention().scale_mlps(0.3), Intervention()
    for unit in units:
        forward = forward.scale(0.5 + units.index(unit), [unit])
    for unit in units[::-1]:
        backward = backward.scale(0.5 + units.index(unit), [unit])
    edits = Edits(study.stored, study.explanations)
    expected = edits.embeddings(forward)
    np.testing.assert_allclose(edits.embeddings(backward.scale_mlps(0.3)), expected, atol=1e-12)


def test_a_run_of_many_equals_runs_of_each(study):
    """A list of interventions, each computed from the one before it, equals each one alone, with a readout."""
    units = [unit for unit in (*HEADS, *COMPONENTS) if unit[0] >= study.stored.layers.start]
    edits = Edits(study.stored, study.explanations, rng.normal(size=(24, 5)))
    interventions = [Intervention().scale(0, units[:count]) for count in range(len(units) + 1)]
    interventions += [edited.scale_mlps(0.3).scale_early(2.0) for edited in interventions[::-1]] + [Intervention()]
    many = [[] for _ in interventions]
    for _, number, outputs in edits.run(interventions):
        many[number].append(outputs)
    for intervention, outputs in zip(interventions, many):
        alone = [output for _, _, output in edits.run([intervention])]
        np.testing.assert_allclose(np.concatenate(outputs), np.concatenate(alone), atol=1e-12)


@pytest.mark.parametrize(
    ("units", "sentence"),
    [
        ([(7, 0)], r"no layer 7, head 0: the stored layers are \d to 2"),
        ([(2, 9)], "no layer 2, head 9: layer 2 has the heads 0 to 3"),
        ([(2, 1, 99)], r"no layer 2, head 1, component 99: that head has \d+ components"),
        ([(2, 1), (2, 3), (2, 1)], "layer 2, head 1 is listed twice"),
    ],
)
def test_units_that_do_not_exist_are_named(study, units, sentence):
    with pytest.raises(InputError, match=sentence):
        check_units(units, study.explanations)


def test_edits_that_the_stored_layers_do_not_allow_are_refused(study):
    count = len(study.stored.layers)
    with pytest.raises(InputError, match=f"all_but_last is {count + 1}, but only {count} layers are stored"):
        Intervention().edited({"do": "remove", "all_but_last": count + 1}, [], study.stored)
    with pytest.raises(InputError, match="'keep' goes with heads, components or a concept"):
        Intervention().edited({"do": "keep", "mlps": True}, [], study.stored)
