"""The methods to explain a head, and their controls, all as a HeadExplanation."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from clipspectra.explanations.catalogue import CONTROLS, DRAWS, METHODS, RANDOM_POOLS
from clipspectra.explanations.head import HeadExplanation
from clipspectra.explanations.naming import name_components, scores_of
from clipspectra.explanations.sparse import explain_sparsely
from clipspectra.explanations.spectral import explain_components, orthonormal, principal_components
from clipspectra.explanations.textspan import text_span


def explain(method, moments, text_features, *, rng=None, weights=None, options=None):
    """A head's HeadExplanation by one of METHODS, or a control without a pool of its own (see explain_by_control).

    moments: of the head's contributions; text_features: [text, d_embed]; rng: for the random controls
    weights: Moments of the head's value-output map, for "weights"
    options: texts_per_pole, threshold, threshold_of and texts_chosen of explain_components; threshold, threshold_of,
    texts_per_component and coherence of explain_sparsely; the others have none. Raises ValueError for another method.
    """
    options = dict(options or {})
    if method == "components":
        return _from_components(explain_components(moments, text_features, **options))
    if method == "weights":
        if weights is None:
            raise ValueError("the method 'weights' needs the argument weights, see StoredActivations.weight_moments")
        explanation = _from_components(explain_components(weights, text_features, **options))
        return replace(explanation, mean=moments.embedded_mean())
    if method in ("textspan", "textspan_paper"):
        variant = "paper" if method == "textspan_paper" else "centred"
        span = text_span(moments, text_features, iterations=len(text_features), variant=variant)
        place = np.arange(len(span.text))
        share = 100 * span.variance / max(moments.total_variance(), np.finfo(float).tiny)
        table = pd.DataFrame({"place": place, "text": span.text, "variance": share})
        # The paper's TextSpan has the rank of the uncentred data.
        rank = len(principal_components(moments)[0]) if variant == "paper" else span.rank
        return HeadExplanation(span.mean, rank, span.steps, place + 1, table)
    if method in ("sparse", "sparse_coherent"):
        return _from_sparse_code(explain_sparsely(moments, text_features, **options))
    if method not in CONTROLS or method in RANDOM_POOLS:
        known = [name for name in (*METHODS, *CONTROLS) if name not in RANDOM_POOLS]
        raise ValueError(f"'{method}' explains no head by itself; use one of {', '.join(known)}")
    singular, components = principal_components(moments)
    rank, order = len(components), np.arange(len(components))
    if method == "components_without_text":
        table = pd.DataFrame({"component": order, "singular_value": singular, "text": -1})
        return HeadExplanation(moments.embedded_mean(), rank, components, order + 1, table)
    if method == "random_directions":
        table, drawn = pd.DataFrame({"place": order, "text": -1}), rng.normal(size=(rank, rank))
    else:
        texts = np.asarray(text_features, np.float64)
        numbers = rng.permutation(len(texts))[:rank]
        table = pd.DataFrame({"place": np.arange(len(numbers)), "text": numbers})
        drawn = (texts[numbers] - texts.mean(0)) @ components.T
    steps, place = orthonormal(drawn)
    return HeadExplanation(moments.embedded_mean(), rank, steps @ components, place + 1, table)


def explain_by_control(control, moments, text_features, *, rng, options=None):
    """One draw of a control for all heads: {key: HeadExplanation} of {key: Moments}; rng, options: as in explain."""
    if control not in RANDOM_POOLS:
        explain_head = partial(explain, control, text_features=text_features, rng=rng)
    else:
        pool = rng.normal(size=np.shape(text_features))
        explain_head = partial(explain, RANDOM_POOLS[control], text_features=pool, options=options)
    return {key: explain_head(head_moments) for key, head_moments in moments.items()}


def control_draws(control, moments, text_features, *, seed, options=None):
    """Explanations by a control: a list of {key: HeadExplanation}, one for each draw, without components and tables."""
    draws = []
    for number in range(DRAWS[control]):
        rng = np.random.default_rng([seed, number])
        explanations = explain_by_control(control, moments, text_features, rng=rng, options=options)
        draws.append({key: replace(explanation.stored(), components=None) for key, explanation in explanations.items()})
    return draws


def with_names(explanation, activity, pool, *, texts):
    """The HeadExplanation of a method with components, its table with the names of both namings (see name_components).

    activity: of the components; pool: TextPool; texts: most texts of a pole. A sparse sum is what its component says,
    and fires_on names the pole that it stands for; it has no margin.
    """
    table, names = explanation.table, name_components(explanation.components, activity, pool, texts_per_pole=texts)
    of_component = table[["component", "singular_value", "strength"]].drop_duplicates()
    if "weight" in table:
        poles = table[["component", "pole"]].drop_duplicates()
        names = names.merge(poles).query("naming != 'says'")
        sums = table.drop(columns=["singular_value", "strength"])
        sums["projection"], sums["activation"] = scores_of(sums, explanation.components, activity, pool)
        sums["score"] = sums["projection"].where(sums["pole"] == "top", -sums["projection"])
        names = pd.concat([sums, names]).sort_values("component", kind="stable")
    return replace(explanation, table=of_component.merge(names, on="component"))


def _from_components(explanation):
    """The HeadExplanation of a ComponentExplanation: one row per text of either pole."""
    rank, kept = explanation.top_text.shape
    columns = {
        "component": np.repeat(np.arange(rank), 2 * kept),
        "singular_value": np.repeat(explanation.singular_values, 2 * kept),
        "strength": np.repeat(explanation.strength, 2 * kept),
        "pole": np.tile(np.repeat(["top", "bottom"], kept), rank),
        "naming": "says",
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
        "naming": "says",
        "place": np.tile(np.arange(kept), rank),
        "text": code.text.ravel(),
        "weight": code.weight.ravel(),
        "cosine": np.repeat(code.cosine, kept),
    }
    table = pd.DataFrame(columns)
    steps, component = code.steps()
    texts = np.cumsum((code.weight > 0).sum(1))[component]
    table, components = table[table["weight"] > 0], explanation.components
    return HeadExplanation(explanation.mean, explanation.numerical_rank, steps, texts, table, components)
