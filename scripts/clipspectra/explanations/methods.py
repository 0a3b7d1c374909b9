"""The methods to explain a head, and their controls, all as a HeadExplanation."""

from dataclasses import replace

import numpy as np
import pandas as pd

from clipspectra.explanations.head import HeadExplanation
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
