"""The ways to explain a head, and their controls, each brought to one form: directions in the order of their texts.

Whatever the method, a head's contributions c are told as mean + (c - mean) D^T D, with the rows of D the orthonormal
directions that the first texts bring. What a text brings is its part along the head's own components; a sparse sum of
texts counts as it is.
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


@dataclass
class HeadExplanation:
    """One head as a method tells it.

    mean: mean contribution over the fitted images [d_embed]; rank: numerical rank of what the method decomposes
    steps: orthonormal directions [step, d_embed]; texts: number of texts it takes to have each step [step], rising
    table: one row a text (a step, where there are no texts), its "text" an index into the pool
    components: [component, d_embed], None for a method without
    """

    mean: np.ndarray
    rank: int
    steps: np.ndarray
    texts: np.ndarray
    table: pd.DataFrame
    components: np.ndarray | None = None

    def directions(self, budget):
        """The directions that this many texts bring, orthonormal [step, d_embed]."""
        return self.steps[: np.searchsorted(self.texts, budget, side="right")]

    def reconstruct(self, data):
        """The rows [image, d_embed] as their mean plus what all steps hold of them."""
        return self.mean + (data - self.mean) @ self.steps.T @ self.steps


def save_explanations(path, told, metadata):
    """Write {(layer, head): HeadExplanation} as safetensors, directions as float32, without the tables."""
    arrays = {}
    for (layer, head), of_head in told.items():
        for name in ("mean", "steps", "texts", "components"):
            if getattr(of_head, name) is not None:
                array = getattr(of_head, name)
                arrays[f"{name}.{layer}.{head}"] = array if array.dtype == int else array.astype(np.float32)
    save_arrays(path, arrays, metadata)


def load_explanations(path, wanted=None):
    """{(layer, head): HeadExplanation} of a file that save_explanations wrote, of all heads or those wanted, without ranks and tables."""
    told = {}
    with safe_open(path, "np") as file:
        names = set(file.keys())
        if wanted is None:
            wanted = sorted(tuple(map(int, name.split(".")[1:])) for name in names if name.startswith("mean."))
        for layer, head in wanted:
            found = {name: f"{name}.{layer}.{head}" for name in ("mean", "steps", "texts", "components")}
            arrays = {name: file.get_tensor(key) for name, key in found.items() if key in names}
            told[layer, head] = HeadExplanation(**arrays, rank=None, table=None)
    return told


def explain(method, moments, text_features, *, budget, rng, weights=None, options=None):
    """A head as one of METHODS or CONTROLS tells it: HeadExplanation.

    moments: of the head's contributions; text_features: [text, d_embed]; budget: most texts of TextSpan and of random
    directions; rng: of the random controls; weights: Moments of the head's value-output map, which `weights` explains
    options: texts_per_pole, threshold, threshold_of and texts_chosen of explain_components, texts_per_component and
    coherence of explain_sparsely. Raises ValueError for an unknown method.
    """
    options = dict(options or {})
    sparse = {key: options.pop(key) for key in ("texts_per_component", "coherence") if key in options}
    if method == "components":
        return _from_components(explain_components(moments, text_features, **options))
    if method == "weights":
        told = _from_components(explain_components(weights, text_features, **options))
        return replace(told, mean=moments.embedded_mean())
    if method == "random_texts":
        told = _from_components(explain_components(moments, rng.normal(size=np.shape(text_features)), **options))
        return replace(told, table=told.table.assign(text=-1))
    if method in ("textspan", "textspan_paper"):
        variant = "paper" if method == "textspan_paper" else "centred"
        found = text_span(moments, text_features, iterations=budget, variant=variant)
        count = np.arange(len(found.text))
        share = 100 * found.variance / max(moments.total_variance(), np.finfo(float).tiny)
        table = pd.DataFrame({"place": count, "text": found.text, "variance": share})
        rank = len(principal_components(moments)[0]) if variant == "paper" else found.rank  # its own is not centred
        return HeadExplanation(found.mean, rank, found.steps, count + 1, table)
    if method in ("sparse", "sparse_coherent", "random_texts_sparse"):
        if method != "sparse_coherent":
            sparse["coherence"] = 0.0
        pool = rng.normal(size=np.shape(text_features)) if method.startswith("random") else text_features
        told = _from_sparse_code(explain_sparsely(moments, pool, **sparse, **options))
        return replace(told, table=told.table.assign(text=-1)) if method.startswith("random") else told
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


def _from_components(found):
    """HeadExplanation, of a spectral.Explanation."""
    rank, kept = found.top_text.shape
    columns = {
        "component": np.repeat(np.arange(rank), 2 * kept),
        "singular_value": np.repeat(found.singular_values, 2 * kept),
        "strength": np.repeat(found.strength, 2 * kept),
        "pole": np.tile(np.repeat(["top", "bottom"], kept), rank),
        "place": np.tile(np.arange(kept), 2 * rank),
        "text": np.stack([found.top_text, found.bottom_text], axis=1).ravel(),
        "score": np.stack([found.top_score, found.bottom_score], axis=1).ravel(),
    }
    steps, places = found.steps()
    return HeadExplanation(found.mean, found.numerical_rank, steps, places + 1, pd.DataFrame(columns), found.components)


def _from_sparse_code(found):
    """HeadExplanation, of a sparse.SparseCode."""
    explanation, (rank, kept) = found.explanation, found.text.shape
    columns = {
        "component": np.repeat(np.arange(rank), kept),
        "singular_value": np.repeat(explanation.singular_values, kept),
        "strength": np.repeat(explanation.strength, kept),
        "pole": np.repeat(found.pole, kept),
        "place": np.tile(np.arange(kept), rank),
        "text": found.text.ravel(),
        "weight": found.weight.ravel(),
        "cosine": np.repeat(found.cosine, kept),
    }
    table = pd.DataFrame(columns)
    steps, places = found.steps()
    texts = np.cumsum((found.weight > 0).sum(1))[places]
    return HeadExplanation(explanation.mean, explanation.numerical_rank, steps, texts, table[table["weight"] > 0])
