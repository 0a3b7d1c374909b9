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

    text: indices into the pool [step]; variance: what each step's text adds to the variance explained [step]
    steps: directions of the chosen texts, each without what the earlier ones hold, orthonormal [step, d_embed]
    mean: mean contribution over the fitted images [d_embed]; rank: numerical rank of the data, where the list ends
    """

    text: np.ndarray
    variance: np.ndarray
    steps: np.ndarray
    mean: np.ndarray
    rank: int

    def reconstruct(self, data):
        """The rows as their mean plus what the span of the texts holds of them, [image, d_embed]."""
        rows = np.asarray(data.dense() if isinstance(data, Reduced) else data, np.float64)
        return self.mean + (rows - self.mean) @ self.steps.T @ self.steps


def text_span(data, text_features, *, iterations, rank=None, variant="centred"):
    """Texts that span the contributions of a head.

    data: contributions over a dataset, as [image, d_embed], Reduced, or Moments; text_features: [text, d_embed]
    iterations: texts to pick; fewer are picked where the numerical rank of data or texts ends
    rank: upper bound of the rank that the texts are projected to; the numerical rank caps it
    variant: "centred", texts and data are centred first, as the reference implementation does; "paper", the texts are
      not centred and are projected on the right singular vectors of the data that are not centred, as the paper's code
    """
    if variant not in ("centred", "paper"):
        raise ValueError(f"variant is '{variant}', not 'centred' or 'paper'")
    moments = Moments.from_data(data)
    mean, texts = moments.embedded_mean(), np.asarray(text_features, np.float64)
    frame_moments = moments if variant == "centred" else moments.about_origin()
    if variant == "centred":
        texts = texts - texts.mean(0)
    frame = principal_components(frame_moments)[1][:rank]  # [rank, d_embed]
    texts = texts @ frame.T
    # Rows of spread are the centred data up to a rotation of the images: |texts @ spread|^2 is the variance.
    singular, components = principal_components(moments)
    spread = (components * singular[:, None] / np.sqrt(moments.count)) @ frame.T  # [component, rank]
    along = texts @ spread.T  # [text, component]
    floor = np.finfo(np.float32).eps * len(frame)
    largest, size = np.sqrt((along**2).sum(1).max(initial=0)), np.linalg.norm(texts, axis=1).max(initial=0)
    picked, variance, steps = [], [], []
    while len(picked) < min(iterations, len(frame)):
        of_text = (along**2).sum(1)
        best = int(of_text.argmax())
        direction, length = texts[best], np.linalg.norm(texts[best])
        if np.sqrt(of_text[best]) <= floor * largest or length <= floor * size:
            break
        direction = direction / length
        picked.append(best)
        steps.append(direction)
        variance.append(float(((spread @ direction) ** 2).sum()))
        held = texts @ direction
        texts = texts - held[:, None] * direction
        along = along - held[:, None] * (spread @ direction)
    steps = np.array(steps).reshape(len(steps), len(frame)) @ frame
    return TextSpan(np.array(picked, int), np.array(variance), steps, mean, len(frame))
