"""How well a ranking finds what is relevant: average precision and recall at k, beside those of a random ranking.

The mean of average precisions moves with other images in two ways: as queries, and as the candidates that are ranked.
The second is the larger part of its error where queries share their candidates, so its derivative by the weight of each
candidate is computed too, for an interval over images.

Scores are compared as float32, the precision of the forward pass. Where they are equal, every order counts alike: the
average precision is its mean over all of them, in closed form.
"""

import numpy as np

BLOCK = 4_000_000  # scores that are ranked at a time


def blocks(queries, candidates):
    """Numbers of queries [query] in parts that have at most BLOCK scores of so many candidates."""
    return np.array_split(queries, max(1, -(-len(queries) * candidates // BLOCK)))


def average_precision(scores, relevants):
    """Average precision of each query, a list of [query] for several sets of relevant candidates; NaN without any.

    scores: higher is better, [query, candidate]; a query itself has -inf. relevants: list of bool [query, candidate],
    False for the query itself
    """
    count, candidates = scores.shape
    keys = _ordered_integers(scores) + (np.arange(count) << 33)[:, None]  # all of a query above all of the one before
    ends = (np.arange(count) + 1) * candidates
    falling, harmonic = np.sort(keys, axis=1).ravel(), harmonic_numbers(candidates)
    precisions = []
    for relevant in relevants:
        own, query, total = np.sort(keys[relevant]), np.nonzero(relevant)[0], relevant.sum(1)
        low, high = (np.searchsorted(falling, own, side) for side in ("left", "right"))
        own_low, own_high = (np.searchsorted(own, own, side) for side in ("left", "right"))
        better, better_own = ends[query] - high, np.cumsum(total)[query] - own_high  # candidates, and relevant ones
        tied, tied_own = high - low, own_high - own_low
        at_hit = _precision_at_hit(better, better_own, tied, tied_own, harmonic)
        sums = np.bincount(query, at_hit, minlength=count)
        precisions.append(np.divide(sums, total, out=np.full(count, np.nan), where=total > 0))
    return precisions


def _precision_at_hit(better, better_own, tied, tied_own, harmonic):
    """Mean precision at the place of a relevant candidate over all orders of those that tie with it, itself included.

    Of the i-th place among the tied the precision is (better_own + 1 + share (i - 1)) / (better + i): the others before
    it are relevant as often as the tied are.
    """
    share = (tied_own - 1) / np.maximum(tied - 1, 1)
    constant = better_own + 1 - share * (better + 1)
    return share + constant * (harmonic[better + tied] - harmonic[better]) / tied


def average_precision_influence(scores, relevants):
    """Derivatives of the sum of all queries' average precisions by the weight of each candidate, a list of [candidate].

    Arguments as in average_precision; equal scores count in their order. With hits h_j and place p_j of a relevant
    candidate j, and R of them, AP = 1/R sum_j h_j / p_j. More weight of a candidate raises the places of all j behind
    it, and if it is relevant their hits, its own term and R.
    """
    candidates = scores.shape[1]
    order = np.argsort(-scores.astype(np.float32), axis=1, kind="stable")
    places, influences = np.arange(1, candidates + 1), []
    for relevant in relevants:
        ordered = np.take_along_axis(relevant, order, axis=1)
        total = np.maximum(ordered.sum(1, keepdims=True), 1)
        precision = ordered.cumsum(1) / places
        terms = np.where(ordered, precision, 0)
        own = np.cumsum((ordered / places)[:, ::-1], axis=1)[:, ::-1] + precision - terms.sum(1, keepdims=True) / total
        behind = np.cumsum((terms / places)[:, ::-1], axis=1)[:, ::-1]
        derivative = (np.where(ordered, own, 0) - behind) / total
        influences.append(np.bincount(order.ravel(), derivative.ravel(), minlength=candidates))
    return influences


def random_average_precision(relevant, candidates):
    """Expected average precision of a random ranking, [query]; NaN without a relevant candidate.

    relevant: number of relevant candidates of each query [query]; candidates: their number, the query itself left out
    """
    relevant = np.asarray(relevant, int)
    none, tied = np.zeros_like(relevant), np.full_like(relevant, max(candidates, 1))
    at_hit = _precision_at_hit(none, none, tied, relevant, harmonic_numbers(max(candidates, 1)))
    return np.where(relevant > 0, at_hit, np.nan)


def harmonic_numbers(count):
    """The harmonic numbers 0, 1, 1 + 1/2, … [count + 1]."""
    return np.append(0.0, np.cumsum(1 / np.arange(1, count + 1)))


def _ordered_integers(scores):
    """Whole numbers below 2³² in the order of scores as float32, int64 of the same shape."""
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.int32).astype(np.int64)  # -0 as 0
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits) + (1 << 31)


def hits_at(scores, relevant, k):
    """Whether one of the k highest scores is of a relevant candidate: bool [query]. Of equal scores the first counts.

    scores, relevant: [query, candidate]
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(relevant, order, axis=1).any(1)


def random_hits_at(relevant, candidates, k):
    """Chance that one of k candidates drawn at random is relevant, [query]; relevant: their number [query]."""
    drawn = np.arange(k)
    missed = np.maximum(candidates - np.asarray(relevant)[:, None] - drawn, 0) / (candidates - drawn)
    return 1 - missed.prod(1)
