"""Tables of an intervention: its units, and accuracy by setting, number of units, group and value of each factor."""

import numpy as np

from clipspectra import InputError
from clipspectra.arrays import split_names, with_source
from clipspectra.evaluation.accuracy import accuracy_change, group_masks

BAND = (2.5, 97.5)  # percentiles of the random draws


def role_groups(images, roles, manifest, by_group, dataset):
    """{role: {group: bool [image]}} of the roles' images: all, and with by_group each group of the manifest.

    Raises InputError for images without a group, and for a group without images.
    """
    if not by_group:
        return {role: {"all": inside} for role, inside in roles.items()}
    ungrouped = manifest["image"][manifest["group"] == ""]
    if len(ungrouped):
        raise InputError(
            f"{len(ungrouped)} of the {len(manifest)} images of {dataset} have no group, the first "
            f"{ungrouped.iloc[0]}; fill in the column 'group' of the manifest, or set groups: false."
        )
    reserved = sorted({"all", "worst"} & set(manifest["group"]))
    if reserved:
        raise InputError(f"A group of {dataset} is called '{reserved[0]}', a word that the tables use; rename it.")
    masks = {}
    for role, inside in roles.items():
        masks[role] = {name: group & inside for name, group in group_masks(images).items()}
        for name in sorted(set(manifest["group"])):
            if not masks[role].get(name, np.zeros(1)).any():
                raise InputError(
                    f"The group '{name}' of {dataset} has no {role} images; take more of them under roles.{role}."
                )
    return masks


def check_about(about, values):
    """Raise InputError for a factor or value in `about` that is not among the prompts' values {factor: names}."""
    for factor, names in about.items():
        if factor not in values:
            raise InputError(f"The intervention is about '{factor}', but there are prompts for {', '.join(values)}.")
        unknown = sorted(set(names) - set(values[factor]))
        if unknown:
            raise InputError(
                f"The intervention is about {factor} '{unknown[0]}', but its values are {', '.join(values[factor])}."
            )


def accuracy(correct, groups):
    """Accuracy in % of the images of each group, and of the worst group where there are several: {group: […]}.

    correct: bool […, image]; groups: {name: bool [image]}, with "all"
    """
    percent = {name: 100 * correct[..., inside].mean(-1) for name, inside in groups.items()}
    group_percents = [percent[name] for name in groups if name != "all"]
    return percent | ({"worst": np.min(group_percents, axis=0)} if group_percents else {})


def beside_random(units, correct, draws, groups):
    """One row per group: accuracy with so many units, and mean and band of as many random ones, NaN if there are none.

    correct: bool [image]; draws: {number of units: bool [draw, image]}; groups: {name: bool [image]}
    """
    random_accuracy = accuracy(draws[units], groups) if units in draws else {}
    for group, percent in accuracy(correct, groups).items():
        drawn = random_accuracy.get(group, np.array([np.nan]))  # blank where there are none
        row = {"units": units, "group": group, "accuracy": percent, "random": drawn.mean()}
        yield row | dict(zip(("random_low", "random_high"), np.percentile(drawn, BAND)))


def curve(outcome, groups):
    """One row per role, number of units and group of an Outcome; groups: {role: {group: bool [image]}}."""
    for role, masks in groups.items():
        for number in outcome.steps:
            for row in beside_random(number, outcome.chosen[number], outcome.draws, masks):
                yield {"role": role} | row


def settings(prepared, outcome, groups):
    """One row per role, setting and group of an Outcome: as it is, before the last edit, edited, with the best number.

    The best number is that of the worst group (or of all) on validation images, by their labels.
    """
    correct_by_setting = {"as it is": (0, outcome.unedited)}
    if prepared.edits > 1:
        correct_by_setting["before the last edit"] = 0, outcome.before
    correct_by_setting["edited"] = prepared.chosen_count, outcome.chosen[prepared.chosen_count]
    if "validation" in groups and len(outcome.chosen) > 1:
        validation_accuracy = {  # accuracy puts the worst group last
            number: list(accuracy(correct, groups["validation"]).values())[-1]
            for number, correct in outcome.chosen.items()
        }
        best = max(validation_accuracy, key=validation_accuracy.get)
        correct_by_setting["best number, by validation labels"] = best, outcome.chosen[best]
    for role, masks in groups.items():
        for setting, (units, correct) in correct_by_setting.items():
            for row in beside_random(units, correct, outcome.draws if units else {}, masks):
                yield {"role": role, "setting": setting} | row


def value_changes(before, after, labels, scored, values, about):
    """One row per value of each factor, and one for all that the edit is not about: what changes.

    before, after: {factor: (value, cosine)} of `predictions`; labels: {factor: index of the correct value [image]}
    scored: the eval images, bool [image]; values: {factor: names in order}; about: {factor: names the edit targets}
    """
    for factor, names in values.items():
        target_indices = [names.index(name) for name in about.get(factor, [])]
        rows = {name: [index] for index, name in enumerate(names)}
        rows["all others" if target_indices else "all"] = sorted({*range(len(names))} - {*target_indices})
        for name, indices in rows.items():
            inside = scored & np.isin(labels[factor], indices)
            if not inside.any():
                continue
            correct = [(value == labels[factor])[inside] for value, _ in (before[factor], after[factor])]
            row = {"role": "eval", "factor": factor, "value": name}
            row |= {"meant": "yes" if set(indices) <= set(target_indices) else "no", "images": int(inside.sum())}
            row |= {"before": 100 * correct[0].mean(), "after": 100 * correct[1].mean()}
            row |= dict(zip(("change", "change_low", "change_high"), accuracy_change(*correct)))
            for when, (value, cosine) in (("before", before[factor]), ("after", after[factor])):
                row[f"called_{when}"] = 100 * np.isin(value[scored], indices).mean()
                row[f"cosine_{when}"] = cosine[inside].mean()
            yield row


def with_images(table, source, roles, images, groups):
    """A table with its source columns, role and splits in front, and the number of images of each role's groups.

    source: {column: value}; roles: {role: bool [image]}; images: table with their split; groups: of `role_groups`
    """
    splits = {role: split_names(images[inside]) for role, inside in roles.items()}
    table = table.assign(split=table["role"].map(splits))
    if "group" in table.columns:
        sizes = {(role, name): inside.sum() for role, masks in groups.items() for name, inside in masks.items()}
        sizes |= {(role, "worst"): masks["all"].sum() for role, masks in groups.items()}
        table["images"] = [sizes[key] for key in zip(table["role"], table["group"])]
    return with_source(table, source | {"role": table["role"], "split": table["split"]})


def with_texts(units, texts):
    """A table of units with the texts at both ends of its components, if it has any; texts: table of `best_texts`."""
    if "component" not in units.columns:
        return units
    keys = list(units[["layer", "head", "component"]].itertuples(index=False, name=None))
    return units.assign(**{end: [texts[end].get(key, "") for key in keys] for end in ("top", "bottom")})
