"""What interventions move and what they leave, by class and factor value: mean and standard deviation over seeds."""

import pandas as pd

from clipspectra.arrays import load_table, over_seeds, save_latex, save_table
from clipspectra.concepts.tables import check_about, value_changes
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        tables = []
        for path in snakemake.input:
            counts = load_table(path)
            intervention, values = counts["intervention"].iloc[0], counts.groupby("factor")["value"].unique()
            about = snakemake.params.about[intervention]
            check_about(about, values, intervention)
            tables.append(value_changes(counts, about))
        means = ["images", "called_before", "called_after", "cosine_before", "cosine_after"]
        summary = over_seeds(pd.concat(tables, ignore_index=True), ["before", "after", "change"], means)
        save_table(snakemake.output.csv, summary)
        save_latex(snakemake.output.latex, summary)
