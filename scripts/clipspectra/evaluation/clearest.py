"""How much a pole's images have in common, and the components to show first: well named, and none like another."""

import numpy as np
import pandas as pd

UNIT = ["layer", "head", "component"]
MOST_CORRELATION = 0.7  # of the scores of two components that are both shown


def monosemanticity(scores, features):
    """(of the top poles, of the bottom poles, of all images): mean similarity of image pairs, [component] and a number.

    The monosemanticity score (Pach et al. 2025): pairs of different images are weighted by the product of their
    activations, here max(±score, 0); over all images every pair counts alike. NaN at a pole of fewer than two images.

    scores: [image, component]; features: [image, feature] whose products are the similarities of images
    """
    poles = [_similarity(np.maximum(sign * scores, 0), features) for sign in (1, -1)]
    return *poles, _similarity(np.ones((len(scores), 1)), features)[0]


def _similarity(weights, features):
    own = (features**2).sum(1)  # of an image with itself
    together = ((weights.T @ features) ** 2).sum(1) - (weights**2).T @ own
    pairs = weights.sum(0) ** 2 - (weights**2).sum(0)
    enough = pairs > 1e-9 * weights.sum(0) ** 2
    return np.divide(together, pairs, out=np.full(len(pairs), np.nan), where=enough)


def factor_features(table, factors):
    """Features [image, value] of images whose products are the share of factors that two images have in common."""
    columns = [np.asarray(table[factor].astype(str)) for factor in factors]
    return np.concatenate([column[:, None] == np.unique(column) for column in columns], axis=1) / len(factors) ** 0.5


def sureness_of(names):
    """Of first texts of poles (see naming.name_components), how sure the names are: a Series like them.

    Their score in units of what the best of as many random texts reaches in 95 % of the cases.
    """
    return names["score"].abs() / names["score_by_chance_95"].clip(lower=np.finfo(float).tiny)


def candidates(names, factors, *, count=200, least_share=0.05):
    """The heads' components with the surest names, best first: rows of the table of factors, with column `sureness`.

    names: first texts of both poles by one naming (see naming.name_components); sureness: mean of both poles, see
    sureness_of. Components with less than
    `least_share` of their head's variance are left out, unless all have less; then those without a name above chance,
    unless none has one.
    """
    by_unit = pd.DataFrame({"sureness": sureness_of(names), "named": names["named"]}).groupby(
        [names[key] for key in UNIT]
    )
    table = factors.merge(by_unit.agg({"sureness": "mean", "named": "any"}), on=UNIT)
    table = table[table["layer"] >= 0]
    for kept in (table["share"] >= least_share, table["named"].astype(bool)):
        inside = kept.reindex(table.index)
        table = table[inside | ~inside.any()]
    return table.drop(columns="named").sort_values("sureness", ascending=False, kind="stable").head(count)


def distinct(scores, texts, *, count=5):
    """Numbers of the first components none of which moves like another, |correlation| at most MOST_CORRELATION, or has
    a name that another has.

    scores: [image, component], in the order of preference; texts: set of its names of each [component]
    """
    centred = scores - scores.mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=0), np.finfo(float).tiny)
    chosen, shown = [], set()
    for number in range(unit.shape[1]):
        is_new = (np.abs(unit[:, chosen].T @ unit[:, number]) <= MOST_CORRELATION).all() and shown.isdisjoint(
            texts[number]
        )
        if len(chosen) < count and is_new:
            chosen.append(number)
            shown |= texts[number]
    return chosen
