"""The components that carry a text or a picture, and the images along what they rebuild of it."""

import numpy as np

from clipspectra.arrays import load_arrays, save_table
from clipspectra.concepts.retrieval import (
    Components,
    View,
    best_texts,
    centred_queries,
    images_along,
    trace,
    trace_table,
)
from clipspectra.contributions.kept import open_stored
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.explanations.head import load_explanations
from clipspectra.explanations.spectral import component_scores
from clipspectra.jobs import job


def own_scores(query, components, explanations, basis):
    """Scores of the picture's own heads on each of the Components, [component]."""
    z, scalars = (query[name][0].astype(np.float64) for name in ("z", "scalars"))
    return [
        component_scores(np.r_[z[head], scalars], basis[head], direction[None], explanations[head].mean)[0]
        for head, direction in zip(map(tuple, components.units[:, :2]), components.directions)
    ]


if __name__ == "__main__":
    with job(snakemake.log[0], f"queries.{snakemake.wildcards.queries}"):
        params, inputs, entry = snakemake.params, snakemake.input, snakemake.params.entry
        query, _ = load_arrays(inputs.query)
        features = load_arrays(inputs.texts, "features")[0]["features"]
        mean = load_explanations(inputs.components, [(EMBEDDING, EMBEDDING)])[EMBEDDING, EMBEDDING].mean
        components, rng = Components.load(inputs.components), np.random.default_rng(params.seed)
        centred = centred_queries(query, features, mean)[0]
        traced = trace(centred, components, share=entry["share"], most=entry["most"], rng=rng)
        components = components.select(traced.order)
        table = trace_table(traced, components, best_texts(inputs.names, params.naming)).assign(naming=params.naming)
        if "z" in query:
            heads = sorted(set(map(tuple, components.units[:, :2].tolist())))
            explanations = load_explanations(inputs.components, heads)
            scores = own_scores(query, components, explanations, load_arrays(inputs.basis, "basis")[0]["basis"])
            table.insert(table.columns.get_loc("score") + 1, "own_score", scores)
        save_table(snakemake.output.table, table)
        stored = open_stored(inputs, params.protocol)
        view = View(stored, EMBEDDING, EMBEDDING, mean)
        save_table(snakemake.output.images, images_along(view, traced.score @ components.directions))
