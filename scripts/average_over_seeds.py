"""A table of scores as mean and standard deviation over seeds."""

import pandas as pd

from clipspectra import InputError
from clipspectra.arrays import load_table, over_seeds, save_latex, save_table
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        scores, means = snakemake.params.scores, snakemake.params.get("means", [])
        if not snakemake.input:
            raise InputError("The config has no entry that this table is about; see docs/config.md.")
        table = pd.concat([load_table(path, [*scores, *means]) for path in snakemake.input], ignore_index=True)
        summary = over_seeds(table, scores, means)
        save_table(snakemake.output.csv, summary)
        if "latex" in snakemake.output.keys():
            save_latex(snakemake.output.latex, summary)
