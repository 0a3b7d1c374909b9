"""Sheet of the images and texts nearest to a picture, or at the ends of a component."""

from pathlib import Path

from clipspectra.arrays import load_arrays, load_table
from clipspectra.data.pictures import open_rgb
from clipspectra.figures import concepts, drawing
from clipspectra.figures.lettering import signed
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        entry, seed, protocol = snakemake.params.entry, snakemake.params.seed, snakemake.params.protocol
        root, shown = Path(snakemake.input.manifest).parent, {}
        table = load_table(snakemake.input.table)
        itself = table[table["kind"] == "picture"]["score"]
        for (kind, end), rows in table[table["kind"] != "picture"].groupby(["kind", "end"], sort=False):
            names = [open_rgb(root / name) for name in rows["name"]] if kind == "image" else list(rows["name"])
            shown.setdefault(kind, {})[end] = names, list(rows["score"])
        figure = concepts.neighbours(
            shown["image"],
            shown["text"],
            picture=load_arrays(snakemake.input.query)[0]["picture"] if "image" in entry else None,
            heading=signed(itself.iloc[0]) if len(itself) else "picture",
            title=concepts.neighbours_title(entry),
            footer=drawing.provenance(entry | {"seed": seed}, load_table(snakemake.input.chosen), protocol)
            + f"\n{concepts.scores_note(entry)}",
        )
        drawing.save(figure, *snakemake.output)
