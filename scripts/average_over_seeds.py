"""A table of scores as mean and standard deviation over seeds."""

from typing import TYPE_CHECKING

import pandas as pd

from clipspectra.arrays import load_table, save_latex, save_table
from clipspectra.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def over_seeds(table, scores, means=()):
    """One row for each combination of the other columns: mean and sample sd over seeds of scores, the mean of means."""
    keys = [column for column in table.columns if column not in {"seed", *scores, *means}]
    grouped = table.groupby(keys, sort=False, dropna=False)
    summary = {"seeds": grouped["seed"].agg(lambda seeds: ", ".join(map(str, sorted(set(seeds)))))}
    for score in scores:
        summary[score] = grouped[score].mean()
        summary[f"{score}_sd"] = grouped[score].std().fillna(0)
    summary |= {name: grouped[name].mean() for name in means}
    return pd.DataFrame(summary).reset_index()


if __name__ == "__main__":
    with job(snakemake.log[0]):
        table = pd.concat([load_table(path) for path in snakemake.input], ignore_index=True)
        summary = over_seeds(table, snakemake.params.scores, snakemake.params.get("means", ()))
        save_table(snakemake.output.csv, summary)
        if "latex" in snakemake.output.keys():
            save_latex(snakemake.output.latex, summary)
