"""Cards of the clearest components: the texts and images at both poles."""

from pathlib import Path

import pandas as pd

from clipspectra.arrays import load_table
from clipspectra.data.pictures import open_rgb
from clipspectra.figures import drawing, heads
from clipspectra.jobs import job


def card_entry(component, texts, images, root):
    """An entry of heads.cards for one component, a row of the factors table."""
    place = {name: int(component[name]) for name in ("layer", "head", "component")}
    heading = "layer {layer}, head {head}, component {component}".format(**place)
    heading += f": {100 * component['share']:.0f} % of the head's variance"
    if "factor" in component:
        heading += f", {100 * component['eta2']:.0f} % of it explained by {component['factor']}"
    entry = {"heading": heading}
    for pole in ("top", "bottom"):
        pole_texts, pole_images = (
            table[(table[list(place)] == pd.Series(place)).all(axis=1) & (table["pole"] == pole)]
            for table in (texts, images)
        )
        pictures = [open_rgb(root / name) for name in pole_images["image"][:4]]
        entry[pole] = {"texts": list(pole_texts["text"]), "pictures": pictures}
    return entry


if __name__ == "__main__":
    with job(snakemake.log[0]):
        texts, images = load_table(snakemake.input.texts), load_table(snakemake.input.pole_images)
        root = Path(snakemake.input.manifest).parent
        chosen = heads.clearest_components(load_table(snakemake.input.factors), snakemake.params.factors)
        wildcards = snakemake.wildcards
        figure = heads.cards(
            [card_entry(component, texts, images, root) for _, component in chosen.iterrows()],
            title=f"The clearest components of {wildcards.model} on {wildcards.dataset}",
            footer=drawing.provenance(wildcards, load_table(snakemake.input.images), snakemake.params.protocol),
        )
        drawing.save(figure, *snakemake.output)
