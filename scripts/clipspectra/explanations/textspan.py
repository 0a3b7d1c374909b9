"""TextSpan: the texts that together span most of a head's variance, picked greedily (Gandelsman et al., Algorithm 1).

A step picks the text along which the head's contributions vary most, then takes its direction out of the data and of
all texts. The variance along a text t is t^T S t with S the covariance of the contributions, so the images are not
needed: the list is the same whatever their order or the number of shards, and costs the same for any number of them.
"""

from dataclasses import dataclass

import numpy as np

from clipspectra.contributions.moments import Moments, Reduced
from clipspectra.explanations.spectral import principal_components


@dataclass
class TextSpan:
    """The texts of one head in the order of their choice.

    text: indices into the pool [step]; variance: variance that each step's text adds to that explained [step]
    steps: directions of the chosen texts, each orthogonal to the earlier ones, orthonormal [step, d_embed]
    mean: mean contribution over the fitted images [d_embed]; rank: numerical rank of the data, where the list ends
    """

    text: np.ndarray
    variance: np.ndarray
    steps: np.ndarray
    mean: np.ndarray
    rank: int

    def reconstruct(self, data):
        """The contributions projected, about the mean, on the span of the texts, [image, d_embed]."""
        data = np.asarray(data.dense() if isinstance(data, Reduced) else data, np.float64)
        return self.mean + (data - self.mean) @ self.steps.T @ self.steps


def text_span(data, text_features, *, iterations, rank=None, variant="centred"):
    """Texts that span the contributions of a head.

    data: contributions over a dataset, as [image, d_embed], Reduced, or Moments; text_features: [text, d_embed]
    iterations: texts to pick; fewer are picked where the numerical rank of data or texts ends
    rank: upper bound of the rank that the texts are projected to; the numerical rank caps it
    variant: "centred", texts and data are centred first, as in the reference implementation; "paper", the texts are not
      centred and are projected on the right singular vectors of the uncentred data, as in the paper's code
    Raises ValueError for another variant.
    """
    if variant not in ("centred", "paper"):
        raise ValueError(f"variant is '{variant}', not 'centred' or 'paper'")
    moments = Moments.from_data(data)
    mean, texts = moments.embedded_mean(), np.asarray(text_features, np.float64)
    if variant == "centred":
        texts, frame_moments = texts - texts.mean(0), moments
    else:
        frame_moments = moments.about_origin()
    frame = principal_components(frame_moments)[1][:rank]  # [rank, d_embed]
    texts = texts @ frame.T  # [text, rank]
    # S = root^T root: the rows of root are the centred data up to a rotation of the images, divided by sqrt(count).
    singular, components = principal_components(moments)
    root = (components * singular[:, None] / np.sqrt(moments.count)) @ frame.T  # [component, rank]
    projections = texts @ root.T  # [text, component]; its squared rows sum to t^T S t
    floor = np.finfo(np.float32).eps * len(frame)
    largest, longest = np.sqrt((projections**2).sum(1).max(initial=0)), np.linalg.norm(texts, axis=1).max(initial=0)
    picked, variance, steps = [], [], []
    while len(picked) < min(iterations, len(frame)):
        text_variance = (projections**2).sum(1)  # t^T S t of every text
        best = int(text_variance.argmax())
        direction, length = texts[best], np.linalg.norm(texts[best])
        if np.sqrt(text_variance[best]) <= floor * largest or length <= floor * longest:
            break
        direction = direction / length
        picked.append(best)
        steps.append(direction)
        variance.append(float(((root @ direction) ** 2).sum()))
        # deflation: the direction is taken out of all texts, and so out of their projections on the data
        along = texts @ direction
        texts = texts - along[:, None] * direction
        projections = projections - along[:, None] * (root @ direction)
    steps = np.array(steps).reshape(len(steps), len(frame)) @ frame
    return TextSpan(np.array(picked, int), np.array(variance), steps, mean, len(frame))
