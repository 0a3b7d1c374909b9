"""What a component says and what it fires on: two namings of its poles, and how sure a name is.

says: the texts whose direction lies closest to the component's, as in the reference implementation: what the head
writes. fires_on: the texts that the images at a pole are most like, compared with all images: what makes it write. The
two may disagree, so each text has both scores. All that is needed of the images are sums, gathered while streaming.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from clipspectra.contributions.stored import EMBEDDING
from clipspectra.explanations.spectral import component_scores, highest

NAMINGS = {
    "says": "projection of the text on the component",
    "fires_on": "similarity of the text with the pole's images, in its standard deviations over all images",
    "pattern": "correlation of the text's similarity with the component's scores, over all images",
    "fires_on_said": "fires_on, of the texts that the component also writes towards",
}
NAMED_BY = ["says", "fires_on"]  # what explanations hold
SAME_MEANING = 0.5  # cosine of centred texts from which they count as one meaning
SMALLEST_SPREAD = 1e-6  # of a text's similarity over images, for its length; below, no image differs from another
CHANCE = 0.5, 0.95  # quantiles of what the best of as many random texts reaches


@dataclass
class TextPool:
    """Candidate texts, and how much the similarity of each varies over the fit images.

    features: [text, d_embed]; embedding: Moments of the normalised image embeddings
    """

    features: np.ndarray
    embedding: object

    def __post_init__(self):
        self.features = np.asarray(self.features, np.float64)
        self.centred = self.features - self.features.mean(0)
        covariance = self.embedding.covariance
        spread = np.sqrt(np.clip(np.einsum("td,td->t", self.features @ covariance, self.features), 0, None))
        varies = spread > SMALLEST_SPREAD * np.linalg.norm(self.features, axis=1)
        self.scale = np.divide(1, spread, out=np.zeros_like(spread), where=varies)  # 1 / spread [text], 0 without any
        self.scaled = self.features * self.scale[:, None]

    @cached_property
    def directions(self):
        """Centred texts of unit length [text, d_embed]; a text that is the mean stays 0."""
        return self.centred / np.maximum(np.linalg.norm(self.centred, axis=1, keepdims=True), np.finfo(float).tiny)

    @cached_property
    def random_texts(self):
        """(axes [d_embed, axis], largest, mean [axis], squares [axis, axis]), of the scores m·t / spread of t.

        With the squares p of m along the principal axes of the embeddings, p·largest is the largest squared score that
        any text has on m, p·mean its mean over random texts, and p·squares·p the mean of its own square.
        """
        variance, axes = np.linalg.eigh(self.embedding.covariance)
        axes, variance = axes[:, variance > SMALLEST_SPREAD**2], variance[variance > SMALLEST_SPREAD**2]
        random = np.random.default_rng(0).normal(size=(4096, len(variance))) ** 2
        random /= np.maximum(random @ variance, np.finfo(float).tiny)[:, None]
        squares = 3 * random.T @ random / len(random)
        np.fill_diagonal(squares, np.diagonal(squares) / 3)
        return axes, 1 / variance, random.mean(0), squares


@dataclass
class Activity:
    """The images at the poles of some components, of one head or many.

    means: mean embedding at the top and the bottom pole, weighted by the activation max(±score, 0), minus the mean of
    all images [pole, component, d_embed]; 0 at a pole without images
    covariance: of the scores with the embedding [component, d_embed]; spread: of the scores [component]
    """

    means: np.ndarray
    covariance: np.ndarray
    spread: np.ndarray


class ActivitySums:
    """Sums from which an Activity follows, over images in any number of chunks."""

    def __init__(self):
        self.count, self.weights, self.scores, self.squares, self.at_poles, self.embeddings = 0, 0, 0, 0, 0, 0

    def add(self, scores, embeddings):
        """Take in images: their scores about the fit mean [image, component] and embeddings [image, d_embed]."""
        activations = np.stack([np.maximum(scores, 0), np.maximum(-scores, 0)])  # [pole, image, component]
        self.count += len(scores)
        self.weights = self.weights + activations.sum(1)  # [pole, component]
        self.scores, self.squares = self.scores + scores.sum(0), self.squares + (scores**2).sum(0)
        self.at_poles = self.at_poles + activations.transpose(0, 2, 1) @ embeddings  # [pole, component, d_embed]
        self.embeddings = self.embeddings + embeddings.sum(0)

    def activity(self):
        """The Activity of all images so far, of which there is at least one."""
        mean = self.embeddings / self.count
        centred = self.at_poles - self.weights[..., None] * mean
        weights = np.maximum(self.weights, np.finfo(float).tiny)[..., None]
        spread = np.sqrt(np.clip(self.squares / self.count - (self.scores / self.count) ** 2, 0, None))
        return Activity(centred / weights, (centred[0] - centred[1]) / self.count, spread)


def activities(stored, layer, explanations, choices):
    """Activity of components of a layer's heads over choices of images: {key: [Activity of each choice]}.

    layer: its number, or EMBEDDING; explanations: {key: (head, HeadExplanation with components)}
    choices: bool arrays [image]. The images are read once, chunk by chunk.
    """
    sums = {key: [ActivitySums() for _ in choices] for key in explanations}
    chunks = (rows[:, None] for rows in stored.embeddings()) if layer == EMBEDDING else stored.reduced(layer)
    for q, embeddings, *inside in zip(chunks, stored.embeddings(), *map(stored.by_chunk, choices)):
        for key, (head, explanation) in explanations.items():
            number = 0 if layer == EMBEDDING else head
            basis = None if layer == EMBEDDING else stored.basis[layer, head].astype(np.float64)
            scores = component_scores(q[:, number], basis, explanation.components, explanation.mean)
            for choice, rows in enumerate(inside):
                sums[key][choice].add(scores[rows], embeddings[rows])
    return {key: [choice.activity() for choice in choices_of_key] for key, choices_of_key in sums.items()}


def fit_activities(stored, layer, explanations):
    """Activity of components of a layer's heads over all fit images, {key: Activity}; arguments as of `activities`."""
    kept = {key: kept_activity(stored, layer, head, value.components) for key, (head, value) in explanations.items()}
    if any(activity is None for activity in kept.values()):
        return {key: activity for key, (activity,) in activities(stored, layer, explanations, [stored.fit]).items()}
    return kept


