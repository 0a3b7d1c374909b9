"""The components of two heads matched one to one by how their scores go together over the same images."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

DRAWS = 20  # of random correlations, for chance


@dataclass
class Match:
    """Which component of another head each component of a head goes with.

    partner: number of the other head's component, -1 without one [component]; correlation: of their scores, with its
    sign, 0 without a partner [component]
    share, other_share: of the variance of all components of either head, over the compared images
    """

    partner: np.ndarray
    correlation: np.ndarray
    share: np.ndarray
    other_share: np.ndarray

    def weighted(self, values):
        """Mean of values [component], each counting by its share of the head's variance; NaN without components."""
        return float(self.share @ np.abs(values)) if len(self.share) else np.nan

    def by_chance(self, images, rng):
        """Mean over draws of what `weighted` gives of the correlations where the scores of either head, on so many
        images, have nothing to do with each other."""
        shape, values = (len(self.share), len(self.other_share)), []
        for _ in range(DRAWS if min(shape) else 0):
            normal = rng.normal(size=shape)  # the correlation of a vector with one of random direction
            random = normal / np.sqrt(normal**2 + rng.chisquare(images - 2, size=shape))
            rows, columns = _assignment(random, self.share)
            values.append(self.share[rows] @ np.abs(random[rows, columns]))
        return np.mean(values) if values else np.nan


def match_components(cross, own, other, directions, other_directions):
    """Match of two heads' components.

    cross, own, other: sums over images of the products of the heads' rows, one with the other [width, other width] and
    each with itself; directions: of the components in the coordinates of the rows [component, width], and of the other

    Components are matched so that the head's variance, as far as it goes along, is largest: the sum of the shares times
    |correlation|. What is left over in the longer list has no partner.
    """
    variance, other_variance = (
        np.clip(np.einsum("cw,wv,cv->c", of, sums, of), 0, None)
        for of, sums in ((directions, own), (other_directions, other))
    )
    scale = np.sqrt(np.outer(variance, other_variance))
    products = directions @ cross @ other_directions.T
    correlation = np.clip(np.divide(products, scale, out=np.zeros(scale.shape), where=scale > 0), -1, 1)
    share, other_share = (of / max(of.sum(), np.finfo(float).tiny) for of in (variance, other_variance))
    rows, columns = _assignment(correlation, share)
    partner, matched = np.full(len(share), -1), np.zeros(len(share))
    partner[rows], matched[rows] = columns, correlation[rows, columns]
    return Match(partner, matched, share, other_share)


def _assignment(correlation, share):
    """(rows, columns) of the pairs that hold the largest sum of share [row] times |correlation| [row, column]."""
    return linear_sum_assignment(-share[:, None] * np.abs(correlation))
