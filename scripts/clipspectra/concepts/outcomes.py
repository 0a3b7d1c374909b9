"""Interventions of the config: their units, and the zero-shot predictions with them and with random units."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from clipspectra.concepts.carriers import (
    LEAST_SHARE,
    component_table,
    concept_components,
    concept_directions,
    concept_shares,
    number_for_share,
)
from clipspectra.concepts.interventions import Edits, Intervention, check_units
from clipspectra.jobs import progress

DRAWS = 20  # of random units


def unit_counts(most):
    """Numbers of units along a curve, 0 to `most` or a little more: one by one, then in ever larger steps."""
    steps, number = [0], 0
    while number < most:
        number += max(1, 2 ** (number.bit_length() - 4))
        steps.append(number)
    return steps


def select_units(edit, components, stored, explanations, features, pool_mean, classifier):
    """(units in order, how many of them are chosen, table of them) for one edit of the config.

    components: component_table of all heads; features: of the concept's texts, if the edit has one [text, d_embed]
    """
    if "concept" in edit:
        directions = concept_directions(features, pool_mean)
        table = concept_components(
            concept_shares(components, stored, explanations, directions, classifier, edit["rank_by"])
        )
        units = list(map(tuple, table[["layer", "head", "component"]].to_numpy().tolist()))
        return units, number_for_share(table, edit["share"], edit["number"]), table
    if "mlps" in edit:
        return [], 0, pd.DataFrame({"mlps": ["all"]})
    if "all_but_last" in edit:
        first = stored.layers.stop - edit["all_but_last"]
        layers = [{"layer": layer, "head": "all"} for layer in range(first)]
        return [], 0, pd.DataFrame(layers, columns=["layer", "head"])
    units = check_units(edit.get("heads", edit.get("components", [])), explanations)
    table = pd.DataFrame(units, columns=["layer", "head", "component"][: len(units[0])])
    return units, len(units), table.merge(components, how="left") if "components" in edit else table


def random_candidates(edit, before, components):
    """Units of the last edit's kind to draw random ones from: all but those already held at their mean.

    Components with little of their head's variance are left out, as they would be no match. components: component_table
    """
    if "heads" in edit:
        units = sorted(set(map(tuple, components[["layer", "head"]].to_numpy().tolist())))
    elif "components" in edit or "concept" in edit:
        large = components[components["share_of_head"] >= LEAST_SHARE]
        units = map(tuple, large[["layer", "head", "component"]].to_numpy().tolist())
    else:
        units = []
    return [unit for unit in units if before.factor(unit)]


@dataclass
class PreparedIntervention:
    """An intervention of the config with its units selected.

    before: all edits but the last; edit, units, chosen_count: the last one, its units in order and how many are chosen
    candidates: units to draw random ones from, empty if the last edit has no units; edits: the number of edits
    table: the units of every edit in order, with the scores that selected them
    """

    before: Intervention
    edit: dict
    units: list
    chosen_count: int
    candidates: list
    edits: int
    table: pd.DataFrame

    def intervention(self, units, stored):
        """The Intervention of all edits, with these units in the last one."""
        return self.before.edited(self.edit, units, stored)


def prepare(edits, stored, explanations, features, pool_mean, classifier):
    """The edits of the config as a PreparedIntervention.

    explanations: {(layer, head): HeadExplanation} of all stored heads; features: of the texts of all concepts, in the
    order of the edits [text, d_embed]; pool_mean: of the text pool [d_embed]; classifier: [d_embed, class]
    """
    components, before, tables = component_table(stored, explanations), Intervention(), []
    concept_features = iter(features)
    for index, edit in enumerate(edits):
        texts = np.array([next(concept_features) for _ in edit.get("concept", [])])
        units, chosen_count, table = select_units(edit, components, stored, explanations, texts, pool_mean, classifier)
        places = np.arange(len(table))
        chosen = np.where((places < chosen_count) | (not units), "yes", "no")
        tables.append(table.assign(edit=index, do=edit["do"], place=places, chosen=chosen))
        if index < len(edits) - 1:
            before = before.edited(edit, units[:chosen_count], stored)
    table = pd.concat(tables, ignore_index=True)
    front = ["edit", "do", "place", "chosen"]
    table = table[[*front, *table.columns.drop(front)]]
    candidates = random_candidates(edit, before, components)
    return PreparedIntervention(before, edit, units, chosen_count, candidates, len(edits), table)


@dataclass
class Outcome:
    """Whether each image is classified correctly, bool arrays […, image].

    unedited: by the unedited model; before: with all edits but the last
    chosen: {number of the last edit's units: [image]}; draws: {number: [draw, image]} of as many random units
    steps: the numbers of units along a curve, the same for every seed
    """

    unedited: np.ndarray
    before: np.ndarray
    chosen: dict
    draws: dict
    steps: list


def evaluate(prepared, stored, explanations, classifier, labels, rng):
    """Outcome of a PreparedIntervention, with none to twice the chosen number of its units.

    classifier: [d_embed, class]; labels: index of the correct class [image]; rng: of the random units
    """
    steps = [number for number in unit_counts(max(2 * prepared.chosen_count, 16)) if number <= len(prepared.units)]
    numbers, candidates = sorted({*steps, prepared.chosen_count}), prepared.candidates
    draws = [[candidates[row] for row in rng.permutation(len(candidates))] for _ in range(DRAWS if candidates else 0)]
    orders = [prepared.units, *draws]
    # One flat list of interventions, each close to the one before it, so that one pass over the images serves all.
    planned_runs = [(order, number) for order, units in enumerate(orders) for number in numbers if number <= len(units)]
    interventions = [prepared.intervention(orders[order][:number], stored) for order, number in planned_runs]
    interventions = [Intervention(), prepared.before, *interventions]
    correct = np.zeros((len(interventions), len(labels)), bool)
    runs, length = Edits(stored, explanations, classifier).run(interventions), len(stored.chunks) * len(interventions)
    for rows, number, logits in progress(runs, "interventions", total=length, unit="edit"):
        correct[number, rows] = logits.argmax(1) == labels[rows]
    planned = dict(zip(planned_runs, correct[2:]))
    draws = {
        number: np.stack([planned[order, number] for order in range(1, len(orders))])
        for number in numbers
        if candidates and number <= len(candidates)
    }
    return Outcome(correct[0], correct[1], {number: planned[0, number] for number in numbers}, draws, steps)


def predictions(interventions, stored, explanations, classifiers, labels):
    """Predictions of several classifiers from the edited embeddings: a list of {factor: (value, cosine)}.

    classifiers: {factor: [d_embed, value]}; labels: {factor: index of the correct value [image]}
    value: index of the predicted one [image]; cosine: of the embedding with the text of the correct value [image]
    """
    chunks = [{factor: [] for factor in classifiers} for _ in interventions]
    for rows, number, embedding in Edits(stored, explanations).run(interventions):
        embedding = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
        for factor, classifier in classifiers.items():
            logits = embedding @ classifier
            cosine = np.take_along_axis(logits, labels[factor][rows, None], axis=1)[:, 0]
            chunks[number][factor].append((logits.argmax(1), cosine))
    return [{factor: tuple(map(np.concatenate, zip(*pairs))) for factor, pairs in edited.items()} for edited in chunks]
