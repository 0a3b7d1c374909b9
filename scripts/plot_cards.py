"""Cards of the clearest_components components: the texts and images at both poles."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from clipspectra.arrays import load_table
from clipspectra.data.pictures import open_rgb
from clipspectra.figures import drawing, heads
from clipspectra.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def entry(component, texts, images, root):
    """What heads.cards shows of one component, from its row of the factors table."""
    where = {name: int(component[name]) for name in ("layer", "head", "component")}
    heading = "layer {layer}, head {head}, component {component}".format(**where)
    heading += f": {100 * component['share']:.0f} % of the head's variance"
    if "factor" in component:
        heading += f", {100 * component['eta2']:.0f} % of it explained by {component['factor']}"
    result = {"heading": heading}
    for pole in ("top", "bottom"):
        of_pole = [
            table[(table[list(where)] == pd.Series(where)).all(axis=1) & (table["pole"] == pole)]
            for table in (texts, images)
        ]
        result[pole] = {
            "texts": list(of_pole[0]["text"]),
            "pictures": [open_rgb(root / name) for name in of_pole[1]["image"][:4]],
        }
    return result


if __name__ == "__main__":
    with job(snakemake.log[0]):
        texts, images = load_table(snakemake.input.texts), load_table(snakemake.input.pole_images)
        root = Path(snakemake.input.manifest).parent
        chosen = heads.clearest_components(load_table(snakemake.input.factors), snakemake.params.factors)
        wildcards = snakemake.wildcards
        figure = heads.cards(
            [entry(component, texts, images, root) for _, component in chosen.iterrows()],
            title=f"The clearest_components components of {wildcards.model} on {wildcards.dataset}",
            footer=drawing.provenance(wildcards, load_table(snakemake.input.images), snakemake.params.protocol),
        )
        drawing.save(figure, *snakemake.output)
