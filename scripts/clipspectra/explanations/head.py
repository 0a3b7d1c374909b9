"""A head's explanation in the form that all methods share: directions in the order of their texts.

Whatever the method, a head's contributions c are reconstructed as mean + (c - mean) D^T D, with the rows of D the
orthonormal directions of the first texts. What a text, or a sum of texts, brings is its part in the head's own space.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from clipspectra.arrays import save_arrays
from clipspectra.checked import open_arrays
from clipspectra.explanations.spectral import component_scores
from clipspectra.jobs import progress

STORED_FIELDS = ("mean", "steps", "texts", "components")  # of a HeadExplanation in a file


@dataclass
class HeadExplanation:
    """One head's explanation by one method.

    mean: mean contribution over the fitted images [d_embed]; rank: numerical rank of what the method decomposes
    steps: orthonormal directions [step, d_embed]; texts: number of texts needed for each step [step], rising
    table: one row per text (per step, where there are no texts), its "text" an index into the pool
    components: [component, d_embed], None for a method without components
    """

    mean: np.ndarray
    rank: int
    steps: np.ndarray
    texts: np.ndarray
    table: pd.DataFrame
    components: np.ndarray | None = None

    def stored(self):
        """This explanation as save_explanations keeps it: without the table, floats as float32."""
        arrays = {name: getattr(self, name) for name in STORED_FIELDS if getattr(self, name) is not None}
        arrays = {name: array if array.dtype == int else array.astype(np.float32) for name, array in arrays.items()}
        return HeadExplanation(**arrays, rank=None, table=None)

    def directions(self, budget):
        """The directions of the first `budget` texts, orthonormal [step, d_embed]."""
        return self.steps[: np.searchsorted(self.texts, budget, side="right")]

    def reconstruct(self, data):
        """The contributions [image, d_embed] projected, about the mean, on the span of all steps."""
        return self.mean + (data - self.mean) @ self.steps.T @ self.steps


def save_explanations(path, explanations, metadata):
    """Write {(layer, head): HeadExplanation} as safetensors, directions as float32, without ranks and tables."""
    arrays = {}
    for (layer, head), explanation in explanations.items():
        stored = explanation.stored()
        for name in STORED_FIELDS:
            if (array := getattr(stored, name)) is not None:
                arrays[f"{name}.{layer}.{head}"] = array
    save_arrays(path, arrays, metadata)


def load_explanations(path, heads=None):
    """{(layer, head): HeadExplanation} of save_explanations, without ranks and tables; of `heads` only, if given."""
    explanations = {}
    with open_arrays(path) as file:
        keys = set(file.keys())
        if heads is None:
            heads = sorted(tuple(map(int, key.split(".")[1:])) for key in keys if key.startswith("mean."))
        for layer, head in heads:
            stored = {name: f"{name}.{layer}.{head}" for name in STORED_FIELDS}
            arrays = {name: file.get_tensor(key) for name, key in stored.items() if key in keys}
            explanations[layer, head] = HeadExplanation(**arrays, rank=None, table=None)
    return explanations


def scores_by_head(stored, explanations):
    """((layer, head), scores of the scored images [image, component]) of each of the explanations, one after the other.

    stored: StoredActivations; explanations: {(layer, head): HeadExplanation} with components
    """
    for unit, explanation in progress(explanations.items(), "component scores", unit="head"):
        rows, basis = stored.rows_and_basis(*unit)
        yield unit, component_scores(rows[stored.scored], basis, explanation.components, explanation.mean)
