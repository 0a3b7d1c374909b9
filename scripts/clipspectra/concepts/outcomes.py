"""Interventions of the config: their units, and the zero-shot predictions with them and with random units."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from clipspectra.concepts.carriers import (
    component_table,
    concept_components,
    concept_directions,
    concept_shares,
    number_for_share,
    units_of,
)
from clipspectra.concepts.interventions import Edits, Intervention, check_units
from clipspectra.evaluation import intervals
from clipspectra.jobs import progress

DRAWS = 100  # of random units
NEAREST = 10  # a random unit is drawn from so many whose variance is closest
RATIOS = (0.5, 2.0)  # at which the rule for a concept's components is tried too


def unit_counts(most):
    """Numbers of units along a curve, 0 to `most` or a little more: one by one, then in ever larger steps."""
    steps, number = [0], 0
    while number < most:
        number += max(1, 2 ** (number.bit_length() - 4))
        steps.append(number)
    return steps


def select_units(edit, components, stored, explanations, shares):
    """(units in order, how many of them are chosen, table of them) for one edit of the config.

    components: component_table of all heads; shares: table of concept_shares, if the edit has a concept
    """
    if "concept" in edit:
        table = concept_components(shares)
        return units_of(table), number_for_share(table, edit["share"], edit["number"]), table
    if "mlps" in edit:
        return [], 0, pd.DataFrame({"mlps": ["all"]})
    if "all_but_last" in edit:
        first = stored.layers.stop - edit["all_but_last"]
        layers = [{"layer": layer, "head": "all"} for layer in range(first)]
        return [], 0, pd.DataFrame(layers, columns=["layer", "head"])
    units = check_units(edit.get("heads", edit.get("components", [])), explanations)
    table = pd.DataFrame(units, columns=["layer", "head", "component"][: len(units[0])])
    return units, len(units), table.merge(components, how="left") if "components" in edit else table


def units_by_rule(edit, shares, ratio=1.0):
    """Units that the rule of an edit's concept chooses from a table of concept_shares; none if nothing passes."""
    table = concept_components(shares, ratio)
    return units_of(table)[: edit["number"] or number_for_share(table, edit["share"])] if len(table) else []


def variances(edit, before, components):
    """{unit: variance} of the units of the last edit's kind that are not yet held at their mean, in % of all heads'.

    components: of component_table; empty if the edit has no units that can be counted.
    """
    keys = ["layer", "head"] if "heads" in edit else ["layer", "head", "component"]
    if not {"heads", "components", "concept"} & set(edit):
        return {}
    table = components.groupby(keys, sort=False)["variance"].sum()
    units = zip((tuple(map(int, unit)) for unit in table.index), table)
    return {unit: variance for unit, variance in units if variance > 0 and before.factor(unit)}


def matched_units(units, variance, rng):
    """As many random units as `units`, each of about the variance of its counterpart and none twice, in a list.

    variance: {unit: variance} of all units to draw from, the counterparts themselves among them. Fewer units are drawn
    where there are no more.
    """
    candidates = sorted(variance, key=lambda unit: (variance[unit], unit))
    logarithms = np.log([variance[unit] for unit in candidates])
    free, drawn = np.ones(len(candidates), bool), []
    for unit in units[: len(candidates)]:
        counterpart = np.log(variance.get(unit, variance[candidates[0]]))  # one already held at its mean has none left
        distance = np.where(free, np.abs(logarithms - counterpart), np.inf)
        count = min(NEAREST, free.sum())
        choice = rng.choice(np.argpartition(distance, count - 1)[:count])
        free[choice] = False
        drawn.append(candidates[choice])
    return drawn


@dataclass
class PreparedIntervention:
    """An intervention of the config with its units selected.

    before: all edits but the last; edit, units, chosen_count: the last one, its units in order and how many are chosen
    variance: {unit: variance} of units to draw random ones from, empty if the last edit has no units
    edits: the number of edits; table: the units of every edit in order, with the scores that selected them
    alternatives: {setting: units} that the last edit is made on as well: another rule, or a control
    """

    before: Intervention
    edit: dict
    units: list
    chosen_count: int
    variance: dict
    edits: int
    table: pd.DataFrame
    alternatives: dict = field(default_factory=dict)

    def intervention(self, units, stored):
        """The Intervention of all edits, with these units in the last one."""
        return self.before.edited(self.edit, units, stored)

    def held(self):
        """{held, held_of_heads, held_of_all} in %: what the chosen units hold of their concept, NaN without one."""
        shares = dict.fromkeys(("held", "held_of_heads", "held_of_all"), np.nan)
        if "concept" in self.edit and self.chosen_count:
            last = self.table[self.table["edit"] == self.edits - 1].iloc[self.chosen_count - 1]
            shares = {name: 100 * float(last[name]) for name in shares}
        return shares

    def variance_of(self, units):
        """Sum of the variances of units, in % of all heads'; NaN if the last edit has no units."""
        return sum(self.variance.get(unit, 0.0) for unit in units) if self.variance else np.nan


