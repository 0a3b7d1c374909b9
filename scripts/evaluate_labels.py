"""Whether the texts of components name the factors that move them, against randomly permuted texts."""

import numpy as np
import pandas as pd

from clipspectra.arrays import load_table, save_table, split_names, with_source
from clipspectra.evaluation.labels import hit_rates
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        params, wildcards = snakemake.params, snakemake.wildcards
        factors, images = load_table(snakemake.input.factors), load_table(snakemake.input.images)
        vocabulary = {
            factor: {
                value: phrases.get(value, [value.replace("_", " ")]) for value in images[factor].astype(str).unique()
            }
            for factor, phrases in params.factors.items()
        }
        tables = []
        for method, path in zip(params.methods, snakemake.input.explanations):
            rng = np.random.default_rng(int(wildcards.seed))
            rates = hit_rates(load_table(path), factors, vocabulary, rng=rng)
            tables.append(with_source(rates, {"method": method}))
        scored = images[images["role"].isin(["eval", "fit"] if params.protocol == "same" else ["eval"])]
        source = {key: wildcards[key] for key in ("model", "dataset", "seed", "texts")}
        source |= {"split": split_names(scored), "images": len(scored)}
        save_table(snakemake.output[0], with_source(pd.concat(tables, ignore_index=True), source))
