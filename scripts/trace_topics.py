"""A file of topics, each traced to the components that carry it: one row a topic, mean and sd over seeds."""

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipspectra.arrays import load_arrays, over_seeds, save_latex, save_table
from clipspectra.concepts.retrieval import Components, centred_queries, trace
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.explanations.methods import load_explanations
from clipspectra.jobs import job, progress

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

SCORES = ["components", "heads", "cosine", "reachable", "random_cosine"]


def summary(found, components):
    """One row of the table, of a Trace: how many components and heads it takes, and how well they rebuild the topic."""
    heads = {tuple(place) for place in components.where[found.order, :2].tolist()}
    row = {"components": len(found.order), "heads": len(heads), "cosine": found.cosine[-1]}
    return row | {"reachable": found.reachable, "random_cosine": found.control[:, -1].mean()}


if __name__ == "__main__":
    with job(snakemake.log[0]):
        params, inputs = snakemake.params, snakemake.input
        asked, about = load_arrays(inputs.query)
        topics, features = json.loads(about["texts"]), load_arrays(inputs.texts, "features")[0]["features"]
        rows = []
        for seed, path in zip(params.seeds, inputs.components):
            whole = load_explanations(path, [(EMBEDDING, EMBEDDING)])[EMBEDDING, EMBEDDING].mean
            components, rng = Components.load(path), np.random.default_rng(seed)
            queries = centred_queries(asked, features, whole)
            for topic, query in progress(list(zip(topics, queries)), f"topics, seed {seed}", unit="topic"):
                found = trace(query, components, share=params.share, most=params.most, rng=rng)
                rows.append(params.of | {"seed": seed, "topic": topic} | summary(found, components))
        table = over_seeds(pd.DataFrame(rows), SCORES)
        save_table(snakemake.output.csv, table)
        save_latex(snakemake.output.latex, table.drop(columns=list(params.of)))
