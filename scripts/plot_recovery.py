"""Accuracy that explanations recover, against the number of texts per head."""

from clipspectra.arrays import load_table
from clipspectra.figures import drawing, heads
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        wildcards, table = snakemake.wildcards, load_table(snakemake.input.table)
        table = drawing.rows_of(table, wildcards, ["model", "dataset", "texts"])
        first = table.iloc[0]
        mlps = ", MLPs kept" if first["mlps"] == "kept" else ""
        source = f"layers {first['layers']} explained, the rest at its mean{mlps} · {drawing.images_of(table)}, "
        source += f"seeds {first['seeds']}, {drawing.PROTOCOLS[first['protocol']]}"
        figure = heads.recovery(
            table,
            title=f"What explanations of {wildcards.model}'s heads recover on {wildcards.dataset}",
            footer=f"{wildcards.model} · {wildcards.dataset} · texts {wildcards.texts} · {source}\n"
            f"bars: 95 % intervals over the images; bands: 95 % of {table['draws'].max():.0f} draws; means over seeds",
        )
        drawing.save(figure, *snakemake.output)