def kept_activity(stored, layer, head, components):
    """Activity of a head's components over all fit images where only sums of these are stored; else None."""
    if (kept := stored.pole_sums(layer, head, components)) is None:
        return None
    sums = ActivitySums()
    vars(sums).update(kept)
    return sums.activity()


def text_scores(naming, components, activity, pool):
    """Scores of all texts at both poles by one of NAMINGS, the larger the better: [pole, component, text].

    Rounded to 12 decimals, so that texts of equal score come in the order of the pool.
    components: [component, d_embed]; activity: their Activity. Raises ValueError for another naming.
    """
    if naming == "says":
        projection = (components @ pool.centred.T).round(12)
        return np.stack([projection, -projection])
    if naming == "fires_on":
        return (activity.means @ pool.scaled.T).round(12)
    if naming == "pattern":
        spread = np.where(activity.spread > 0, activity.spread, np.inf)
        correlation = ((activity.covariance / spread[:, None]) @ pool.scaled.T).round(12)
        return np.stack([correlation, -correlation])
    if naming == "fires_on_said":
        says, scores = (text_scores(name, components, activity, pool) for name in ("says", "fires_on"))
        return np.where(says > 0, scores, scores - 2 * np.abs(scores).max(initial=0) - 1)  # behind all that are said
    raise ValueError(f"naming is '{naming}', not one of {', '.join(NAMINGS)}")


def name_components(components, activity, pool, *, texts_per_pole):
    """Table of the texts of all components by NAMED_BY, one row per component, pole, naming and place.

    Columns: component; pole, "top" or "bottom"; naming; place; text, its number; score, by which it was chosen (of
    says, the projection on the component itself, below 0 at the bottom pole); projection and activation, its scores by
    says and by fires_on towards this pole, whichever chose it: a projection below 0 is of a text that the component
    writes against. And of the first text, for all rows of a pole: margin over the best text of another meaning (0
    if there is none), score_by_chance and score_by_chance_95, what the best of as many random texts reaches in half of
    the cases and in 95 % of them, and named, whether the first text is above the latter.
    """
    by_naming = {naming: text_scores(naming, components, activity, pool) for naming in NAMED_BY}
    tables = []
    for naming, scores in by_naming.items():
        rank, count = len(components), min(texts_per_pole, len(pool.features))
        flat = scores.reshape(2 * rank, scores.shape[-1])  # top poles first
        chosen = highest(flat, max(count, min(32, flat.shape[1])))
        best = np.take_along_axis(flat, chosen[:, :1], axis=1)[:, 0]
        margin = best - next_meaning(flat, chosen, pool)
        margin = np.where(np.isfinite(margin), margin, 0.0)
        by_chance = chance(naming, activity, pool)
        chosen = chosen[:, :count]
        poles = {
            "component": np.tile(np.arange(rank), 2),
            "pole": np.repeat(["top", "bottom"], rank),
            "margin": margin,
            "score_by_chance": by_chance[0],
            "score_by_chance_95": by_chance[1],
            "named": best > by_chance[1],
        }
        table = pd.DataFrame({name: np.repeat(column, count) for name, column in poles.items()})
        by_pole = {name: of.reshape(flat.shape) for name, of in by_naming.items()}
        at_pole = {name: np.take_along_axis(of, chosen, axis=1) for name, of in by_pole.items()}
        table["naming"], table["place"] = naming, np.tile(np.arange(count), 2 * rank)
        table["text"], table["score"] = chosen.ravel(), at_pole[naming].ravel()
        table["projection"], table["activation"] = at_pole["says"].ravel(), at_pole["fires_on"].ravel()
        if naming == "says":
            table["score"] = np.where(table["pole"] == "top", table["score"], -table["score"])
        tables.append(table)
    table = pd.concat(tables).sort_values(["component", "pole"], ascending=[True, False], kind="stable")
    return table[COLUMNS].reset_index(drop=True)


