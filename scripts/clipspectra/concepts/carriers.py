"""Which components carry a concept given by texts, and how many of them are enough, without any labels.

The evidence of a concept in an image is the projection e · u of the embedding on the differences u of the concept's
texts. Over unlabelled images its covariance with any other projection e · t is a sum over the parts of the embedding:
a component v with the scores s adds

    C = cov(s, e · u) (v · t)   [text, readout]   to   M = cov(e · u, e · t),

and its share is <C, M> / <M, M>. With t = u this is the component's share of the evidence ("evidence"), with the
classes' texts as t its share of the concept's influence on the classes ("sway"). A component belongs to the concept if
the concept's texts differ more along it than the classes' texts do, each in units of their own spread: averaging many
prompts makes texts differ less, and says nothing about the component. The rule for the number: the first components, by
their share, that together hold a given part of the sum over all components of the concept.
"""

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.jobs import progress


def concept_directions(features, pool_mean):
    """Directions of a concept [text, d_embed]: its texts less their mean; a single text less the pool's mean."""
    features = np.asarray(features, np.float64)
    return features - (features.mean(0) if len(features) > 1 else pool_mean)


def component_table(stored, explanations):
    """One row for each component of every head: layer, head, component, variance.

    explanations: {(layer, head): HeadExplanation}; variance: over the fit images, in % of the sum over all heads
    """
    tables, total = [], 0.0
    for layer in stored.layers:
        for head, moments in enumerate(stored.fit_moments(layer)):
            # [component, coordinate]
            components = explanations[layer, head].components.astype(np.float64) @ moments.basis
            variance = np.einsum("ck,kl,cl->c", components, moments.covariance, components)
            columns = {"layer": layer, "head": head, "component": np.arange(len(components))}
            tables.append(pd.DataFrame(columns | {"variance": variance}))
            total += moments.total_variance()
    table = pd.concat(tables, ignore_index=True)
    return table.assign(variance=100 * table["variance"] / max(total, np.finfo(float).tiny))


def concept_shares(table, stored, explanations, directions, classifier, ranking="evidence"):
    """The `component_table` with each component's share of a concept.

    explanations: {(layer, head): HeadExplanation}, with the whole embedding under (-1, -1)
    directions: of the concept, [text, d_embed]; classifier: [d_embed, class]; ranking: "evidence" or "sway"

    share: of the concept's evidence or sway, see above; concept, classes: share of the concept's directions, and of the
    classes' texts less their mean, that lies along the component, in terms of their squared lengths.
    """
    classes = classifier.T - classifier.mean(1)
    readout = {"evidence": directions, "sway": classes}[ranking]
    mean = explanations[EMBEDDING, EMBEDDING].mean.astype(np.float64)
    covariance, evidence, with_heads = stored.fit_evidence(mean, directions, readout)
    squared_norm = max((covariance**2).sum(), np.finfo(float).tiny)
    spreads = [max((texts**2).sum(), np.finfo(float).tiny) for texts in (directions, classes)]
    columns = {"share": [], "concept": [], "classes": []}
    for layer in progress(stored.layers, "concept shares", unit="layer", delay=5):
        sums = with_heads(layer)
        for head in range(stored.heads):
            components = explanations[layer, head].components.astype(np.float64)
            centre = np.outer(components @ explanations[layer, head].mean, evidence)
            covariances = components @ (stored.basis[layer, head] @ sums[head]) - centre  # [component, text]
            shares = np.einsum("ct,cr,tr->c", covariances, components @ readout.T, covariance) / squared_norm
            columns["share"].append(shares)
            for name, texts, spread in zip(("concept", "classes"), (directions, classes), spreads):
                columns[name].append(((components @ texts.T) ** 2).sum(1) / spread)
    return table.assign(**{name: np.concatenate(arrays) for name, arrays in columns.items()})


def concept_components(table, ratio=1.0):
    """The concept's components in a table of `concept_shares`, largest share first.

    ratio: how many times more the concept's texts must lie along a component than the classes' texts. Added columns:
    held, held_of_heads, held_of_all: what the components so far hold, as a part of what all of the concept's components
    hold, of what the components of all heads hold, and of the model's whole evidence or sway. Components against the
    concept count below 0 in the last two; held_of_heads is NaN where the heads' sum is not above 0.
    """
    of_heads = table["share"].sum() if table["share"].sum() > 0 else np.nan
    table = table[(table["concept"] > ratio * table["classes"]) & (table["share"] > 0)]
    table = table.sort_values("share", ascending=False, kind="stable", ignore_index=True)
    held, tiny = table["share"].cumsum(), np.finfo(float).tiny
    table = table.assign(held=held / max(table["share"].sum(), tiny))
    return table.assign(held_of_heads=held / of_heads, held_of_all=held)


def concept_carriers(features, pool_mean, stored, explanations, classifier, *, share=0.9, ranking="evidence"):
    """The components that carry a concept: the first of `concept_components` that together hold `share` of it.

    features: of the concept's texts [text, d_embed]; pool_mean: of the text pool [d_embed]; the others as in
    `concept_shares`. Raises InputError if no component carries it more than the classes.
    """
    directions = concept_directions(features, pool_mean)
    table = component_table(stored, explanations)
    table = concept_components(concept_shares(table, stored, explanations, directions, classifier, ranking))
    return table.head(number_for_share(table, share))


def units_of(table):
    """The components in a table, in order: (layer, head, component) of each."""
    return list(map(tuple, table[["layer", "head", "component"]].to_numpy().tolist()))


def number_for_share(table, share, number=None):
    """How many of the concept's components (`concept_components`) together hold `share`; or `number`, if it is given.

    Raises InputError if the concept has none, or fewer than `number`.
    """
    if table.empty:
        raise InputError(
            "No component carries the concept more than the classes: describe it with other texts, or list components."
        )
    if number is None:
        return int(np.searchsorted(table["held"], share * (1 - 1e-12))) + 1
    if number > len(table):
        raise InputError(f"{number} components are asked for, but only {len(table)} carry the concept; lower 'number'.")
    return number
