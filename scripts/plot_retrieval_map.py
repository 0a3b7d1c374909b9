"""Heads map of retrieval: which heads find images of the same value better than the whole embedding does."""

import pandas as pd

from clipspectra.arrays import load_table, over_seeds
from clipspectra.figures import drawing, retrieval
from clipspectra.jobs import job

SCORES = ["score", "against_whole", "whole", "by_chance", "fit_score", "named"]

if __name__ == "__main__":
    with job(snakemake.log[0]):
        wildcards, inputs = snakemake.wildcards, snakemake.input
        heads = over_seeds(pd.concat([load_table(path, SCORES) for path in inputs.heads], ignore_index=True), SCORES)
        table = drawing.rows_of(load_table(inputs.table, SCORES), wildcards, ["model", "dataset"])
        table = table[(table["intervention"] == "as it is") & (table["direction"] == "image to image")]
        first = heads.iloc[0]
        figure = retrieval.retrieval_map(
            heads,
            table,
            title=f"What each head of {wildcards.model} retrieves on {wildcards.dataset}",
            footer=f"{wildcards.model} · {wildcards.dataset} · {drawing.images_of(table)}, seeds {first['seeds']} · "
            f"{drawing.PROTOCOLS[first['protocol']]}\nmap: mean average precision (%), framed: best on the fit "
            "images, green square: its names name the factor most, by the mean over seeds; "
            "below: of what each seed chooses, with its 95 % interval over images",
        )
        drawing.save(figure, *snakemake.output)
