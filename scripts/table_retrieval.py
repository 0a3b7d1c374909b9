"""Retrieval of images and texts, and of images of the same value: mean and standard deviation over seeds."""

import pandas as pd

from clipspectra.arrays import load_table, over_seeds, save_latex, save_table
from clipspectra.jobs import job

KEYS = ["model", "dataset", "texts", "intervention", "factor", "direction", "measure", "by"]
SCORES, MEANS = ["score", "against_whole"], ["queries", "by_chance"]

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tables = [load_table(path, [*SCORES, *MEANS]) for path in snakemake.input]
        table = pd.concat(tables, ignore_index=True).drop(columns="role", errors="ignore")
        # The best head, or component, may be another one for another seed: all of them, in the order of the seeds.
        table["unit"] = table.groupby(KEYS)["unit"].transform(lambda units: ", ".join(dict.fromkeys(units)))
        table = table[[*KEYS, "unit", *table.columns.drop([*KEYS, "unit"])]]
        summary = over_seeds(table, SCORES, MEANS)
        save_table(snakemake.output.csv, summary)
        save_latex(snakemake.output.latex, summary)
