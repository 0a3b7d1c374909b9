"""How stable components and their texts are over seeds, and over two halves of the text pool."""

import json
from itertools import combinations

import numpy as np
import pandas as pd

from clipspectra.arrays import load_arrays, load_table, save_table, with_source
from clipspectra.evaluation.stability import compare_components, compare_halves
from clipspectra.explanations.head import load_explanations
from clipspectra.jobs import job, progress


def pole_texts(path, indices):
    """{(layer, head): indices of the best texts of each component's top and bottom pole [rank, 2]}.

    indices: {text: its index in the text pool}
    """
    table = load_table(path)
    table = table[table["place"] == 0].assign(text=table["text"].map(indices))
    wide = table.pivot(index=["layer", "head", "component"], columns="pole", values="text")[["top", "bottom"]]
    return {key: rows.to_numpy() for key, rows in wide.groupby(level=["layer", "head"])}


if __name__ == "__main__":
    with job(snakemake.log[0]):
        wildcards, seeds = snakemake.wildcards, snakemake.params.seeds
        pool, metadata = load_arrays(snakemake.input.texts, "features")
        features = pool["features"].astype(np.float64)
        features = features - features.mean(0)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        indices = {text: index for index, text in enumerate(json.loads(metadata["texts"]))}
        explanations = [load_explanations(path) for path in snakemake.input.components]
        texts = [pole_texts(path, indices) for path in snakemake.input.tables]
        rows = []
        for layer, head in progress(explanations[0], "stability", unit="head"):
            place = {"layer": layer, "head": head}
            components = [by_head[layer, head].components for by_head in explanations]  # one entry per seed
            poles = [by_head.get((layer, head)) for by_head in texts]
            for a, b in combinations(range(len(seeds)), 2):
                if min(len(components[a]), len(components[b])):
                    measures = compare_components(components[a], components[b], poles[a], poles[b], features)
                    rows.append(place | {"compared": "seeds", "which": f"{seeds[a]} and {seeds[b]}"} | measures)
            if len(components[0]):
                rng = np.random.default_rng([seeds[0], layer + 1, head + 1])
                measures = compare_halves(components[0], features, rng)
                rows.append(place | {"compared": "halves of the pool", "which": f"seed {seeds[0]}"} | measures)
        source = {key: wildcards[key] for key in ("model", "dataset", "texts")}
        source["fit_images"] = load_arrays(snakemake.input.components[0], "mean.-1.-1")[1]["fit_images"]
        save_table(snakemake.output[0], with_source(pd.DataFrame(rows), source))
