"""Changes in accuracy by an intervention, of each class and factor value."""

from clipspectra.arrays import load_table
from clipspectra.figures import concepts, drawing
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        wildcards, table = snakemake.wildcards, load_table(snakemake.input.table)
        table = drawing.rows_of(table, wildcards, ["intervention", "model"])
        first = table.iloc[0]
        figure = concepts.intervention_values(
            table,
            title=f"{wildcards.intervention}: what moves in {wildcards.model} on {first['dataset']}",
            footer=f"{wildcards.model} · {first['dataset']} · texts {first['texts']} · "
            f"{drawing.images_of(table)}, seeds {first['seeds']}"
            + (" · orange: what it is about" if (table["meant"] == "yes").any() else ""),
        )
        drawing.save(figure, *snakemake.output)
