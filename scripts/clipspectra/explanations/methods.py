"""The methods to explain a head, and their controls, all in one form: directions in the order of their texts.

Whatever the method, a head's contributions c are reconstructed as mean + (c - mean) D^T D, with the rows of D the
orthonormal directions of the first texts. A text's direction is its projection on the space of the head's components;
a sparse sum of texts is taken as it is.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from safetensors import safe_open

from clipspectra.arrays import save_arrays
from clipspectra.explanations.sparse import explain_sparsely
from clipspectra.explanations.spectral import explain_components, principal_components
from clipspectra.explanations.textspan import text_span

METHODS = {
    "components": "principal components, each by the text that scores highest on it",
    "textspan": "greedy TextSpan, texts and data centred",
    "textspan_paper": "greedy TextSpan as in the paper's code, not centred",
    "sparse": "principal components, each as a weighted sum of a few texts (NNOMP)",
    "sparse_coherent": "the same, preferring texts that are alike (COMP)",
    "weights": "components of the head's value-output map instead of its data, named like components",
}
CONTROLS = {
    "components_without_text": "principal components as they are: the ceiling at each budget",
    "random_texts": "components named from a pool of random directions",
    "random_texts_sparse": "sparse, from a pool of random directions",
    "random_directions": "random directions of the joint space: the floor",
}


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
    with safe_open(path, "np") as file:
        keys = set(file.keys())
        if heads is None:
            heads = sorted(tuple(map(int, key.split(".")[1:])) for key in keys if key.startswith("mean."))
        for layer, head in heads:
            stored = {name: f"{name}.{layer}.{head}" for name in STORED_FIELDS}
            arrays = {name: file.get_tensor(key) for name, key in stored.items() if key in keys}
            explanations[layer, head] = HeadExplanation(**arrays, rank=None, table=None)
    return explanations


def explain(method, moments, text_features, *, budget, rng, weights=None, options=None):
    """A head's HeadExplanation by one of METHODS or CONTROLS.

    moments: of the head's contributions; text_features: [text, d_embed]; budget: largest number of TextSpan's texts and
    of random directions; rng: for the random controls; weights: Moments of the head's value-output map, for "weights"
    options: texts_per_pole, threshold, threshold_of and texts_chosen of explain_components, texts_per_component and
    coherence of explain_sparsely. Raises ValueError for an unknown method.
    """
    options = dict(options or {})
    sparse = {key: options.pop(key) for key in ("texts_per_component", "coherence") if key in options}
    if method == "components":
        return _from_components(explain_components(moments, text_features, **options))
    if method == "weights":
        if weights is None:
            raise ValueError("the method 'weights' needs the argument weights, see StoredActivations.weight_moments")
        explanation = _from_components(explain_components(weights, text_features, **options))
        return replace(explanation, mean=moments.embedded_mean())
    if method == "random_texts":
        pool = rng.normal(size=np.shape(text_features))
        explanation = _from_components(explain_components(moments, pool, **options))
        return replace(explanation, table=explanation.table.assign(text=-1))
    if method in ("textspan", "textspan_paper"):
        variant = "paper" if method == "textspan_paper" else "centred"
        span = text_span(moments, text_features, iterations=budget, variant=variant)
        place = np.arange(len(span.text))
        share = 100 * span.variance / max(moments.total_variance(), np.finfo(float).tiny)
        table = pd.DataFrame({"place": place, "text": span.text, "variance": share})
        # The paper's TextSpan has the rank of the uncentred data.
        rank = len(principal_components(moments)[0]) if variant == "paper" else span.rank
        return HeadExplanation(span.mean, rank, span.steps, place + 1, table)
    if method in ("sparse", "sparse_coherent", "random_texts_sparse"):
        if method != "sparse_coherent":
            sparse["coherence"] = 0.0
        pool = rng.normal(size=np.shape(text_features)) if method.startswith("random") else text_features
        explanation = _from_sparse_code(explain_sparsely(moments, pool, **sparse, **options))
        if method.startswith("random"):
            return replace(explanation, table=explanation.table.assign(text=-1))
        return explanation
    if method == "components_without_text":
        singular, components = principal_components(moments)
        table = pd.DataFrame({"component": np.arange(len(components)), "singular_value": singular, "text": -1})
        rank, steps = len(components), components
    elif method == "random_directions":
        rank, width = len(principal_components(moments)[0]), np.shape(text_features)[1]
        steps = np.linalg.qr(rng.normal(size=(width, min(budget, width))))[0].T if rank else np.zeros((0, width))
        table = pd.DataFrame({"place": np.arange(len(steps)), "text": -1})
    else:
        raise ValueError(f"'{method}' is no method; use one of {', '.join(METHODS | CONTROLS)}")
    return HeadExplanation(moments.embedded_mean(), rank, steps, np.arange(len(steps)) + 1, table)


def _from_components(explanation):
    """The HeadExplanation of a ComponentExplanation: one row per text of either pole."""
    rank, kept = explanation.top_text.shape
    columns = {
        "component": np.repeat(np.arange(rank), 2 * kept),
        "singular_value": np.repeat(explanation.singular_values, 2 * kept),
        "strength": np.repeat(explanation.strength, 2 * kept),
        "pole": np.tile(np.repeat(["top", "bottom"], kept), rank),
        "place": np.tile(np.arange(kept), 2 * rank),
        "text": np.stack([explanation.top_text, explanation.bottom_text], axis=1).ravel(),
        "score": np.stack([explanation.top_score, explanation.bottom_score], axis=1).ravel(),
    }
    table, (steps, component) = pd.DataFrame(columns), explanation.steps()
    rank, components = explanation.numerical_rank, explanation.components
    return HeadExplanation(explanation.mean, rank, steps, component + 1, table, components)


def _from_sparse_code(code):
    """The HeadExplanation of a SparseCode: one row per text with a weight."""
    explanation, (rank, kept) = code.explanation, code.text.shape
    columns = {
        "component": np.repeat(np.arange(rank), kept),
        "singular_value": np.repeat(explanation.singular_values, kept),
        "strength": np.repeat(explanation.strength, kept),
        "pole": np.repeat(code.pole, kept),
        "place": np.tile(np.arange(kept), rank),
        "text": code.text.ravel(),
        "weight": code.weight.ravel(),
        "cosine": np.repeat(code.cosine, kept),
    }
    table = pd.DataFrame(columns)
    steps, component = code.steps()
    texts = np.cumsum((code.weight > 0).sum(1))[component]
    return HeadExplanation(explanation.mean, explanation.numerical_rank, steps, texts, table[table["weight"] > 0])
