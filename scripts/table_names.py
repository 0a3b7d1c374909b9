"""Table of what judges say of names, mean over seeds; for a paper one line per naming, its measures side by side."""

import pandas as pd

from clipspectra.arrays import load_table, over_seeds, save_latex, save_table
from clipspectra.jobs import job

NUMBERS = ["score", "by_chance", "by_chance_95", "against_says"]
# The measures that the table for a paper has, and what it calls them.
MEASURES = {
    "value_hits": "value hits",
    "factor_hits": "factor hits",
    "auc": "AUC",
    "signed_hits": "signed hits",
    "purity": "purity",
    "evidence_lost": "evidence lost",
    "beats_matched": "beats matched",
    "accuracy_5_texts": "accuracy, 5 texts",
    "contradicted": "contradicted",
    "same_as_says": "same as says",
    "confused": "confused",
    "same_over_seeds": "same over seeds",
    "cosine_over_pools": "cosine over pools",
}


def side_by_side(table):
    """One row per method, naming, control and kind of texts of all components, a column of texts for each measure."""
    keys = ["model", "dataset", "texts", "method", "naming", "control", "names"]
    table = table[table["components"].isin(["all", "all of the last layers", "first ten of a head"])]
    shown = table.assign(shown=[number(row) for row in table.itertuples()], measure=table["measure"].map(MEASURES))
    wide = shown.pivot_table(index=keys, columns="measure", values="shown", aggfunc="first", sort=False)
    return wide.reindex(columns=[name for name in MEASURES.values() if name in wide]).fillna("").reset_index()


def number(row):
    """A value with its interval and in brackets its chance, as text."""
    digits = 3 if row.measure in ("auc", "cosine_over_pools") else 1
    bounds = "" if pd.isna(row.score_low) else f" [{row.score_low:.{digits}f}, {row.score_high:.{digits}f}]"
    by_chance = "" if pd.isna(row.by_chance) else f" ({row.by_chance:.{digits}f})"
    return "" if pd.isna(row.score) else f"{row.score:.{digits}f}{bounds}{by_chance}"


if __name__ == "__main__":
    with job(snakemake.log[0]):
        table = pd.concat([load_table(path, NUMBERS) for path in snakemake.input], ignore_index=True)
        table = over_seeds(table, ["score"], [*NUMBERS[1:], "poles"])
        save_table(snakemake.output.csv, table)
        save_latex(snakemake.output.latex, side_by_side(table))
