"""Stability of components and their texts, averaged over the heads of each layer."""

import pandas as pd

from clipspectra.arrays import load_table, save_latex, save_table
from clipspectra.jobs import job

KEYS = ["model", "dataset", "texts", "compared", "which", "images", "overlap", "layer"]

if __name__ == "__main__":
    with job(snakemake.log[0]):
        table = pd.concat([load_table(path) for path in snakemake.input], ignore_index=True)
        table["layer"] = table["layer"].astype(str).replace("-1", "embedding")
        measures = table.columns.drop([*KEYS, "head"])
        table[measures] = table[measures].apply(pd.to_numeric)  # some are blank for halves of the pool
        means = table.groupby(KEYS, sort=False)[list(measures)].mean().reset_index()
        save_table(snakemake.output.csv, means)
        save_latex(snakemake.output.latex, means)
