"""Principal components of one head over a dataset, each named with the texts at its two poles.

Everything follows from the mean and covariance of the head's rows, in whatever coordinates they are given
(Moments), so memory does not grow with the number of images and shards merge exactly. All in float64.
"""

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg


@dataclass
class Reduced:
    """Contributions of one head in reduced coordinates: row i is basis @ q[i].

    q: [image, d_head + 3]; basis: B of the head, [d_embed, d_head + 3]
    """

    q: np.ndarray
    basis: np.ndarray

    def dense(self):
        """Contributions, [image, d_embed]."""
        return np.asarray(self.q) @ np.asarray(self.basis).T


@dataclass
class Moments:
    """Count, mean [coordinate] and covariance [coordinate, coordinate] (divided by count) of rows.

    basis: [d_embed, coordinate], maps coordinates to the joint space; None where they are the same.
    """

    count: int
    mean: np.ndarray
    covariance: np.ndarray
    basis: np.ndarray | None = None

    @classmethod
    def of(cls, data):
        """Moments of Reduced rows or of an array [image, d_embed]."""
        if isinstance(data, cls):
            return data
        rows, basis = (data.q, data.basis) if isinstance(data, Reduced) else (data, None)
        rows = np.asarray(rows, np.float64)
        mean = rows.mean(0)
        centred = rows - mean
        return cls(
            len(rows), mean, centred.T @ centred / len(rows), None if basis is None else np.asarray(basis, np.float64)
        )

    def merge(self, other):
        """Moments of both sets of rows (Chan, Golub and LeVeque 1983)."""
        count = self.count + other.count
        step = other.mean - self.mean
        share = other.count / count
        covariance = (1 - share) * self.covariance + share * other.covariance
        covariance += share * (1 - share) * np.outer(step, step)
        return replace(self, count=count, mean=self.mean + share * step, covariance=covariance)

    def about_origin(self):
        """The same with the second moment about 0 in place of the covariance."""
        second = self.covariance + np.outer(self.mean, self.mean)
        return replace(self, mean=np.zeros_like(self.mean), covariance=second)

    def embedded_mean(self):
        """Mean contribution, [d_embed]."""
        return self.mean if self.basis is None else self.basis @ self.mean


def principal_components(moments):
    """(singular values of the centred rows [rank], components [rank, d_embed]), largest first, to the numerical rank.

    The sign is fixed: a component's entry of largest magnitude is positive. The numerical rank is judged at
    float32 rounding, the precision of the rows.
    """
    if moments.basis is None:
        frame, covariance = None, moments.covariance
    else:
        frame, triangle = np.linalg.qr(moments.basis)  # thin: [d_embed, k], [k, coordinate]
        covariance = triangle @ moments.covariance @ triangle.T
    values, vectors = np.linalg.eigh(covariance)
    singular = np.sqrt(np.clip(values[::-1], 0, None) * moments.count)
    # A head that says the same of every image has singular values of rounding size beside its mean.
    scale = max(singular[0], np.linalg.norm(moments.embedded_mean()) * np.sqrt(moments.count))
    rank = int((singular > scale * len(singular) * np.finfo(np.float32).eps).sum())
    vectors = vectors[:, ::-1][:, :rank]
    components = (vectors if frame is None else frame @ vectors).T
    largest = np.abs(components).argmax(1)
    signs = np.sign(components[np.arange(rank), largest])
    return singular[:rank], components * signs[:, None]


