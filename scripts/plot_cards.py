"""Cards of the clearest components: the images at both poles, what they fire on and what they say."""

from pathlib import Path

import pandas as pd

from clipspectra.arrays import load_table
from clipspectra.data.pictures import open_rgb
from clipspectra.figures import drawing, heads
from clipspectra.figures.lettering import shorten
from clipspectra.jobs import job

LABELS = {"fires_on": "fires on", "says": "says"}
LINES = 3  # texts of a naming
ROOM = 46  # letters beside a label
AGAINST = " – writes against it"


def name_lines(texts, naming):
    """Lines of a pole's texts by one naming: (text, whether it is dimmed), with what a reader should know of them."""
    rows = texts[texts["naming"] == naming].sort_values("place").head(LINES)
    rows = rows[(rows["projection"] > 0) | (naming != "says")]  # what lies on the other side, the pole does not say
    named, lines = rows["named"].astype(bool).all(), []
    for place, row in enumerate(rows.itertuples()):
        before, after = ("", "") if named or place else ("unnamed (", ")")
        after += AGAINST if row.projection < 0 else ""
        lines.append((before + shorten(row.text, ROOM - len(before + after)) + after, not named))
    return lines


def card_entry(component, texts, images, root, namings):
    """An entry of heads.cards for one component, a row of the table of the clearest."""
    place = {name: int(component[name]) for name in ("layer", "head", "component")}
    heading = "layer {layer}, head {head}, component {component}".format(**place)
    heading += f": {100 * component['share']:.0f} % of the head's variance"
    if "factor" in component:
        heading += f", {100 * component['eta2']:.0f} % of that by {component['factor']}"
    heading += f"; names {component['sureness']:.1f} × chance"
    entry = {"heading": heading}
    for pole in ("top", "bottom"):
        pole_texts, pole_images = (
            table[(table[list(place)] == pd.Series(place)).all(axis=1) & (table["pole"] == pole)]
            for table in (texts, images)
        )
        pictures = [open_rgb(root / name) for name in pole_images["image"][:4]]
        names = [(LABELS[naming], name_lines(pole_texts, naming)) for naming in namings]
        entry[pole] = {"names": names, "pictures": pictures}
    return entry


if __name__ == "__main__":
    with job(snakemake.log[0]):
        texts, images = load_table(snakemake.input.texts), load_table(snakemake.input.pole_images)
        root, clearest = Path(snakemake.input.manifest).parent, load_table(snakemake.input.clearest)
        wildcards, naming = snakemake.wildcards, snakemake.params.naming
        namings = [naming, *(other for other in LABELS if other != naming)]
        footer = drawing.provenance(wildcards, load_table(snakemake.input.images), snakemake.params.protocol)
        figure = heads.cards(
            [card_entry(component, texts, images, root, namings) for _, component in clearest.iterrows()],
            title=f"The clearest components of {wildcards.model} on {wildcards.dataset}",
            footer=f"{footer}\nchosen by how far their names ({LABELS[naming]}) are above chance, none like another",
        )
        drawing.save(figure, *snakemake.output)
