"""How far components and their texts stay the same over seeds, and over two halves of the text pool."""

import json
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipspectra.arrays import load_arrays, load_table, save_table
from clipspectra.evaluation.stability import compare_components, compare_halves
from clipspectra.explanations.methods import load_explanations
from clipspectra.jobs import job, progress

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def best_texts(path, places):
    """{(layer, head): indices of the best text of each component's top and bottom pole [rank, 2]}."""
    table = load_table(path)
    table = table[table["place"] == 0].assign(text=table["text"].map(places))
    wide = table.pivot(index=["layer", "head", "component"], columns="pole", values="text")[["top", "bottom"]]
    return {key: rows.to_numpy() for key, rows in wide.groupby(level=["layer", "head"])}


if __name__ == "__main__":
    with job(snakemake.log[0]):
        wildcards, seeds = snakemake.wildcards, snakemake.params.seeds
        pool, metadata = load_arrays(snakemake.input.texts, "features")
        features = pool["features"].astype(np.float64)
        features = features - features.mean(0)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        places = {text: place for place, text in enumerate(json.loads(metadata["texts"]))}
        told = [load_explanations(path) for path in snakemake.input.components]
        named = [best_texts(path, places) for path in snakemake.input.tables]
        rows = []
        for layer, head in progress(told[0], "stability", unit="head"):
            where = {"layer": layer, "head": head}
            heads = [of_seed[layer, head].components for of_seed in told]
            texts = [of_seed.get((layer, head)) for of_seed in named]
            for one, other in combinations(range(len(seeds)), 2):
                if min(len(heads[one]), len(heads[other])):
                    found = compare_components(heads[one], heads[other], texts[one], texts[other], features)
                    rows.append(where | {"of": "seeds", "which": f"{seeds[one]} and {seeds[other]}"} | found)
            if len(heads[0]):
                rng = np.random.default_rng([seeds[0], layer + 1, head + 1])
                found = compare_halves(heads[0], features, rng)
                rows.append(where | {"of": "halves of the pool", "which": f"seed {seeds[0]}"} | found)
        table = pd.DataFrame(rows)
        about = {key: wildcards[key] for key in ("model", "dataset", "texts")}
        about["fit_images"] = load_arrays(snakemake.input.components[0], "mean.-1.-1")[1]["fit_images"]
        for place, (key, value) in enumerate(about.items()):
            table.insert(place, key, value)
        save_table(snakemake.output[0], table)
