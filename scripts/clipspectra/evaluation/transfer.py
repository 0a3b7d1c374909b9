"""How far a basis fitted on one dataset holds on another: its share of the variance, its likeness, its names.

A basis is the components of all heads, as directions. What is frozen are the components, and with means "travelled" the
means too; with means "own" these are of the dataset that is scored. All that is needed of its images are moments, and
the sums that names follow from.
"""

from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.evaluation.stability import by_chance, matched
from clipspectra.explanations.naming import TextPool, activities, text_scores
from clipspectra.explanations.spectral import highest

BASES = {
    "own": "components of the dataset that is scored",
    "travelled": "components of the other dataset, frozen",
    "weights": "components of the head's value-output map, without data",
    "random": "random directions of the span of the dataset that is scored",
}
# What is scored of each basis but the random one: whose components, about whose means.
SETTINGS = [
    ("own", "own"),
    ("travelled", "travelled"),
    ("travelled", "own"),
    ("weights", "travelled"),
    ("weights", "own"),
]
NAMING = "fires_on"  # which depends on images; what a component says is the same on all


def check_alike(own, travelled, files):
    """Raise InputError unless two StoredActivations and files of explanations are of one model, with the same layers.

    files: {path: metadata}
    """
    for path, metadata in files.items():
        if metadata.get("sha256", "") != own.sha256:
            raise InputError(f"{path} is of other weights than {own.basis_path}; remove it, and run again.")
    if own.names != travelled.names:
        raise InputError(
            "The activations of the two datasets were stored with other layers, so no basis travels between them; "
            "remove both, and run again."
        )


def with_components(explanations, means):
    """Explanations whose directions are their components, the first ones first, about the means of other explanations.

    explanations, means: {(layer, head): HeadExplanation}, of which those with components, and those with means, count
    """
    return {
        unit: replace(
            explanation,
            mean=means[unit].mean,
            steps=explanation.components,
            texts=np.arange(len(explanation.components)) + 1,
        )
        for unit, explanation in explanations.items()
    }


def variance_along(directions, moments):
    """Variance of a head's contributions along each of some directions [direction, d_embed]: [direction]."""
    along = directions.astype(np.float64) @ moments.basis
    return np.einsum("dc,ce,de->d", along, moments.covariance, along)


def cumulated(values, budgets):
    """Sums of the first so many values, of all where there are fewer: [budget]."""
    return np.concatenate([[0], np.cumsum(values)])[np.minimum(budgets, len(values))]


def likeness(directions, own, variance, budgets):
    """Mean |cosine| of the first components of a basis and the own ones, matched one to one: {budget: mean}.

    directions, own: [component, d_embed]; variance: of the images scored along the own components [component], which
    weights them. NaN where there are no components.
    """
    means = {}
    for budget in budgets:
        _, columns, cosines = matched(directions[:budget], own[:budget])
        total = variance[columns].sum()
        means[budget] = np.abs(cosines) @ variance[columns] / total if total > 0 else np.nan
    return means


def head_measures(bases, moments, budgets, rng):
    """Rows of one head, a basis and a number of components each: what it holds of the variance, how like it is.

    bases: {name: list of directions [direction, d_embed], one for each draw}, with "own" among them
    moments: of the head's contributions over the images scored

    Columns: basis, budget; variance, of the head; variance_held, % of it in the span of the first components, of
    several draws the mean (NaN for a constant head); matched_cosine with the own components, and by chance, with the
    basis turned at random within its span. A random basis is chance itself, and the own one is like itself.
    """
    total, (own,) = moments.total_variance(), bases["own"]
    own, along = own.astype(np.float64), variance_along(own, moments)
    rows = []
    for name, draws in bases.items():
        held = np.mean([cumulated(variance_along(directions, moments), budgets) for directions in draws], axis=0)
        row = {"basis": name, "budget": budgets, "variance": total}
        row["variance_held"] = 100 * held / total if total > 0 else np.nan
        row |= dict.fromkeys(["matched_cosine", "matched_cosine_by_chance"], np.nan)
        if name in ("travelled", "weights") and len(draws[0]):
            compare = partial(likeness, own=own, variance=along, budgets=budgets)
            directions = draws[0].astype(np.float64)
            chance = by_chance(compare, directions, rng)
            row["matched_cosine"] = list(compare(directions).values())
            row["matched_cosine_by_chance"] = list(chance.values())
        rows.append(pd.DataFrame(row))
    return pd.concat(rows, ignore_index=True)


def over_heads(table):
    """Means of head_measures over heads, weighted by their variance: one row for each basis and budget."""
    weights, measures = table["variance"], ["variance_held", "matched_cosine", "matched_cosine_by_chance"]
    keys = [table["basis"], table["budget"]]
    sums = {}
    for name in measures:
        known = weights.where(table[name].notna(), 0)
        total = known.groupby(keys, sort=False).sum()
        sums[name] = (known * table[name].fillna(0)).groupby(keys, sort=False).sum() / total.where(total > 0)
    return pd.DataFrame(sums).reset_index()


