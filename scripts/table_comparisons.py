"""The table of comparisons: each head of the first model beside the other's, as mean and sd over seeds."""

import pandas as pd

from clipspectra.arrays import load_table, over_seeds, save_latex, save_table
from clipspectra.jobs import job

HEAD = ["comparison", "layer", "head", "compared"]
WORDS = ["other", "factor", "other_factor", "gained"]  # may differ from seed to seed


def with_words_of_all_seeds(table):
    """The table with the other head's place in a column `other`, and the words of all seeds where these differ."""
    other = [f"L{layer} H{head}" for layer, head in zip(table["other_layer"], table["other_head"])]
    table = table.drop(columns=["other_layer", "other_head"])
    table.insert(table.columns.get_loc("compared") + 1, "other", other)
    for column in (column for column in WORDS if column in table):
        words = table[column].fillna("").astype(str).groupby([table[key] for key in HEAD], sort=False)
        table[column] = words.transform(lambda of_seeds: " / ".join(dict.fromkeys(of_seeds)))
    return table


if __name__ == "__main__":
    with job(snakemake.log[0]):
        scores, means = snakemake.params.scores, snakemake.params.means
        table = pd.concat([load_table(path, [*scores, *means]) for path in snakemake.input], ignore_index=True)
        summary = over_seeds(with_words_of_all_seeds(table), scores, means)
        save_table(snakemake.output.csv, summary)
        save_latex(snakemake.output.latex, summary)
