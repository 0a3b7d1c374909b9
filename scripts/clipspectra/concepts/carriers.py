"""Which components carry a concept that texts name, and how many of them are enough, found without any label.

The concept's evidence in an image is what the differences u of its texts read in the embedding, e · u. Over unlabelled
images its covariance with any other readout t of the embedding is a sum, as the embedding is: a component v with the
scores s adds

    C = cov(s, e · u) (v · t)   [text, readout]   to   M = cov(e · u, e · t),

and its share is <C, M> / <M, M>. With t = u this is how much of the concept's own evidence the component holds
("evidence"), with the classes' texts as t how much of the concept's hold on the classes passes through it ("sway"). A
component is the concept's if the concept's texts differ more along it than the classes' texts do. The rule for the
number: the first components, by their share, that together have a given part of what all the concept's components have.
"""

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.jobs import progress

LEAST_SHARE = 0.01  # of its head's variance, for a component that stands for a random one


def concept_directions(features, pool_mean):
    """Directions of a concept [text, d_embed]: its texts about their mean; of one text, about the pool's mean."""
    features = np.asarray(features, np.float64)
    return features - (features.mean(0) if len(features) > 1 else pool_mean)


def component_table(stored, told):
    """One row a component of every head: layer, head, component, share_of_head.

    told: {(layer, head): methods.HeadExplanation}; share_of_head: of the head's variance over the fit images
    """
    tables = []
    for layer in stored.layers:
        for head, moments in enumerate(stored.fit_moments(layer)):
            seen = told[layer, head].components.astype(np.float64) @ moments.basis  # [component, coordinate]
            own = np.einsum("ck,kl,cl->c", seen, moments.covariance, seen)
            columns = {"layer": layer, "head": head, "component": np.arange(len(seen))}
            share = own / max(moments.total_variance(), np.finfo(float).tiny)
            tables.append(pd.DataFrame(columns | {"share_of_head": share}))
    return pd.concat(tables, ignore_index=True)


def concept_shares(table, stored, told, directions, classifier, ranking="evidence"):
    """The `component_table` with what each component carries of a concept.

    told: {(layer, head): methods.HeadExplanation}, the whole embedding's under (-1, -1) too; directions: see concept_directions
    classifier: [d_embed, class]; ranking: "evidence" or "sway"

    share: of the concept's evidence or sway, see above; concept, classes: mean square of what the concept's directions,
    and the classes' texts about their mean, have along the component.
    """
    classes = classifier.T - classifier.mean(1)
    readout = {"evidence": directions, "sway": classes}[ranking]
    mean, fit = told[EMBEDDING, EMBEDDING].mean.astype(np.float64), stored.by_chunk(stored.fit)
    read, total = [], 0.0  # [image, text] chunk by chunk, and [text, readout]
    for chunk, inside in zip(stored.embeddings(), fit):
        away = chunk[inside] - mean
        read.append(away @ directions.T)
        total = total + read[-1].T @ (away @ readout.T)
    size = max((total**2).sum(), np.finfo(float).tiny)
    found = {"share": [], "concept": [], "classes": []}
    for layer in progress(stored.layers, "what components carry", unit="layer"):
        sums = sum(np.einsum("ihk,it->hkt", q[inside], one) for q, inside, one in zip(stored.reduced(layer), fit, read))
        for head in range(stored.heads):
            components = told[layer, head].components.astype(np.float64)
            centre = np.outer(components @ told[layer, head].mean, sum(one.sum(0) for one in read))
            with_text = components @ (stored.basis[layer, head] @ sums[head]) - centre  # [component, text]
            found["share"].append(np.einsum("ct,cr,tr->c", with_text, components @ readout.T, total) / size)
            found["concept"].append(((components @ directions.T) ** 2).mean(1))
            found["classes"].append(((components @ classes.T) ** 2).mean(1))
    return table.assign(**{name: np.concatenate(parts) for name, parts in found.items()})


def carriers(table):
    """The concept's components of a `carried` table, largest share first; `held` is what the first ones have of all."""
    found = table[(table["concept"] > table["classes"]) & (table["share"] > 0)]
    found = found.sort_values("share", ascending=False, kind="stable", ignore_index=True)
    return found.assign(held=found["share"].cumsum() / max(found["share"].sum(), np.finfo(float).tiny))


def count_enough(found, share, number=None):
    """How many of the `carriers` hold `share` of what all hold; or `number`, if there are as many.

    Raises InputError if there are none, or fewer.
    """
    if found.empty:
        raise InputError(
            "No component carries the concept more than the classes: say it in other texts, or name the components."
        )
    if number is None:
        return int(np.searchsorted(found["held"], share * (1 - 1e-12))) + 1
    if number > len(found):
        raise InputError(f"{number} components are asked for, but only {len(found)} carry the concept; lower 'number'.")
    return number
