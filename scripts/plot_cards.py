"""Cards of the clearest components: the images at both poles, what they fire on and what they say."""

from pathlib import Path

from clipspectra.arrays import load_table
from clipspectra.figures import cards, drawing
from clipspectra.jobs import job


def card_entry(component, texts, images, root, namings):
    """An entry of cards.cards for one component, a row of the table of the clearest."""
    place = {name: int(component[name]) for name in ("layer", "head", "component")}
    heading = "layer {layer}, head {head}, component {component}".format(**place)
    heading += f": {100 * component['share']:.0f} % of the head's variance"
    if "factor" in component:
        heading += f", {100 * component['eta2']:.0f} % of that by {component['factor']}"
    heading += f"; names {component['sureness']:.1f} × chance"
    return {"heading": heading} | cards.poles(place, texts, images, root, namings)


if __name__ == "__main__":
    with job(snakemake.log[0]):
        texts, images = load_table(snakemake.input.texts), load_table(snakemake.input.pole_images)
        root, clearest = Path(snakemake.input.manifest).parent, load_table(snakemake.input.clearest)
        wildcards, naming = snakemake.wildcards, snakemake.params.naming
        namings = cards.namings(naming)
        footer = drawing.provenance(wildcards, load_table(snakemake.input.images), snakemake.params.protocol)
        label = cards.LABELS[naming]
        figure = cards.cards(
            [card_entry(component, texts, images, root, namings) for _, component in clearest.iterrows()],
            title=f"The clearest components of {wildcards.model} on {wildcards.dataset}",
            footer=f"{footer}\nchosen by how far their names ({label}) are above chance, none like another",
        )
        drawing.save(figure, *snakemake.output)
