"""Accuracy against the number of units that an intervention edits, beside random units."""

from typing import TYPE_CHECKING

import numpy as np

from clipspectra.arrays import load_table
from clipspectra.figures import concepts, drawing
from clipspectra.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake.log[0]):
        params, wildcards = snakemake.params, snakemake.wildcards
        table = load_table(snakemake.input.curve, ["random", "random_low", "random_high"])
        table = table[table["seeds"].str.len() == table["seeds"].str.len().max()]  # as far as every seed's units reach
        units = [load_table(path) for path in snakemake.input.units]
        counts = [((of["edit"] == of["edit"].max()) & (of["chosen"] == "yes")).sum() for of in units]
        first = table[table["role"] == "eval"].iloc[0]
        figure = concepts.intervention(
            table,
            np.mean(counts) if params.rule else None,
            units=params.units,
            what=params.what,
            rule=params.rule,
            title=f"{wildcards.intervention}: {wildcards.model} on {first['dataset']}",
            footer=f"{wildcards.model} · {first['dataset']} · texts {first['texts']} · {first['images']:.0f} images "
            f"({first['split']}), seeds {first['seeds']}, {params.protocol}",
        )
        drawing.save(figure, *snakemake.output)
