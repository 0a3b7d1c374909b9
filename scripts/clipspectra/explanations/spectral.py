"""Principal components of one head over a dataset, each named with the texts at its two poles.

Everything follows from the mean and covariance of the head's contributions, in whatever coordinates (Moments), so
memory does not grow with the number of images and shards merge exactly. All in float64.
"""

from dataclasses import dataclass, replace

import numpy as np

from clipspectra.contributions.moments import Moments, Reduced


def principal_components(moments):
    """(singular values of the centred data [rank], components [rank, d_embed]), largest first, to the numerical rank.

    The sign is fixed: a component's entry of largest magnitude is positive. Components count to the numerical rank:
    their singular value is above float32 rounding, the precision of the forward pass, and above what the rounding of
    the stored numbers can make of nothing.
    """
    if moments.basis is None:
        frame, covariance, errors = None, moments.covariance, moments.rounding().max()
    else:
        frame, triangle = np.linalg.qr(moments.basis)  # thin: [d_embed, k], [k, coordinate]
        covariance = triangle @ moments.covariance @ triangle.T
        errors = np.linalg.norm(triangle * np.sqrt(moments.rounding()), 2) ** 2  # largest variance of any direction
    eigenvalues, vectors = np.linalg.eigh(covariance)
    singular = np.sqrt(np.clip(eigenvalues[::-1], 0, None) * moments.count)
    # A head whose contribution is constant has singular values of rounding size beside its mean.
    scale = max(singular[0], np.linalg.norm(moments.embedded_mean()) * np.sqrt(moments.count))
    # The largest singular value of random errors: Marchenko and Pastur's edge.
    rounding = np.sqrt(errors) * (np.sqrt(moments.count) + np.sqrt(len(singular)))
    rank = int((singular > max(scale * len(singular) * np.finfo(np.float32).eps, rounding)).sum())
    vectors = vectors[:, ::-1][:, :rank]
    components = (vectors if frame is None else frame @ vectors).T
    largest = np.abs(components).argmax(1)
    signs = np.sign(components[np.arange(rank), largest])
    return singular[:rank], components * signs[:, None]


def component_scores(q, basis, components, mean):
    """Scores of images on one head's components, [image, component].

    q: [image, d_head + 3]; basis: B [d_embed, d_head + 3], None where q are contributions [image, d_embed]
    components: [component, d_embed]; mean: [d_embed]
    """
    directions = components if basis is None else components @ basis
    return q @ directions.T - components @ mean


def falling(scores):
    """Numbers of the images by falling score, ties in order [image, component]: a stable sort, but faster.

    scores: [image, component]
    """
    negative = np.ascontiguousarray(-scores.T)
    order = np.argsort(negative, axis=1)
    ordered = np.take_along_axis(negative, order, axis=1)
    tied = (ordered[:, 1:] == ordered[:, :-1]).any(1)
    order[tied] = np.argsort(negative[tied], axis=1, kind="stable")
    return order.T


def pole_rows(scores, order, count):
    """(component, pole, rows) of the images with a head's most extreme scores: at most `count` for each pole.

    Only of those above 0 at the top and below 0 at the bottom: a few images may all lie on one side.
    scores: [image, component]; order: as `falling` gives it [image, component]
    """
    for component in range(scores.shape[1]):
        for pole, sign, rows in (("top", 1, order[:count]), ("bottom", -1, order[::-1][:count])):
            yield component, pole, rows[sign * scores[rows[:, component], component] > 0, component]


def highest(scores, count):
    """Indices of the `count` largest scores of each row, the largest first, ties in order: [row, count]."""
    count = min(count, scores.shape[1])
    if count < scores.shape[1]:
        least = -np.partition(-scores, count - 1, axis=1)[:, count - 1]
        # a few candidates more, where scores tie with the last one
        width = int((scores >= least[:, None]).sum(1).max(initial=count))
        candidates = np.sort(np.argpartition(-scores, width - 1, axis=1)[:, :width], axis=1)
    else:
        candidates = np.tile(np.arange(scores.shape[1]), (len(scores), 1))
    order = np.argsort(-np.take_along_axis(scores, candidates, axis=1), axis=1, kind="stable")[:, :count]
    return np.take_along_axis(candidates, order, axis=1)


