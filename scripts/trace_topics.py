"""Topics of a file, each traced to the components that carry it: one row per topic, mean and sd over seeds."""

import json

import numpy as np
import pandas as pd

from clipspectra.arrays import load_arrays, over_seeds, save_latex, save_table
from clipspectra.concepts.retrieval import Components, centred_queries, trace
from clipspectra.contributions.chunks import check_weights
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.explanations.head import load_explanations
from clipspectra.jobs import job, progress

SCORES = ["components", "heads", "cosine", "reachable", "random_cosine"]


def summary(traced, components):
    """Scores of one topic's Trace: how many components and heads it takes, and how well they reconstruct the topic."""
    heads = set(map(tuple, components.units[traced.order, :2].tolist()))
    row = {"components": len(traced.order), "heads": len(heads), "cosine": traced.cosine[-1]}
    return row | {"reachable": traced.reachable, "random_cosine": traced.control[:, -1].mean()}


if __name__ == "__main__":
    with job(snakemake.log[0]):
        inputs, entry = snakemake.input, snakemake.params.entry
        source = {key: entry[key] for key in ("model", "dataset", "texts")}
        query, metadata = load_arrays(inputs.query)
        check_weights([inputs.texts, *inputs.components], metadata["sha256"])
        topics, features = json.loads(metadata["texts"]), load_arrays(inputs.texts, "features")[0]["features"]
        rows = []
        for seed, path in zip(snakemake.params.seeds, inputs.components):
            mean = load_explanations(path, [(EMBEDDING, EMBEDDING)])[EMBEDDING, EMBEDDING].mean
            components, rng = Components.load(path), np.random.default_rng(seed)
            centred = list(zip(topics, centred_queries(query, features, mean)))
            for topic, vector in progress(centred, f"topics, seed {seed}", unit="topic"):
                traced = trace(vector, components, share=entry["share"], most=entry["most"], rng=rng)
                rows.append(source | {"seed": seed, "topic": topic} | summary(traced, components))
        table = over_seeds(pd.DataFrame(rows), SCORES)
        save_table(snakemake.output.csv, table)
        save_latex(snakemake.output.latex, table.drop(columns=list(source)))