def scores_of(table, components, activity, pool):
    """(projection, activation) of the texts of a table with component, pole and text, as in name_components."""
    component, text, pole = (
        table["component"].to_numpy(),
        table["text"].to_numpy(),
        (table["pole"] == "bottom").to_numpy(),
    )
    projection = np.einsum("td,td->t", components[component], pool.centred[text]) * np.where(pole, -1, 1)
    return projection, np.einsum("td,td->t", activity.means[pole.astype(int), component], pool.scaled[text])


def shown_names(table):
    """The texts of a table's rows as names to show; a pole whose name is no better than chance is unnamed."""
    return table["text"].where(table["named"].astype(bool), "unnamed (" + table["text"] + ")")


COLUMNS = ["component", "pole", "naming", "place", "text", "score", "projection", "activation", "margin"]
COLUMNS += ["score_by_chance", "score_by_chance_95", "named"]


def next_meaning(scores, chosen, pool):
    """Score of the best text that does not mean the same as the first of each row; -inf if there is none: [row].

    scores: [row, text]; chosen: the first texts of each row, best first [row, k]
    """
    best, rest = chosen[:, 0], chosen[:, 1:]
    cosine = (
        np.einsum("rd,rkd->rk", pool.directions[best], pool.directions[rest]) if rest.size else np.zeros(rest.shape)
    )
    differs = cosine < SAME_MEANING
    result = np.full(len(scores), -np.inf)
    inside = differs.any(1)
    first = rest[np.arange(len(rest)), differs.argmax(1)] if rest.size else best
    result[inside] = np.take_along_axis(scores, first[:, None], axis=1)[inside, 0]
    for row in np.flatnonzero(~inside):  # all of the first texts mean the same: look at the whole pool
        others = scores[row, pool.directions @ pool.directions[best[row]] < SAME_MEANING]
        result[row] = others.max(initial=-np.inf)
    return result


def chance(naming, activity, pool):
    """What the best of as many random texts as the pool has reaches, at CHANCE: [quantile, pole * component].

    Random texts point anywhere in the joint space. Those of `says` are as long as the pool's on average: the squared
    cosine of a random direction with a component follows a beta distribution. For `fires_on` the squared score, as a
    share of the largest that any text could have, nearly follows one too: that of the same mean and variance.
    """
    from scipy.special import betaincinv  # takes longer to import than most jobs need for all else

    count, width = pool.features.shape
    below = 2 * np.array(CHANCE)[:, None] ** (1 / count) - 1  # of the squares: half of the random texts score below 0
    poles = np.concatenate(activity.means)  # [pole * component, d_embed]
    if naming == "says":
        length = np.mean(np.sum(pool.centred**2, axis=1))
        return np.sqrt(length * betaincinv(0.5, (width - 1) / 2, below)) * np.ones(len(poles))
    axes, largest, mean, squares = pool.random_texts
    along = (poles @ axes) ** 2  # [pole * component, axis]
    largest = along @ largest
    known, tiny = np.where(largest > 0, largest, 1), np.finfo(float).tiny  # a pole without images has nothing
    mean, variance = along @ mean / known, ((along @ squares) * along).sum(1) / known**2
    variance = np.maximum(variance - mean**2, tiny)
    size = np.maximum(mean * (1 - mean) / variance - 1, tiny)  # a + b of the beta distribution
    share = betaincinv(np.maximum(mean * size, tiny), np.maximum((1 - mean) * size, tiny), below)
    share = np.nan_to_num(share, nan=1.0)  # of a single direction every text has all
    return np.sqrt(largest * share) * (1 + 1e-9)  # which equals it but for rounding, and so is not above it