def orthonormal(rows):
    """Gram-Schmidt: (orthonormal rows with the same span, in the same order; index of the row that each comes from).

    Rows that lie in the span of earlier ones give none.
    """
    directions, indices = np.empty_like(rows), []
    for index, row in enumerate(rows):
        earlier, residual = directions[: len(indices)], row
        for _ in range(2):  # once more, against rounding
            residual = residual - (earlier @ residual) @ earlier
        length = np.linalg.norm(residual)
        if length > 1e-8 * np.linalg.norm(row):
            directions[len(indices)] = residual / length
            indices.append(index)
    return directions[: len(indices)], np.array(indices, int)


@dataclass
class ComponentExplanation:
    """A head's components and their texts: k texts per pole, or as many as the pool has.

    singular_values [rank] and strength [rank], their share of the sum of all the head's singular values
    components [rank, d_embed]; mean, mean contribution over the fitted images [d_embed]
    numerical_rank: of the contributions, before the threshold
    top_text, bottom_text [rank, k]: indices into the pool, best first; top_score, bottom_score [rank, k]: their scores,
    the projections of the centred texts on the component
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
        """The text that stands for each component in a reconstruction, index into the pool [rank]."""
        if self.texts_chosen == "reference":
            return self.top_text[:, 0]
        positive = self.top_score[:, 0] >= -self.bottom_score[:, 0]
        return np.where(positive, self.top_text[:, 0], self.bottom_text[:, 0])

    def aligned(self, components):
        """This explanation with each component's sign set to agree with `components` [rank, d_embed]; poles swap."""
        flip = (np.sum(self.components * components[: self.rank], axis=1) < 0)[:, None]
        sign = np.where(flip, -1.0, 1.0)
        return replace(
            self,
            components=self.components * sign,
            text_scores=self.text_scores * sign.T,
            top_text=np.where(flip, self.bottom_text, self.top_text),
            bottom_text=np.where(flip, self.top_text, self.bottom_text),
            top_score=np.where(flip, -self.bottom_score, self.top_score),
            bottom_score=np.where(flip, -self.top_score, self.bottom_score),
        )

    def reconstruct(self, data):
        """The contributions projected, about the mean, on the span of one text per component, [image, d_embed].

        data: Reduced, or an array [image, d_embed]
        """
        data = np.asarray(data.dense() if isinstance(data, Reduced) else data, np.float64)
        steps, _ = self.steps()
        return self.mean + (data - self.mean) @ steps.T @ steps

    def steps(self):
        """(orthonormal directions [step, d_embed], the component whose text gives each [step]).

        The first steps span the projections of the first components' texts on the space of all the head's components.
        """
        chosen = self.text_scores[self.chosen_text]  # [rank, rank], singular if two components share a text
        steps, component = orthonormal(chosen)
        return steps @ self.components, component


def explain_components(
    data, text_features, *, texts_per_pole=5, threshold=0.99, texts_chosen="signed", threshold_of="singular_values"
):
    """Principal components of a head with the texts closest to either pole.

    data: contributions of one head over a dataset, as [image, d_embed], Reduced, or Moments
    text_features: [text, d_embed]; both are centred
    threshold, threshold_of: keep the first components that hold this share of the sum of all "singular_values", as the
      reference implementation does, or of the "variance", the sum of their squares
    texts_chosen: the text a component is reconstructed with: "signed", the one of the largest |score|; or "reference",
      the first of the positive pole, as in the reference implementation, though the sign is arbitrary
    Raises ValueError for another threshold_of or texts_chosen.
    """
    if texts_chosen not in ("signed", "reference"):
        raise ValueError(f"texts_chosen is '{texts_chosen}', not 'signed' or 'reference'")
    if threshold_of not in ("singular_values", "variance"):
        raise ValueError(f"threshold_of is '{threshold_of}', not 'singular_values' or 'variance'")
    moments = Moments.from_data(data)
    singular, components = principal_components(moments)
    spectrum = singular if threshold_of == "singular_values" else singular**2
    share = np.cumsum(spectrum) / max(spectrum.sum(), np.finfo(float).tiny)
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
