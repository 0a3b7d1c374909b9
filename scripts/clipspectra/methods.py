"""The ways to explain a head, and their controls. Each gives, for a number of texts, the subspace that these span.

Whatever the method, a head's contributions c are then told as mean + (c - mean) D^T D, with the rows of D an
orthonormal basis of that subspace: `directions(budget)` of what `explained` returns.
"""

from dataclasses import dataclass

import numpy as np

from clipspectra.spectral import explain_components, principal_components
from clipspectra.textspan import text_span

METHODS = {
    "components": "principal components, each by the text that scores highest on it",
    "textspan": "greedy TextSpan, texts and data centred",
    "textspan_paper": "greedy TextSpan as in the paper's code, not centred",
}
CONTROLS = {
    "components_without_text": "principal components as they are: the ceiling at each budget",
    "random_texts": "principal components named from a pool of random directions",
    "random_directions": "random directions of the joint space: the floor",
}


@dataclass
class Directions:
    """An orthonormal basis [step, d_embed] whose first rows stand for the first steps."""

    steps: np.ndarray

    def directions(self, budget):
        return self.steps[:budget]


def explained(method, moments, text_features, *, budget, rng, **options):
    """A head's explanation with at most `budget` texts; it has directions(budget), orthonormal [<= budget, d_embed].

    moments: of the head's contributions; text_features: [text, d_embed]; rng: of the random controls; options: of
    explain_components. Raises ValueError for an unknown method.
    """
    if method == "components":
        return explain_components(moments, text_features, **options)
    if method in ("textspan", "textspan_paper"):
        variant = "paper" if method == "textspan_paper" else "centred"
        return text_span(moments, text_features, iterations=budget, variant=variant)
    if method == "components_without_text":
        return Directions(principal_components(moments)[1])
    if method == "random_texts":
        return explain_components(moments, rng.normal(size=np.shape(text_features)), **options)
    if method == "random_directions":
        width = np.shape(text_features)[1]
        return Directions(np.linalg.qr(rng.normal(size=(width, min(budget, width))))[0].T)
    raise ValueError(f"'{method}' is no method; use one of {', '.join(METHODS | CONTROLS)}")
