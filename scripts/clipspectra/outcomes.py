"""What interventions do to the zero-shot accuracy: unit by unit, beside random units, by group and by value."""

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.concepts import LEAST_SHARE, carried, carriers, directions_of, enough
from clipspectra.evaluate import change, members
from clipspectra.interventions import Edits, check_units
from clipspectra.jobs import progress

DRAWS = 20  # of random units
BAND = (2.5, 97.5)  # percentiles of the draws


def grid(most):
    """Numbers of units along a curve, 0 to `most` or a little more: one by one, then in ever larger steps."""
    steps, number = [0], 0
    while number < most:
        number += max(1, 2 ** (number.bit_length() - 4))
        steps.append(number)
    return steps


def units_of(edit, every, stored, told, features, pool_mean, classifier):
    """(units in order, how many of them are wanted, table of them) of one edit of the config.

    every: component_table of all heads; features: of the edit's concept, if it has one [text, d_embed]
    """
    if "concept" in edit:
        directions = directions_of(features, pool_mean)
        table = carriers(carried(every, stored, told, directions, classifier, edit["rank_by"]))
        units = list(map(tuple, table[["layer", "head", "component"]].to_numpy().tolist()))
        return units, enough(table, edit["share"], edit["number"]), table
    units = check_units(edit.get("heads", edit.get("components", [])), told)
    columns = ["layer", "head", "component"][: len(units[0]) if units else 0]
    table = pd.DataFrame(units, columns=columns)
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


def correct(interventions, stored, told, classifier, right):
    """Whether each image is classified right after each of the interventions, bool [intervention, image]."""
    found, length = np.zeros((len(interventions), len(right)), bool), len(stored.chunks) * len(interventions)
    runs = Edits(stored, told, classifier).run(interventions)
    for rows, number, logits in progress(runs, "interventions", total=length, unit="edit"):
        found[number, rows] = logits.argmax(1) == right[rows]
    return found


def accuracy(found, groups):
    """Accuracy in % of the images of each group, and of the worst group where there are several: {group: […]}.

    found: bool […, image]; groups: {name: bool [image]}, "all" among them
    """
    of_group = {name: 100 * found[..., inside].mean(-1) for name, inside in groups.items()}
    several = [of_group[name] for name in groups if name != "all"]
    return of_group | ({"worst": np.min(several, axis=0)} if several else {})


def groups_of(images, roles, manifest, wanted, dataset):
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
    found = {}
    for role, inside in roles.items():
        found[role] = {name: of_group & inside for name, of_group in members(images).items()}
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
    """One row a group: accuracy with so many units, and mean and band of as many random ones.

    right: bool [image]; draws: {number of units: bool [draw, image]}; groups: {name: bool [image]}
    """
    random = accuracy(draws[units], groups) if units in draws else {}
    for group, value in accuracy(right, groups).items():
        row = {"units": units, "group": group, "accuracy": value}
        if random:
            low, high = np.percentile(random[group], BAND)
            row |= {"random": random[group].mean(), "random_low": low, "random_high": high}
        yield row


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


def by_value(before, after, truths, scored, values, about):
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
            row |= dict(zip(("change", "change_low", "change_high"), change(*right)))
            for when, (value, cosine) in (("before", before[factor]), ("after", after[factor])):
                row[f"called_{when}"] = 100 * np.isin(value[scored], places).mean()
                row[f"cosine_{when}"] = cosine[inside].mean()
            yield row


def settings(wanted, untouched, before, chosen, draws, groups):
    """One row a setting, role and group: as it is, before the last edit, edited, and with the best number of units.

    wanted: number of units; untouched, before: bool [image], before None if there is one edit only
    chosen: {number: bool [image]}; draws: {number: bool [draw, image]}; groups: {role: {group: bool [image]}}
    The best number is that of the worst group (or of all) on validation images, by their labels.
    """
    found = {"as it is": (0, untouched)} | ({"before the last edit": (0, before)} if before is not None else {})
    found["edited"] = wanted, chosen[wanted]
    if "validation" in groups and len(chosen) > 1:
        scores = {number: list(accuracy(right, groups["validation"]).values())[-1] for number, right in chosen.items()}
        best = max(scores, key=scores.get)
        found["best number, by validation labels"] = best, chosen[best]
    for role, of_role in groups.items():
        for setting, (units, right) in found.items():
            for row in beside_random(units, right, draws if units else {}, of_role):
                yield {"role": role, "setting": setting} | row
