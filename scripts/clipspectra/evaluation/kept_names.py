"""Which names of components stay if the same components are named on the images of another dataset."""

from itertools import product

import numpy as np
import pandas as pd

from clipspectra.contributions.stored import EMBEDDING
from clipspectra.evaluation.transfer import SETTINGS
from clipspectra.explanations.naming import TextPool, activities, fit_activities, text_scores
from clipspectra.explanations.spectral import highest

NAMING = "fires_on"  # which depends on images; what a component says is the same on all


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
        at_home = fit_activities(stored["travelled"], layer, at_home)
        own = {key: value for key, value in of_layer.items() if key[0] == ("own", "own")}
        at_home |= fit_activities(stored["own"], layer, own)
        on_scored = activities(stored["own"], layer, of_layer, [scored])
        for (setting, head), (_, explanation) in of_layer.items():
            basis = setting[0]
            home = "own" if basis == "own" else "travelled"
            components, (activity,) = explanation.components, on_scored[setting, head]
            given.append(pole_names(components, at_home[(basis, home), head], pools[home], count))
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
