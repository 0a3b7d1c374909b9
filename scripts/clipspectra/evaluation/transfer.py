"""How far a basis fitted on one dataset holds on another: accuracy recovered, share of the variance, likeness.

A basis is the components of all heads, as directions. What is frozen are the components, and with means "travelled" the
means too; with means "own" these are of the dataset that is scored.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.arrays import with_source
from clipspectra.evaluation.intervals import holm
from clipspectra.evaluation.recovery import paired_differences, recovered_accuracy
from clipspectra.evaluation.stability import by_chance, matched
from clipspectra.explanations.methods import control_draws
from clipspectra.jobs import progress

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

# Columns of accuracy, which needs classes: blank without.
ACCURACIES = [f"{score}{end}" for score in ("top1", "top5", "cosine", "against_own") for end in ("", "_low", "_high")]
ACCURACIES += ["top1_draws_low", "top1_draws_high", "p", "p_holm"]
COLUMNS = ["basis", "means", "budget", "draws", *ACCURACIES]


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


def random_bases(stored, layers, features, means, seed):
    """Draws of the random basis, directions of the span of the fit images: {("random", of): draws about means of `of`}.

    means: {of: {(layer, head): HeadExplanation}}
    """
    heads = {(layer, head): moments for layer in layers for head, moments in enumerate(stored.fit_moments(layer))}
    draws = control_draws("random_directions", heads, features, seed=seed)
    return {
        ("random", of): [
            {unit: replace(explanation, mean=of_unit[unit].mean) for unit, explanation in draw.items()}
            for draw in draws
        ]
        for of, of_unit in means.items()
    }


def variance_of_heads(stored, explanations, draws, budgets, seed):
    """head_measures of all stored heads on the images scored, of random bases as far as there are draws."""
    tables = []
    for layer in progress(stored.layers, "variance held", unit="layer"):
        for head, moments in enumerate(stored.moments(layer, stored.scored)):
            bases = {name: [of_basis[layer, head].components] for name, of_basis in explanations.items()}
            if (layer, head) in draws[0]:
                bases["random"] = [draw[layer, head].steps for draw in draws]
            rng = np.random.default_rng([seed, layer, head])
            tables.append(with_source(head_measures(bases, moments, budgets, rng), {"layer": layer, "head": head}))
    return pd.concat(tables, ignore_index=True)


def accuracies(stored, settings, budgets, layers, classes, mlps):
    """Table of the accuracy that each basis recovers about each means, one row per budget; blank without classes.

    stored: {"own", "travelled"}: StoredActivations; settings: {(basis, means): draws}, ("own", "own") first
    layers: whose heads are replaced; classes: (classifier [d_embed, class], labels [image]), None without
    mlps: "mean" or "kept", see recovered_accuracy
    """
    if classes is None:
        keys = [(*key, budget, len(draws)) for key, draws in settings.items() for budget in budgets]
        return pd.DataFrame(keys, columns=["basis", "means", "budget", "draws"]).reindex(columns=COLUMNS)
    own, tables, reference = stored["own"], [], None
    means = {name: images.fit_means() for name, images in stored.items()}
    for (basis, of), draws in settings.items():
        options = {"mlps": mlps, "means": means[of]}
        table, correct = recovered_accuracy(own, draws, budgets, layers, *classes, **options)
        reference = correct[0] if reference is None else reference
        if basis not in ("own", "random"):
            table = pd.concat([table, paired_differences(correct[0], reference, of="own")], axis=1)
        tables.append(with_source(table, {"basis": basis, "means": of}))
    table = pd.concat(tables, ignore_index=True).reindex(columns=COLUMNS)
    compared = table["p"].notna() & (table["budget"] > 0)  # without components all bases are the same
    table.loc[compared, "p_holm"] = holm(table.loc[compared, "p"])
    return table