def pole_names(components, activity, pool, count):
    """Numbers of the texts that a component fires on, best first [component * pole, place]; -1 without an image."""
    scores = text_scores(NAMING, components, activity, pool).transpose(1, 0, 2)  # [component, pole, text]
    names = highest(scores.reshape(-1, scores.shape[-1]), count)
    names[~activity.means.transpose(1, 0, 2).any(2).ravel()] = -1
    return names


def names_by_pole(stored, bases, features, count):
    """Names of every pole on the images that its basis comes from, and on those that are scored: one row each.

    stored: {"own", "travelled"}: StoredActivations; features: of the text pool [text, d_embed]; count: texts of a pole
    bases: {(basis, means) in SETTINGS: {(layer, head): HeadExplanation}}

    Returns (table, given, there): the table has layer, head, component, pole, basis, means and variance (of the
    component, over the images scored); given, there: numbers of texts [pole, place], as pole_names gives them. They are
    given on the fit images of the basis's dataset, about its mean; the weights are named where the travelled basis is.
    """
    pools = {name: TextPool(features, *images.fit_moments(EMBEDDING)) for name, images in stored.items()}
    scored = stored["own"].scored
    there_pool = TextPool(features, *stored["own"].moments(EMBEDDING, scored))
    tables, given, there = [], [], []
    for layer in stored["own"].layers:
        of_layer = {
            (setting, head): (head, explanation)
            for setting, explanations in bases.items()
            for (of, head), explanation in explanations.items()
            if of == layer
        }
        at_home = {key: value for key, value in of_layer.items() if key[0][1] == "travelled"}
        at_home = activities(stored["travelled"], layer, at_home, [stored["travelled"].fit])
        own = {key: value for key, value in of_layer.items() if key[0] == ("own", "own")}
        at_home |= activities(stored["own"], layer, own, [stored["own"].fit])
        on_scored = activities(stored["own"], layer, of_layer, [scored])
        for (setting, head), (_, explanation) in of_layer.items():
            basis = setting[0]
            home = "own" if basis == "own" else "travelled"
            components, (activity,) = explanation.components, on_scored[setting, head]
            given.append(pole_names(components, at_home[(basis, home), head][0], pools[home], count))
            there.append(pole_names(components, activity, there_pool, count))
            place = {"layer": layer, "head": head, "component": np.repeat(np.arange(len(components)), 2)}
            place["pole"] = np.tile(["top", "bottom"], len(components))
            place |= {"basis": basis, "means": setting[1], "variance": np.repeat(activity.spread**2, 2)}
            tables.append(pd.DataFrame(place))
    return pd.concat(tables, ignore_index=True), np.concatenate(given), np.concatenate(there)


def names_kept(given, there, weights):
    """How many poles keep their names, in %, each counted with its weight; one without a name given is left out.

    given, there: numbers of texts [pole, place], -1 where there are none; weights: [pole]

    names_kept: whose first text stays the first; texts_kept: of their texts that stay among them. By chance: the same
    with the names there dealt to the poles at random, by their weights.
    """
    inside = (given[:, 0] >= 0) & (weights > 0)
    given, there, weights = given[inside], there[inside], weights[inside]
    if not len(given):
        return dict.fromkeys(("names_kept", "names_kept_by_chance", "texts_kept", "texts_kept_by_chance"), np.nan)
    kept, overlap = kept_texts(given, there)
    share, count = weights / weights.sum(), given.shape[1]
    return {
        "names_kept": 100 * share @ kept,
        "names_kept_by_chance": 100 * same_at_random(given[:, :1], there[:, :1], share),
        "texts_kept": 100 * share @ overlap,
        "texts_kept_by_chance": 100 * same_at_random(given, there, share) / count,
    }


def kept_by_budget(names, given, there, budgets):
    """Table of names_kept of each basis about each means, among the first components of every head: a row per budget.

    names, given, there: of names_by_pole. Poles count by the variance of their component.
    """
    rows = []
    for (basis, means), budget in product(SETTINGS, budgets):
        inside = names["basis"].eq(basis) & names["means"].eq(means) & names["component"].lt(budget)
        kept = names_kept(given[inside], there[inside], names["variance"].to_numpy()[inside])
        rows.append({"basis": basis, "means": means, "budget": budget} | kept)
    return pd.DataFrame(rows)


def kept_texts(given, there):
    """(whether the first text stays, bool [pole]; share of the texts that stay [pole]) of names as in names_kept."""
    stays = (given[:, :, None] == there[:, None, :]).any(2) & (given >= 0)
    return (given[:, 0] == there[:, 0]) & (given[:, 0] >= 0), stays.mean(1)


def same_at_random(given, there, share):
    """Expected number of texts in common of the names of two poles, each drawn by the poles' share [pole]."""
    shares, length = np.repeat(share, given.shape[1]), max(given.max(), there.max()) + 2
    # How often each text is a name; the first number, of -1, is of poles that have none.
    first, second = (np.bincount(numbers.ravel() + 1, shares, length)[1:] for numbers in (given, there))
    return first @ second
