"""Tables of an intervention: its units, and accuracy by setting, number of units, group and value of each factor."""

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.arrays import split_names, with_source
from clipspectra.evaluation import intervals
from clipspectra.evaluation.accuracy import group_masks

BAND = (2.5, 97.5)  # percentiles of the random draws
RANDOM_COLUMNS = ("random_variance", "random_shared")
CHANGE_COLUMNS = ("change", "change_low", "change_high", "p", "p_holm")


def role_groups(images, roles, manifest, by_group, dataset):
    """{role: {group: bool [image]}} of the roles' images: all, and with by_group each group of the manifest.

    manifest: its pieces. Raises InputError for images without a group, and for a group without images.
    """
    if not by_group:
        return {role: {"all": inside} for role, inside in roles.items()}
    names, count, ungrouped, first = set(), 0, 0, None
    for piece in manifest:
        blank = piece["image"][piece["group"] == ""]
        names, count, ungrouped = names | set(piece["group"]), count + len(piece), ungrouped + len(blank)
        first = blank.iloc[0] if first is None and len(blank) else first
    if ungrouped:
        raise InputError(
            f"{ungrouped} of the {count} images of {dataset} have no group, the first {first}; fill in the column "
            "'group' of the manifest, or set groups: false."
        )
    reserved = sorted({"all", "worst"} & names)
    if reserved:
        raise InputError(f"A group of {dataset} is called '{reserved[0]}', a word that the tables use; rename it.")
    masks = {}
    for role, inside in roles.items():
        masks[role] = {name: group & inside for name, group in group_masks(images).items()}
        for name in sorted(names):
            if not masks[role].get(name, np.zeros(1)).any():
                raise InputError(
                    f"The group '{name}' of {dataset} has no {role} images; take more of them under roles.{role}."
                )
    return masks


def check_about(about, values, intervention):
    """Raise InputError for a value in the intervention's `about` that is not among the prompts' {factor: values}."""
    for factor, names in about.items():
        unknown = sorted(set(names) - set(values[factor]))
        if unknown:
            known = ", ".join(values[factor])
            raise InputError(
                f"interventions.{intervention}.about: there is no {factor} '{unknown[0]}'; known: {known}."
            )


def accuracy(correct, groups):
    """Accuracy in % of the images of each group, and of the worst group where there are several: {group: […]}.

    correct: bool […, image]; groups: {name: bool [image]}, with "all"
    """
    percent = {name: 100 * correct[..., inside].mean(-1) for name, inside in groups.items()}
    group_percents = [percent[name] for name in groups if name != "all"]
    return percent | ({"worst": np.min(group_percents, axis=0)} if group_percents else {})


def group_columns(correct, before, groups):
    """{group: columns} of its images, accuracy and change from `before`, both bool [image], with intervals and p value.

    The worst group is that of each of the two; where they differ, the change is between different images. p_holm is
    corrected for the number of groups.
    """
    percent, columns = accuracy(correct, groups), {}
    for name, inside in groups.items():
        columns[name] = {"images": int(inside.sum())} | intervals.percent(correct[inside])
        columns[name] |= intervals.change(before[inside], correct[inside])
    names = [name for name in groups if name != "all"]
    if names:
        worst, worst_before = (min(names, key=accuracy(values, groups).get) for values in (correct, before))
        columns["worst"] = columns[worst]
        if worst != worst_before:
            change = intervals.change_between(before[groups[worst_before]], correct[groups[worst]])
            columns["worst"] = columns[worst] | change
        columns["worst"] = columns["worst"] | {"p": np.nan}  # picked after the fact: its own test says too little
    corrected = dict(zip(names, intervals.holm([columns[name]["p"] for name in names])))
    return {name: columns[name] | {"p_holm": corrected.get(name, np.nan)} for name in percent}


def beside_random(units, correct, before, draws, groups):
    """One row per group: accuracy with so many units and its change, and what as many random ones give.

    correct, before: bool [image]; draws: of random units [draw, image], or None; groups: {name: bool [image]}
    random, random_draws_low, random_draws_high: mean of the draws and the band that holds 95 % of them, blank without
    draws; random_as_high: % of the draws, the edit itself counted as one, that reach its accuracy
    """
    drawn = {} if draws is None else accuracy(draws, groups)
    for group, columns in group_columns(correct, before, groups).items():
        row = {"units": units, "group": group} | columns
        random = drawn.get(group, np.array([np.nan]))
        band = zip(("random_draws_low", "random_draws_high"), np.percentile(random, BAND))
        reached = 100 * (1 + (random >= columns["accuracy"] - 1e-9).sum()) / (1 + len(random))
        yield row | {"random": random.mean()} | dict(band) | {"random_as_high": reached if drawn else np.nan}


def curve(outcome, groups):
    """One row per role, number of units and group of an Outcome; groups: {role: {group: bool [image]}}."""
    for role, masks in groups.items():
        for number in outcome.steps:
            draws = outcome.draws.get(number)
            for row in beside_random(number, outcome.chosen[number], outcome.before, draws, masks):
                yield {"role": role} | row


