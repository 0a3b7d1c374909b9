"""Accuracy against the number of units that an intervention edits, beside random units."""

import numpy as np
import pandas as pd

from clipspectra.arrays import load_table, over_seeds
from clipspectra.figures import concepts, drawing
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        protocol, wildcards = snakemake.params.protocol, snakemake.wildcards
        means = ["images", "change", "random", "random_as_high"]
        curves = [load_table(path, ["accuracy", *means]) for path in snakemake.input.curves]
        table = over_seeds(pd.concat(curves, ignore_index=True), ["accuracy"], means)
        table = table[table["seeds"].str.len() == table["seeds"].str.len().max()]  # as far as every seed's units reach
        tables = [load_table(path, ["held_of_heads", "held_of_all"]) for path in snakemake.input.units]
        chosen = [rows[(rows["edit"] == rows["edit"].max()) & (rows["chosen"] == "yes")] for rows in tables]
        units, edited, rule = concepts.edit_labels(snakemake.params.edit)
        if rule:  # of the components along which the concept's texts differ more than the classes'
            held = (np.mean([rows[f"held_of_{what}"].iloc[-1] for rows in chosen]) for what in ("heads", "all"))
            of_heads, of_all = (f"{100 * share:.0f} %" for share in held)
            rule = f"\nrule: {rule} of the components that pass, which hold {of_heads} of all heads' "
            rule += f"and {of_all} of the model's"
        eval_rows = table[table["role"] == "eval"]
        first = eval_rows.iloc[0]
        figure = concepts.intervention(
            table,
            np.mean([len(rows) for rows in chosen]) if rule else None,
            units=units,
            edited=edited,
            title=f"{wildcards.intervention}: {wildcards.model} on {first['dataset']}",
            footer=f"{wildcards.model} · {first['dataset']} · texts {first['texts']} · "
            f"{drawing.images_of(eval_rows)}, seeds {first['seeds']}, {drawing.PROTOCOLS[protocol]}{rule}",
        )
        drawing.save(figure, *snakemake.output)
