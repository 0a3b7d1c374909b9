"""How much of an explanation stays if the images are drawn again, or if half of the texts are taken away."""

import numpy as np
from scipy.linalg import subspace_angles
from scipy.optimize import linear_sum_assignment

from clipspectra.explanations.spectral import orthonormal

FIRST = 10  # components of a head that are compared


def compare_components(one, other, named_one, named_other, features):
    """Two sets of components of one head and their texts: a dict of measures.

    one, other: components [rank, d_embed], the first FIRST of which count; named_one, named_other: their best texts,
    indices into features [rank, 2], top pole and bottom pole; features: centred texts of unit length [text, d_embed]

    largest_angle, mean_angle: principal angles between the two spans, in degrees; cosine: mean |cosine| of components
    matched one to one; same_text: % of their poles that keep the best text; text_cosine: of the best texts of matched
    poles; text_cosine_by_chance: of all pairs of poles instead
    """
    count = min(len(one), len(other), FIRST)
    one, other, named_one, named_other = (part[:count] for part in (one, other, named_one, named_other))
    angles = np.degrees(subspace_angles(one.T.astype(np.float64), other.T.astype(np.float64)))
    cosines = one @ other.T
    rows, columns = linear_sum_assignment(-np.abs(cosines))
    found, expected = named_one[rows], named_other[columns]
    turned = cosines[rows, columns] < 0
    expected = np.where(turned[:, None], expected[:, ::-1], expected)
    return {
        "components": count,
        "largest_angle": angles.max(),
        "mean_angle": angles.mean(),
        "cosine": np.abs(cosines[rows, columns]).mean(),
        "same_text": 100 * (found == expected).mean(),
    } | text_cosines(found, expected, features)


def text_cosines(one, other, features):
    """Mean cosine of the texts of two lists of indices, place by place, and of all their pairs."""
    first, second = features[one.ravel()], features[other.ravel()]
    return {
        "text_cosine": (first * second).sum(1).mean(),
        "text_cosine_by_chance": (first @ second.T).mean(),
    }


def compare_halves(components, features, rng):
    """The components of one head named from either half of the text pool: a dict of measures as `compare_components` has them.

    Here the components stay, and the angles are between the directions that the best texts bring. No text is in both
    halves, so same_text has no value.
    """
    components = components.astype(np.float64)
    halves, steps, named = np.array_split(rng.permutation(len(features)), 2), [], []
    for rows in halves:
        scores = features[rows] @ components.T  # [text, component]
        first = scores[:, :FIRST]
        poles = np.stack([first.argmax(0), first.argmin(0)], axis=1)
        best = np.where(first.max(0) >= -first.min(0), poles[:, 0], poles[:, 1])
        steps.append(orthonormal(scores[best] @ components)[0])
        named.append(rows[poles])
    angles = np.degrees(subspace_angles(steps[0].T, steps[1].T))
    measures = {"components": len(named[0]), "largest_angle": angles.max(), "mean_angle": angles.mean()}
    return measures | {"cosine": np.nan, "same_text": np.nan} | text_cosines(*named, features)
