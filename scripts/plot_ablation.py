"""Zero-shot accuracy with the heads of more and more layers at their mean."""

from clipspectra.arrays import load_table
from clipspectra.figures import curves, drawing
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        wildcards, table = snakemake.wildcards, load_table(snakemake.input.table)
        table = drawing.rows_of(table, wildcards, ["model", "dataset"])
        table = table[(table["factor"] == "class") & (table["group"] == "all")]
        first = table.iloc[0]
        figure = curves.ablation(
            table,
            title=f"Accuracy of {wildcards.model} on {wildcards.dataset} with heads at their mean",
            footer=f"{wildcards.model} · {wildcards.dataset} · {drawing.images_of(table, 'eval images')}, "
            f"seeds {first['seeds']}\nbands: 95 % intervals over images, mean of the seeds' bounds",
        )
        drawing.save(figure, *snakemake.output)
