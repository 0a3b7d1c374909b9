"""Contact sheet of a dataset: images of one seed, in the order of their roles and classes."""

from pathlib import Path

from PIL import Image

from clipspectra.arrays import load_table
from clipspectra.data.pictures import BadPicture, open_rgb
from clipspectra.figures import drawing, heads
from clipspectra.jobs import job

SHOWN = 32
UNREADABLE = Image.new("RGB", (8, 8), "lightgrey")

if __name__ == "__main__":
    with job(snakemake.log[0]):
        table = load_table(snakemake.input.images).query("role != 'pair'")
        total = len(table)  # or all of which the table is a sample
        if "of_role" in table.columns:
            total = table.groupby("role")["of_role"].first().sum()
        # Every image of the table is equally likely to be shown, whatever its class; a sample has as many of each role.
        shown = table.sample(min(SHOWN, len(table)), random_state=int(snakemake.wildcards.seed)).sort_values(
            ["role", "label"]
        )
        root = Path(snakemake.input.manifest).parent
        factors = [factor for factor in snakemake.params.factors if factor in table.columns]
        pictures, captions = [], []
        for _, row in shown.iterrows():
            try:
                picture, caption = open_rgb(root / row["image"]), heads.picture_caption(row, factors)
            except BadPicture:  # the extraction refuses or skips it
                picture, caption = UNREADABLE, "cannot be read"
            pictures.append(picture)
            captions.append(caption)
        figure = heads.contact_sheet(
            pictures,
            captions,
            title=f"{len(shown)} of the {total} images of {snakemake.wildcards.dataset}",
            footer=drawing.provenance(snakemake.wildcards, table),
        )
        drawing.save(figure, *snakemake.output)