def prepare(edits, stored, explanations, features, pool_mean, classifier, controls=()):
    """The edits of the config as a PreparedIntervention.

    explanations: {(layer, head): HeadExplanation} of all stored heads; features: of the texts of all concepts, in the
    order of the edits, and of the controls [text, d_embed]; pool_mean: of the text pool [d_embed]
    classifier: [d_embed, class]; controls: {name: texts} that the rule of the last edit's concept is applied to as well
    """
    components, before, tables = component_table(stored, explanations), Intervention(), []
    concept_features = iter(features)

    def shares_of(texts, ranking):
        directions = concept_directions(np.array([next(concept_features) for _ in texts]), pool_mean)
        return concept_shares(components, stored, explanations, directions, classifier, ranking)

    for index, edit in enumerate(edits):
        shares = shares_of(edit["concept"], edit["rank_by"]) if "concept" in edit else None
        units, chosen_count, table = select_units(edit, components, stored, explanations, shares)
        places = np.arange(len(table))
        chosen = np.where((places < chosen_count) | (not units), "yes", "no")
        tables.append(table.assign(edit=index, do=edit["do"], place=places, chosen=chosen))
        if index < len(edits) - 1:
            before = before.edited(edit, units[:chosen_count], stored)
    alternatives = {}
    if "concept" in edit and edit["number"] is None:
        for ratio in RATIOS:
            alternatives[f"edited, concept > {ratio:g} × classes"] = units_by_rule(edit, shares, ratio)
    for name, control in dict(controls).items():
        alternatives[f"control: {name}"] = units_by_rule(edit, shares_of(control, edit["rank_by"]))
    table = pd.concat(tables, ignore_index=True)
    front = ["edit", "do", "place", "chosen"]
    table = table[[*front, *table.columns.drop(front)]]
    variance = variances(edit, before, components)
    return PreparedIntervention(before, edit, units, chosen_count, variance, len(edits), table, alternatives)


@dataclass
class Outcome:
    """Whether each image is classified correctly, bool arrays […, image].

    unedited: by the unedited model; before: with all edits but the last
    chosen: {number of the last edit's units: [image]}; draws: {number: [draw, image]} of as many random units
    steps: the numbers of units along a curve, the same for every seed; drawn: units of each draw in order, in a list
    alternatives: {setting: (correct [image], draws of as many random units [draw, image], their units in a list)}
    """

    unedited: np.ndarray
    before: np.ndarray
    chosen: dict
    draws: dict
    steps: list
    drawn: list = field(default_factory=list)
    alternatives: dict = field(default_factory=dict)


def evaluate(prepared, stored, explanations, classifier, labels, rng):
    """Outcome of a PreparedIntervention, with none to twice the chosen number of its units.

    classifier: [d_embed, class]; labels: index of the correct class [image]; rng: of the random units
    """
    steps = [number for number in unit_counts(max(2 * prepared.chosen_count, 16)) if number <= len(prepared.units)]
    numbers, variance = sorted({*steps, prepared.chosen_count}), prepared.variance
    draws = [matched_units(prepared.units[: numbers[-1]], variance, rng) for _ in range(DRAWS if variance else 0)]
    orders = [prepared.units, *draws]
    # One flat list of interventions, each close to the one before it, so that one pass over the images serves all.
    planned_runs = [(order, number) for order, units in enumerate(orders) for number in numbers if number <= len(units)]
    interventions = [prepared.intervention(orders[order][:number], stored) for order, number in planned_runs]
    others = [
        [units, *(matched_units(units, variance, rng) for _ in range(DRAWS))]
        for units in prepared.alternatives.values()
    ]
    others_flat = [prepared.intervention(units, stored) for group in others for units in group]
    interventions = [Intervention(), prepared.before, *others_flat, *interventions]
    correct = np.zeros((len(interventions), len(labels)), bool)
    runs, length = Edits(stored, explanations, classifier).run(interventions), len(stored.chunks) * len(interventions)
    for rows, number, logits in progress(runs, "interventions", total=length, unit="edit"):
        correct[number, rows] = logits.argmax(1) == labels[rows]
    alternatives = {}
    for number, (setting, group) in enumerate(zip(prepared.alternatives, others)):
        edited, *drawn = correct[2 + number * (DRAWS + 1) :][: DRAWS + 1]
        alternatives[setting] = edited, np.stack(drawn), group[1:]
    planned = dict(zip(planned_runs, correct[2 + len(others_flat) :]))
    by_number = {
        number: np.stack([planned[order, number] for order in range(1, len(orders))])
        for number in numbers
        if variance and number <= len(variance)
    }
    chosen = {number: planned[0, number] for number in numbers}
    return Outcome(correct[0], correct[1], chosen, by_number, steps, draws, alternatives)


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


def group_changes(intervention, stored, explanations, classifier, labels, groups, meant=()):
    """Accuracy before and after an intervention, one row for each group of images.

    classifier: [d_embed, class]; labels: index of the correct class [image]; groups: {(factor, value): bool [image]}
    meant: the values that the edit is about

    Columns: factor, value, images, meant (yes, no), before, after and change, each with its interval, p and p_holm,
    corrected for the number of groups. figures.concepts.intervention_values draws it.
    """
    for head, factors in intervention.heads.items():
        check_units([head, *((*head, number) for number in factors.components)], explanations)
    correct = np.zeros((2, len(labels)), bool)
    for rows, number, logits in Edits(stored, explanations, classifier).run([Intervention(), intervention]):
        correct[number, rows] = logits.argmax(1) == labels[rows]
    table = []
    for (factor, value), inside in groups.items():
        row = {"factor": factor, "value": value, "images": int(inside.sum())}
        row["meant"] = "yes" if value in meant else "no"
        for when, answers in zip(("before", "after"), correct[:, inside]):
            row |= {name.replace("accuracy", when): number for name, number in intervals.percent(answers).items()}
        table.append(row | intervals.change(*correct[:, inside]))
    table = pd.DataFrame(table)
    return table.assign(p_holm=intervals.holm(table["p"]))
