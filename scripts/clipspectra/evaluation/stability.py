"""How stable a head's explanation is on other images, or with another half of the text pool, and what chance gives.

Chance is the same comparison with the second components turned at random within the head's own space: what is left
of agreement there is owed to the space, not to the components.
"""

import numpy as np
from scipy.linalg import subspace_angles
from scipy.optimize import linear_sum_assignment

from clipspectra.explanations.spectral import orthonormal

COMPARED_COMPONENTS = 10  # components of a head that are compared
DRAWS = 20  # of random rotations


def compare_components(first, second, texts):
    """Compare two sets of components of one head and their texts: a dict of measures.

    first, second: components [rank, d_embed], of which the first COMPARED_COMPONENTS count
    texts: centred features of the text pool [text, d_embed]

    largest_angle, mean_angle: principal angles between the two spans, in degrees; cosine: mean |cosine| of components
    matched one to one; same_text: % of their poles with the same best text; text_cosine: of the best texts of matched
    poles
    """
    count = min(len(first), len(second), COMPARED_COMPONENTS)
    first, second = first[:count].astype(np.float64), second[:count].astype(np.float64)
    first_texts, second_texts = pole_texts(first, texts), pole_texts(second, texts)
    rows, columns, cosines = matched(first, second)
    flipped = cosines < 0  # of opposite sign: top and bottom pole change places
    first_texts, second_texts = first_texts[rows], second_texts[columns]
    second_texts = np.where(flipped[:, None], second_texts[:, ::-1], second_texts)
    measures = {"components": count} | angles(first, second) | {"cosine": np.abs(cosines).mean()}
    measures["same_text"] = 100 * (first_texts == second_texts).mean()
    return measures | {"text_cosine": text_cosine(first_texts, second_texts, texts)}


def compare_halves(first, second, texts, halves):
    """Compare one head's components named from one half of the text pool with those named from the other.

    halves: two arrays of numbers of texts. With the same components twice, all that differs is the pool. The measures
    are those of compare_components; the angles are between the directions that the best texts bring, and cosine and
    same_text are blank, because no text is in both halves.
    """
    steps, chosen = [], []
    for components, half in zip((first, second), halves):
        components = components.astype(np.float64)
        leading = components[:COMPARED_COMPONENTS]
        poles = pole_texts(leading, texts[half])
        scores = np.abs(np.take_along_axis(texts[half] @ leading.T, poles.T, axis=0))  # [pole, component]
        best = texts[half][poles[np.arange(len(poles)), scores.argmax(0)]]
        steps.append(orthonormal(best @ components.T @ components)[0])
        chosen.append(half[poles])
    measures = {"components": len(chosen[0])} | angles(*steps) | {"cosine": np.nan, "same_text": np.nan}
    return measures | {"text_cosine": text_cosine(*chosen, texts)}


def matched(first, second):
    """(numbers in first, numbers in second, their cosines) of components [component, d_embed] matched one to one.

    The sum of the |cosine| is the largest that there is.
    """
    cosines = first @ second.T
    rows, columns = linear_sum_assignment(-np.abs(cosines))
    return rows, columns, cosines[rows, columns]


def by_chance(compare, components, rng):
    """Means of the measures of `compare` over random rotations of one head's components [rank, d_embed].

    compare: components -> dict of measures. Returns {measure}_by_chance; a rotation stays within their span.
    """
    draws = []
    for _ in range(DRAWS):
        rotation, triangle = np.linalg.qr(rng.normal(size=(len(components), len(components))))
        draws.append(compare((rotation * np.sign(np.diag(triangle))) @ components))
    return {f"{name}_by_chance": np.mean([draw[name] for draw in draws]) for name in draws[0] if name != "components"}


def pole_texts(components, texts):
    """The best text of the top and of the bottom pole of each component, numbers in texts [component, 2]."""
    scores = texts @ components.T  # [text, component]
    return np.stack([scores.argmax(0), scores.argmin(0)], axis=1)


def angles(first, second):
    """The largest and the mean principal angle between two spans, in degrees."""
    if not len(first) or not len(second):  # no text brings a direction
        return {"largest_angle": np.nan, "mean_angle": np.nan}
    degrees = np.degrees(subspace_angles(first.T, second.T))
    return {"largest_angle": degrees.max(), "mean_angle": degrees.mean()}


def text_cosine(first_texts, second_texts, texts):
    """Mean cosine of two arrays of numbers of texts, pair by pair; texts: their features [text, d_embed]."""
    first, second = texts[first_texts.ravel()], texts[second_texts.ravel()]
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return ((first * second).sum(1) / np.maximum(lengths, np.finfo(float).tiny)).mean()
