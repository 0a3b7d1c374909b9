"""Which names are right: what every judge says of every naming."""

from clipspectra.arrays import load_table
from clipspectra.figures import drawing, names
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        wildcards = snakemake.wildcards
        table = load_table(snakemake.input.table, ["score", "by_chance"])
        table = drawing.rows_of(table, wildcards, ["model", "dataset", "texts"])
        first = table.iloc[0]
        pairs = f" · pairs of images: {first['pairs']}" if first["pairs"] else ""
        figure = names.names(
            table,
            title=f"Which names of {wildcards.model}'s components are right on {wildcards.dataset}",
            footer=f"{wildcards.model} · {wildcards.dataset} · texts {wildcards.texts} · "
            f"{drawing.images_of(table, 'eval images')}{pairs} · seeds {first['seeds']}\n"
            "95 % intervals over heads, of paired changes over pairs too; chance: names dealt at random, matched texts",
        )
        drawing.save(figure, *snakemake.output)
