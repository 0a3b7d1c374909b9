"""What stays of components on other images, with another seed, or with another half of the texts."""

from clipspectra.arrays import load_table
from clipspectra.figures import curves, drawing
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        wildcards = snakemake.wildcards
        table = load_table(snakemake.input.table, curves.STABILITY_COLUMNS)
        table = drawing.rows_of(table, wildcards, ["model", "dataset", "texts"])
        numbers = table.groupby("compared", sort=False)["images"].max()
        figure = curves.stability(
            table,
            title=f"What stays of the components of {wildcards.model} on {wildcards.dataset}",
            footer=f"{wildcards.model} · {wildcards.dataset} · texts {wildcards.texts} · first "
            f"{table['components'].max():.0f} components of a head, means over the heads of a layer · fit images: "
            + ", ".join(f"{number:.0f} ({compared})" for compared, number in numbers.items())
            + "\nby chance: components turned at random within the head's own space",
        )
        drawing.save(figure, *snakemake.output)
