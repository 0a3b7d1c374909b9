"""Principal components of one head over a dataset, each named with the texts at its two poles.

Everything follows from the mean and covariance of the head's rows, in whatever coordinates they are given
(Moments), so memory does not grow with the number of images and shards merge exactly. All in float64.
"""

from dataclasses import dataclass, replace

import numpy as np

from clipspectra.contributions.moments import Moments, Reduced


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


def highest(values, count):
    """Places of the `count` largest values of each row, the largest first; of equal ones the first: [row, count]."""
    count = min(count, values.shape[1])
    if count < values.shape[1]:
        least = -np.partition(-values, count - 1, axis=1)[:, count - 1]
        # a few candidates more, where values tie with the last one
        width = int((values >= least[:, None]).sum(1).max(initial=count))
        places = np.sort(np.argpartition(-values, width - 1, axis=1)[:, :width], axis=1)
    else:
        places = np.tile(np.arange(values.shape[1]), (len(values), 1))
    order = np.argsort(-np.take_along_axis(values, places, axis=1), axis=1, kind="stable")[:, :count]
    return np.take_along_axis(places, order, axis=1)


def orthonormal(rows):
    """(orthonormal rows that span the same, in the same order; place of the row that brought each) of rows.

    Rows that lie in the span of earlier ones bring none.
    """
    found, places = np.empty_like(rows), []
    for place, row in enumerate(rows):
        before, left = found[: len(places)], row
        for _ in range(2):  # once more, against rounding
            left = left - (before @ left) @ before
        length = np.linalg.norm(left)
        if length > 1e-8 * np.linalg.norm(row):
            found[len(places)] = left / length
            places.append(place)
    return found[: len(places)], np.array(places, int)


@dataclass
class ComponentExplanation:
    """A head's components and their texts. k texts a pole, or as many as the pool has.

    singular_values [rank] and strength [rank], their share of the sum of all the head's singular values
    components [rank, d_embed]; mean, mean contribution over the fitted images [d_embed]
    numerical_rank: of the contributions, before the threshold
    top_text, bottom_text [rank, k]: indices into the pool, best first; top_score, bottom_score [rank, k]: projections
    of the centred texts on the component
    text_scores [text, rank]: projections of all centred texts on all components
    texts_chosen: which pole's text stands for a component in a reconstruction, see explain_components
    """

    singular_values: np.ndarray
    strength: np.ndarray
    components: np.ndarray
    mean: np.ndarray
    numerical_rank: int
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
        steps, _ = self.steps()
        return self.mean + (rows - self.mean) @ steps.T @ steps

    def steps(self):
        """(orthonormal directions [step, d_embed], the component whose text brought each [step]).

        The first steps span what the texts of the first components hold of the head's components, all of them.
        """
        chosen = self.text_scores[self.chosen_text]  # [rank, rank], singular if two components share a text
        steps, places = orthonormal(chosen)
        return steps @ self.components, places


def explain_components(
    data, text_features, *, texts_per_pole=5, threshold=0.99, texts_chosen="signed", threshold_of="singular_values"
):
    """Principal components of a head with the texts closest to either pole.

    data: contributions of one head over a dataset, as [image, d_embed], Reduced, or Moments
    text_features: [text, d_embed]; both are centred
    threshold: keep the first components that hold this share of the sum of all "singular_values", as the reference
      implementation does, or of the "variance", the sum of their squares, as threshold_of says
    texts_chosen: the text a component is reconstructed with: "signed", of the largest |score|; or "reference", the
      first of the positive pole, as the reference implementation does though the sign is arbitrary
    """
    if texts_chosen not in ("signed", "reference"):
        raise ValueError(f"texts_chosen is '{texts_chosen}', not 'signed' or 'reference'")
    if threshold_of not in ("singular_values", "variance"):
        raise ValueError(f"threshold_of is '{threshold_of}', not 'singular_values' or 'variance'")
    moments = Moments.from_data(data)
    singular, components = principal_components(moments)
    counted = singular if threshold_of == "singular_values" else singular**2
    share = np.cumsum(counted) / max(counted.sum(), np.finfo(float).tiny)
    rank = min(len(singular), int(np.searchsorted(share, threshold)) + 1)
    components = components[:rank]
    text_features = np.asarray(text_features, np.float64)
    scores = (text_features - text_features.mean(0)) @ components.T  # [text, rank]
    top, bottom = highest(scores.T, texts_per_pole), highest(-scores.T, texts_per_pole)
    return ComponentExplanation(
        singular_values=singular[:rank],
        strength=singular[:rank] / max(singular.sum(), np.finfo(float).tiny),
        components=components,
        mean=moments.embedded_mean(),
        numerical_rank=len(singular),
        top_text=top,
        bottom_text=bottom,
        top_score=np.take_along_axis(scores.T, top, axis=1),
        bottom_score=np.take_along_axis(scores.T, bottom, axis=1),
        text_scores=scores,
        texts_chosen=texts_chosen,
    )