def settings(prepared, outcome, groups):
    """One row per role, setting and group of an Outcome: as it is, before the last edit, edited, and what is beside it.

    Beside it are the rule at other ratios, the controls, and the best number of units: that of the worst group (or of
    all) on validation images, by their labels. The change is that from before the last edit, and of that state itself
    the one from the model as it is. variance: of the units, in % of all heads'; random_variance: that of the random
    units, random_shared: how many of these are the edit's own, in %; held, held_of_heads, held_of_all: what the units
    hold of the concept, see carriers.concept_components.
    """

    def with_units(units):
        number = len(units)
        return units, outcome.chosen[number], outcome.draws.get(number), [draw[:number] for draw in outcome.drawn]

    by_setting = {"as it is": ([], outcome.unedited, None, [])}
    if prepared.edits > 1:
        by_setting["before the last edit"] = [], outcome.before, None, []
    by_setting["edited"] = with_units(prepared.units[: prepared.chosen_count])
    for setting, (correct, draws, drawn) in outcome.alternatives.items():
        by_setting[setting] = prepared.alternatives[setting], correct, draws, drawn
    if "validation" in groups and len(outcome.chosen) > 1:
        validation_accuracy = {  # accuracy puts the worst group last
            number: list(accuracy(correct, groups["validation"]).values())[-1]
            for number, correct in outcome.chosen.items()
        }
        best = max(validation_accuracy, key=validation_accuracy.get)
        by_setting["best number, by validation labels"] = with_units(prepared.units[:best])
    for role, masks in groups.items():
        for setting, (units, correct, draws, drawn) in by_setting.items():
            before = outcome.unedited if setting == "before the last edit" else outcome.before
            columns = {"variance": prepared.variance_of(units)} | dict.fromkeys(RANDOM_COLUMNS, np.nan)
            if units and drawn:
                shared = [100 * len(set(draw) & set(units)) / len(units) for draw in drawn]
                variances = [prepared.variance_of(draw) for draw in drawn]
                columns |= dict(zip(RANDOM_COLUMNS, (np.mean(variances), np.mean(shared))))
            columns |= {name: share if setting == "edited" else np.nan for name, share in prepared.held().items()}
            columns |= dict.fromkeys(CHANGE_COLUMNS, np.nan) if setting == "as it is" else {}
            for row in beside_random(len(units), correct, before, draws if units else None, masks):
                yield {"role": role, "setting": setting} | row | columns


# Columns of value_counts that add up over values.
SUMS = [
    *("images", "correct_before", "gained", "lost", "called_before", "called_after"),
    *("cosine_before", "cosine_after"),
]


def value_counts(before, after, labels, scored, values):
    """One row per value of each factor: numbers of eval images, and sums of their cosines, before and after an edit.

    before, after: {factor: (value, cosine)} of `predictions`; labels: {factor: index of the correct value [image]}
    scored: the eval images, bool [image]; values: {factor: names in order}
    """
    for factor, names in values.items():
        correct = [value == labels[factor] for value, _ in (before[factor], after[factor])]
        for index, name in enumerate(names):
            inside = scored & (labels[factor] == index)
            row = {"role": "eval", "factor": factor, "value": name, "images": int(inside.sum())}
            row["correct_before"] = int(correct[0][inside].sum())
            row["gained"] = int((correct[1] & ~correct[0])[inside].sum())
            row["lost"] = int((correct[0] & ~correct[1])[inside].sum())
            for when, (value, cosine) in (("before", before[factor]), ("after", after[factor])):
                row[f"called_{when}"] = int((value[scored] == index).sum())
                row[f"cosine_{when}"] = cosine[inside].sum()
            yield row


def value_changes(counts, about):
    """What an edit changes: one row per value, one per factor for all images, and one for all that it is not about.

    counts: table of value_counts, with source columns in front; about: {factor: values that the edit targets}. Accuracy
    before and after, and the change, have their intervals; p_holm is corrected for the number of single values.
    """
    source, single = counts.columns[: counts.columns.get_loc("images")].drop(["factor", "value"]), []
    rows = []
    for factor, of_factor in counts.groupby("factor", sort=False):
        meant, total = of_factor["value"].isin(about.get(factor, [])), of_factor["images"].sum()
        sets = {value: of_factor["value"] == value for value in of_factor["value"]} | {"all": of_factor["images"] >= 0}
        if meant.any() and not meant.all():
            sets["all others"] = ~meant
        for value, inside in sets.items():
            sums, first = of_factor.loc[inside, SUMS].sum(), of_factor.iloc[0]
            images, gained, lost = (int(sums[name]) for name in ("images", "gained", "lost"))
            if images == 0:
                continue
            before = int(sums["correct_before"])
            row = dict(first[source]) | {"factor": factor, "value": value, "images": images}
            row["meant"] = "yes" if meant[inside].all() else "no"
            for when, correct in (("before", before), ("after", before + gained - lost)):
                bounds = (100 * bound for bound in intervals.wilson(correct, images))
                row |= intervals.columns(when, 100 * correct / images, *bounds)
            row |= intervals.change_of_counts(gained, lost, images)
            for when in ("before", "after"):
                row[f"called_{when}"] = 100 * sums[f"called_{when}"] / total
                row[f"cosine_{when}"] = sums[f"cosine_{when}"] / images
            rows.append(row)
            single.append(value not in ("all", "all others"))
    table, single = pd.DataFrame(rows), np.array(single)
    table["p_holm"] = np.nan
    table.loc[single, "p_holm"] = intervals.holm(table.loc[single, "p"])
    return table


def with_splits(table, source, roles, images):
    """A table with its source columns, role and the splits of the role's images in front.

    source: {column: value}; roles: {role: bool [image]}; images: table with their split
    """
    splits = {role: split_names(images[inside]) for role, inside in roles.items()}
    return with_source(table, source | {"role": table["role"], "split": table["role"].map(splits)})


def with_texts(units, texts):
    """A table of units with the columns of `texts`, of names at the ends of components, if it has any components."""
    if "component" not in units.columns:
        return units
    keys = list(units[["layer", "head", "component"]].itertuples(index=False, name=None))
    return units.assign(**{name: [names.get(key, "") for key in keys] for name, names in texts.items()})