@dataclass
class Explanation:
    """A head's components and their texts. k texts a pole, or as many as the pool has.

    singular_values [rank] and strength [rank], their share of the sum of all the head's singular values
    components [rank, d_embed]; mean, mean contribution over the fitted images [d_embed]
    top_text, bottom_text [rank, k]: indices into the pool, best first; top_score, bottom_score [rank, k]: projections
    of the centred texts on the component
    text_scores [text, rank]: projections of all centred texts on all components
    texts_chosen: which pole's text stands for a component in a reconstruction, see explain_components
    """

    singular_values: np.ndarray
    strength: np.ndarray
    components: np.ndarray
    mean: np.ndarray
    top_text: np.ndarray
    bottom_text: np.ndarray
    top_score: np.ndarray
    bottom_score: np.ndarray
    text_scores: np.ndarray
    texts_chosen: str

    @property
    def rank(self):
        """Number of components."""
        return len(self.components)

    @property
    def chosen_text(self):
        """The one text that stands for each component in a reconstruction, index into the pool [rank]."""
        if self.texts_chosen == "reference" or self.top_text.shape[1] == 0:
            return self.top_text[:, 0]
        positive = self.top_score[:, 0] >= -self.bottom_score[:, 0]
        return np.where(positive, self.top_text[:, 0], self.bottom_text[:, 0])

    def aligned(self, components):
        """This explanation with each component's sign turned to agree with `components` [rank, d_embed]; poles swap."""
        turn = np.sum(self.components * components[: self.rank], axis=1) < 0
        flip = np.where(turn, -1.0, 1.0)[:, None]

        def swap(one, other, sign=1):
            return np.where(turn[:, None], sign * other, one)

        return replace(
            self,
            components=self.components * flip,
            text_scores=self.text_scores * flip.T,
            top_text=swap(self.top_text, self.bottom_text),
            bottom_text=swap(self.bottom_text, self.top_text),
            top_score=swap(self.top_score, self.bottom_score, -1),
            bottom_score=swap(self.bottom_score, self.top_score, -1),
        )

    def reconstruct(self, data):
        """The rows as their mean plus what the span of one text a component holds of them.

        data: Reduced, or an array [image, d_embed]; returns [image, d_embed].
        """
        rows = np.asarray(data.dense() if isinstance(data, Reduced) else data, np.float64)
        span = self.directions(self.rank)
        return self.mean + (rows - self.mean) @ span.T @ span

    def directions(self, budget):
        """Orthonormal basis of what one text for each of the first components spans, [at most budget, d_embed]."""
        budget = min(budget, self.rank)
        if budget == 0:
            return self.components[:0]
        chosen = self.text_scores[self.chosen_text[:budget], :budget]  # singular if two components share a text
        return scipy.linalg.orth(chosen.T, rcond=1e-8).T @ self.components[:budget]


def explain_components(data, text_features, *, texts_per_pole=5, threshold=0.99, texts_chosen="signed"):
    """Principal components of a head with the texts closest to either pole.

    data: contributions of one head over a dataset, as [image, d_embed], Reduced, or Moments
    text_features: [text, d_embed]; both are centred
    threshold: keep the first components that hold this share of the sum of all singular values
    texts_chosen: the text a component is reconstructed with: "signed", of the largest |score|; or "reference", the
      first of the positive pole, as the reference implementation does though the sign is arbitrary
    """
    if texts_chosen not in ("signed", "reference"):
        raise ValueError(f"texts_chosen is '{texts_chosen}', not 'signed' or 'reference'")
    moments = Moments.of(data)
    singular, components = principal_components(moments)
    share = np.cumsum(singular) / max(singular.sum(), np.finfo(float).tiny)
    rank = min(len(singular), int(np.searchsorted(share, threshold)) + 1)
    components = components[:rank]
    text_features = np.asarray(text_features, np.float64)
    scores = (text_features - text_features.mean(0)) @ components.T  # [text, rank]
    order = np.argsort(-scores, axis=0, kind="stable").T  # [rank, text]
    kept = min(texts_per_pole, len(scores))
    top, bottom = order[:, :kept], order[:, ::-1][:, :kept]
    return Explanation(
        singular_values=singular[:rank],
        strength=singular[:rank] / max(singular.sum(), np.finfo(float).tiny),
        components=components,
        mean=moments.embedded_mean(),
        top_text=top,
        bottom_text=bottom,
        top_score=np.take_along_axis(scores.T, top, axis=1),
        bottom_score=np.take_along_axis(scores.T, bottom, axis=1),
        text_scores=scores,
        texts_chosen=texts_chosen,
    )
