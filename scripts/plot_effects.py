"""Heads map of direct effects: the accuracy lost without each head, and its share of the margin."""

from clipspectra.arrays import load_table
from clipspectra.figures import drawing, heads
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        wildcards, table = snakemake.wildcards, load_table(snakemake.input.table)
        table = drawing.rows_of(table, wildcards, ["model", "dataset"])
        first = table.iloc[0]
        figure = heads.effects_map(
            table,
            title=f"What each head of {wildcards.model} is worth on {wildcards.dataset}",
            footer=f"{wildcards.model} · {wildcards.dataset} · {drawing.images_of(table)}, seeds "
            f"{first['seeds']} · {first['accuracy']:.1f} % zero-shot accuracy with all heads\n"
            "hatched: the 95 % interval over images includes 0 (not corrected for the number of heads)",
        )
        drawing.save(figure, *snakemake.output)
