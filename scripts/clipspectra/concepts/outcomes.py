"""What interventions do to the zero-shot accuracy: unit by unit, beside random units, by group and by value."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.concepts.carriers import (
    LEAST_SHARE,
    carriers,
    component_table,
    concept_directions,
    concept_shares,
    count_enough,
)
from clipspectra.concepts.interventions import Edits, Intervention, check_units
from clipspectra.evaluation.accuracy import accuracy_change, group_masks
from clipspectra.jobs import progress

DRAWS = 20  # of random units
BAND = (2.5, 97.5)  # percentiles of the draws


def unit_counts(most):
    """Numbers of units along a curve, 0 to `most` or a little more: one by one, then in ever larger steps."""
    steps, number = [0], 0
    while number < most:
        number += max(1, 2 ** (number.bit_length() - 4))
        steps.append(number)
    return steps


def select_units(edit, every, stored, told, features, pool_mean, classifier):
    """(units in order, how many of them are wanted, table of them) of one edit of the config.

    every: component_table of all heads; features: of the edit's concept, if it has one [text, d_embed]
    """
    if "concept" in edit:
        directions = concept_directions(features, pool_mean)
        table = carriers(concept_shares(every, stored, told, directions, classifier, edit["rank_by"]))
        units = list(map(tuple, table[["layer", "head", "component"]].to_numpy().tolist()))
        return units, count_enough(table, edit["share"], edit["number"]), table
    if "mlps" in edit:
        return [], 0, pd.DataFrame({"mlps": ["all"]})
    if "all_but_last" in edit:
        first = stored.layers.stop - edit["all_but_last"]
        layers = [{"layer": layer, "head": "all"} for layer in range(first)]
        return [], 0, pd.DataFrame(layers, columns=["layer", "head"])
    units = check_units(edit.get("heads", edit.get("components", [])), told)
    table = pd.DataFrame(units, columns=["layer", "head", "component"][: len(units[0])])
    return units, len(units), table.merge(every, how="left") if "components" in edit else table


def random_pool(edit, before, every):
    """Units of the last edit's kind that random ones are drawn from: none of those that are held at their mean.

    Components are those that hold some of their head: small ones would be no match.
    """
    if "heads" in edit:
        units = sorted(set(map(tuple, every[["layer", "head"]].to_numpy().tolist())))
    elif "components" in edit or "concept" in edit:
        large = every[every["share_of_head"] >= LEAST_SHARE]
        units = map(tuple, large[["layer", "head", "component"]].to_numpy().tolist())
    else:
        units = []
    return [unit for unit in units if before.factor(unit)]


@dataclass
class PreparedIntervention:
    """An intervention of the config with its units found.

    before: all edits but the last; edit, units, wanted: the last one, its units in order and how many are wanted
    pool: units that random ones are drawn from, empty where the last edit has none; edits: how many there are
    table: the units of every edit in order, with what chose them
    """

    before: Intervention
    edit: dict
    units: list
    wanted: int
    pool: list
    edits: int
    table: pd.DataFrame

    def made(self, units, stored):
        """The whole intervention, with these units in the last edit."""
        return self.before.edited(self.edit, units, stored)


def prepare(edits, stored, told, features, pool_mean, classifier):
    """The edits of the config as PreparedIntervention.

    told: {(layer, head): methods.HeadExplanation} of all stored heads; features: of all the edits' concepts' texts, in order
    [text, d_embed]; pool_mean: of the text pool [d_embed]; classifier: [d_embed, class]
    """
    every, before, tables, left = component_table(stored, told), Intervention(), [], iter(features)
    for place, edit in enumerate(edits):
        of_edit = np.array([next(left) for _ in edit.get("concept", [])])
        units, wanted, table = select_units(edit, every, stored, told, of_edit, pool_mean, classifier)
        numbers = np.arange(len(table))
        chosen = np.where((numbers < wanted) | (not units), "yes", "no")
        tables.append(table.assign(edit=place, do=edit["do"], place=numbers, chosen=chosen))
        if place < len(edits) - 1:
            before = before.edited(edit, units[:wanted], stored)
    table = pd.concat(tables, ignore_index=True)
    front = ["edit", "do", "place", "chosen"]
    table = table[[*front, *table.columns.drop(front)]]
    return PreparedIntervention(before, edit, units, wanted, random_pool(edit, before, every), len(edits), table)


@dataclass
class Outcome:
    """Whether each image is classified right, bool arrays […, image].

    untouched: by the model as it is; before: with all edits but the last
    chosen: {number of the last edit's units: [image]}; draws: {number: [draw, image]} of as many random ones
    steps: the numbers along a curve, which have those of any other seed in common
    """

    untouched: np.ndarray
    before: np.ndarray
    chosen: dict
    draws: dict
    steps: list


def evaluate(ready, stored, told, classifier, right, rng):
    """Outcome, of an intervention made ready, with none to twice the wanted number of its units. right: class [image]."""
    steps = [number for number in unit_counts(max(2 * ready.wanted, 16)) if number <= len(ready.units)]
    numbers, pool = sorted({*steps, ready.wanted}), ready.pool
    orders = [ready.units] + [[pool[row] for row in rng.permutation(len(pool))] for _ in range(DRAWS if pool else 0)]
    # One flat list of interventions, each near the one before it, so that one pass over the images makes all.
    plan = [(order, number) for order, units in enumerate(orders) for number in numbers if number <= len(units)]
    interventions = [ready.made(orders[order][:number], stored) for order, number in plan]
    interventions = [Intervention(), ready.before, *interventions]
    found = np.zeros((len(interventions), len(right)), bool)
    runs, length = Edits(stored, told, classifier).run(interventions), len(stored.chunks) * len(interventions)
    for rows, number, logits in progress(runs, "interventions", total=length, unit="edit"):
        found[number, rows] = logits.argmax(1) == right[rows]
    of_plan = dict(zip(plan, found[2:]))
    draws = {
        number: np.stack([of_plan[order, number] for order in range(1, len(orders))])
        for number in numbers
        if pool and number <= len(pool)
    }
    return Outcome(found[0], found[1], {number: of_plan[0, number] for number in numbers}, draws, steps)


def accuracy(found, groups):
    """Accuracy in % of the images of each group, and of the worst group where there are several: {group: […]}.

    found: bool […, image]; groups: {name: bool [image]}, "all" among them
    """
    of_group = {name: 100 * found[..., inside].mean(-1) for name, inside in groups.items()}
    several = [of_group[name] for name in groups if name != "all"]
    return of_group | ({"worst": np.min(several, axis=0)} if several else {})


def role_groups(images, roles, manifest, wanted, dataset):
    """{role: {group: bool [image]}} of the roles' images: all, and if groups are wanted each group of the manifest.

    Raises InputError for images without a group, and for a group without images.
    """
    if not wanted:
        return {role: {"all": inside} for role, inside in roles.items()}
    bare = manifest["image"][manifest["group"] == ""]
    if len(bare):
        raise InputError(
            f"{len(bare)} of the {len(manifest)} images of {dataset} have no group, the first {bare.iloc[0]}; fill the "
            "manifest's column 'group', or set groups: false."
        )
    taken = sorted({"all", "worst"} & set(manifest["group"]))
    if taken:
        raise InputError(
            f"A group of {dataset} is called '{taken[0]}', which the tables need for themselves; rename it."
        )
    found = {}
    for role, inside in roles.items():
        found[role] = {name: of_group & inside for name, of_group in group_masks(images).items()}
        for name in sorted(set(manifest["group"])):
            if not found[role].get(name, np.zeros(1)).any():
                raise InputError(
                    f"The group '{name}' of {dataset} has no {role} images; take more of them under roles.{role}."
                )
    return found


def check_about(about, values):
    """Raise InputError for a value that the intervention is about, but that the prompts do not have."""
    for factor, names in about.items():
        if factor not in values:
            raise InputError(f"The intervention is about '{factor}', but there are prompts for {', '.join(values)}.")
        unknown = sorted(set(names) - set(values[factor]))
        if unknown:
            raise InputError(
                f"The intervention is about {factor} '{unknown[0]}', but its values are {', '.join(values[factor])}."
            )


def beside_random(units, right, draws, groups):
    """One row a group: accuracy with so many units, and mean and band of as many random ones, NaN if there are none.

    right: bool [image]; draws: {number of units: bool [draw, image]}; groups: {name: bool [image]}
    """
    random = accuracy(draws[units], groups) if units in draws else {}
    for group, value in accuracy(right, groups).items():
        of_random = random.get(group, np.array([np.nan]))  # blank where there are none
        row = {"units": units, "group": group, "accuracy": value, "random": of_random.mean()}
        yield row | dict(zip(("random_low", "random_high"), np.percentile(of_random, BAND)))


def readings(interventions, stored, told, classifiers, truths):
    """What the classifiers read of the edited embeddings, normalised: a list of {factor: (value, cosine)}.

    classifiers: {factor: [d_embed, value]}; truths: {factor: number of the right value [image]}
    value: the predicted one [image]; cosine: of the embedding with the right value's text [image]
    """
    found = [{factor: [] for factor in classifiers} for _ in interventions]
    for rows, number, values in Edits(stored, told).run(interventions):
        embedding = values / np.linalg.norm(values, axis=1, keepdims=True)
        for factor, classifier in classifiers.items():
            logits = embedding @ classifier
            own = np.take_along_axis(logits, truths[factor][rows, None], axis=1)[:, 0]
            found[number][factor].append((logits.argmax(1), own))
    return [{factor: tuple(map(np.concatenate, zip(*parts))) for factor, parts in one.items()} for one in found]


def value_changes(before, after, truths, scored, values, about):
    """One row a value of each factor, and one for all that the edit is not about: how accuracy and naming change.

    before, after: {factor: (value, cosine)} of `readings`; scored: images that count, bool [image]
    values: {factor: names in order}; about: {factor: names that the edit is meant to move}
    """
    for factor, names in values.items():
        meant = [names.index(name) for name in about.get(factor, [])]
        rows = {name: [place] for place, name in enumerate(names)}
        rows["all others" if meant else "all"] = [place for place in range(len(names)) if place not in meant]
        for name, places in rows.items():
            inside = scored & np.isin(truths[factor], places)
            if not inside.any():
                continue
            right = [(value == truths[factor])[inside] for value, _ in (before[factor], after[factor])]
            row = {"factor": factor, "value": name, "meant": "yes" if set(places) <= set(meant) else "no"}
            row |= {"images": int(inside.sum()), "before": 100 * right[0].mean(), "after": 100 * right[1].mean()}
            row |= dict(zip(("change", "change_low", "change_high"), accuracy_change(*right)))
            for when, (value, cosine) in (("before", before[factor]), ("after", after[factor])):
                row[f"called_{when}"] = 100 * np.isin(value[scored], places).mean()
                row[f"cosine_{when}"] = cosine[inside].mean()
            yield row


def curve(found, groups):
    """One row a role, number of units and group, of a Outcome; groups: {role: {group: bool [image]}}."""
    for role, of_role in groups.items():
        for number in found.steps:
            for row in beside_random(number, found.chosen[number], found.draws, of_role):
                yield {"role": role} | row


def settings(ready, found, groups):
    """One row a role, setting and group, of a Outcome: as it is, before the last edit, edited, with the best number.

    The best number is that of the worst group (or of all) on validation images, by their labels.
    """
    shown = {"as it is": (0, found.untouched)} | (
        {"before the last edit": (0, found.before)} if ready.edits > 1 else {}
    )
    shown["edited"] = ready.wanted, found.chosen[ready.wanted]
    if "validation" in groups and len(found.chosen) > 1:
        scores = {
            number: list(accuracy(right, groups["validation"]).values())[-1] for number, right in found.chosen.items()
        }
        best = max(scores, key=scores.get)
        shown["best number, by validation labels"] = best, found.chosen[best]
    for role, of_role in groups.items():
        for setting, (units, right) in shown.items():
            for row in beside_random(units, right, found.draws if units else {}, of_role):
                yield {"role": role, "setting": setting} | row
