"""How stable a head's explanation is if other images are drawn, or if only half of the text pool is used."""

import numpy as np
from scipy.linalg import subspace_angles
from scipy.optimize import linear_sum_assignment

from clipspectra.explanations.spectral import orthonormal

COMPARED_COMPONENTS = 10  # components of a head that are compared


def compare_components(first, second, first_texts, second_texts, features):
    """Compare two sets of components of one head and their texts: a dict of measures.

    first, second: components [rank, d_embed], of which the first COMPARED_COMPONENTS count; first_texts, second_texts:
    their best texts, indices into features [rank, 2], top pole and bottom pole; features: centred, unit length
    [text, d_embed]

    largest_angle, mean_angle: principal angles between the two spans, in degrees; cosine: mean |cosine| of components
    matched one to one; same_text: % of their poles with the same best text; text_cosine: of the best texts of matched
    poles; text_cosine_by_chance: of all pairs of poles
    """
    count = min(len(first), len(second), COMPARED_COMPONENTS)
    first, second, first_texts, second_texts = (rows[:count] for rows in (first, second, first_texts, second_texts))
    angles = np.degrees(subspace_angles(first.T.astype(np.float64), second.T.astype(np.float64)))
    cosines = first @ second.T
    rows, columns = linear_sum_assignment(-np.abs(cosines))
    flipped = cosines[rows, columns] < 0  # of opposite sign: top and bottom pole change places
    first_texts, second_texts = first_texts[rows], second_texts[columns]
    second_texts = np.where(flipped[:, None], second_texts[:, ::-1], second_texts)
    return {
        "components": count,
        "largest_angle": angles.max(),
        "mean_angle": angles.mean(),
        "cosine": np.abs(cosines[rows, columns]).mean(),
        "same_text": 100 * (first_texts == second_texts).mean(),
    } | text_cosines(first_texts, second_texts, features)


def text_cosines(first_texts, second_texts, features):
    """Mean cosine of two arrays of texts (indices into features [text, d_embed]), pair by pair and over all pairs."""
    first, second = features[first_texts.ravel()], features[second_texts.ravel()]
    return {
        "text_cosine": (first * second).sum(1).mean(),
        "text_cosine_by_chance": (first @ second.T).mean(),
    }


def compare_halves(components, features, rng):
    """Name one head's components from either half of the text pool: a dict of measures as in compare_components.

    The components are the same, so the angles are between the directions that the best texts bring, and cosine has no
    value. No text is in both halves, so same_text has none either.
    """
    components = components.astype(np.float64)
    halves, steps, texts = np.array_split(rng.permutation(len(features)), 2), [], []
    for half in halves:
        scores = features[half] @ components.T  # [text, component]
        first = scores[:, :COMPARED_COMPONENTS]
        poles = np.stack([first.argmax(0), first.argmin(0)], axis=1)
        best = np.where(first.max(0) >= -first.min(0), poles[:, 0], poles[:, 1])
        steps.append(orthonormal(scores[best] @ components)[0])
        texts.append(half[poles])
    angles = np.degrees(subspace_angles(steps[0].T, steps[1].T))
    measures = {"components": len(texts[0]), "largest_angle": angles.max(), "mean_angle": angles.mean()}
    return measures | {"cosine": np.nan, "same_text": np.nan} | text_cosines(*texts, features)
