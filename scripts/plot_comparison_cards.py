"""Cards of the components that changed most between two models, side by side."""

from pathlib import Path

from clipspectra.arrays import load_table
from clipspectra.figures import cards, drawing
from clipspectra.figures.lettering import shorten
from clipspectra.jobs import job

SHOWN = 3  # pairs of cards
LEAST = 0.1  # % of a head that must have changed for a component to count as changed


def changed_most(table):
    """The matched components that changed most, one of a head at most: rows of the table of components."""
    table = table[(table["compared"] == table["compared"].iloc[0]) & (table["other_component"] >= 0)]
    table = table.sort_values("changed", ascending=False, kind="stable")
    return table.drop_duplicates(["layer", "head"]).head(SHOWN)


def heading(model, row, prefix=""):
    """Heading of a card: the component's place, its share of the head and the factor that moves it most."""
    place = [int(row[f"{prefix}{name}"]) for name in ("layer", "head", "component")]
    share = f"{row[f'{prefix}share']:.0f} % of the head"
    if "factor" in row:
        share += f", {row[f'{prefix}eta2']:.0f} % of that by {shorten(row[f'{prefix}factor'], 12)}"
    return "{}: layer {}, head {}, component {}".format(shorten(model, 18), *place) + f"\n{share}"


if __name__ == "__main__":
    with job(snakemake.log[0]):
        inputs, params, wildcards = snakemake.input, snakemake.params, snakemake.wildcards
        root, namings = Path(inputs.manifest).parent, cards.namings(params.naming)
        table = load_table(inputs.components, ["other_share", "other_eta2"])
        first, pairs = table.iloc[0], []
        tables = {
            prefix: [load_table(inputs[f"{prefix}{name}"]) for name in ("names", "pole_images")]
            for prefix in ("", "other_")
        }
        shown = changed_most(table)
        for _, row in shown.iterrows():
            own, other = (
                cards.poles(
                    {name: int(row[f"{prefix}{name}"]) for name in ("layer", "head", "component")},
                    *tables[prefix],
                    root,
                    namings,
                )
                for prefix in ("", "other_")
            )
            if row["correlation"] < 0:  # the poles that go along beside each other
                other = {"top": other["bottom"], "bottom": other["top"]}
            related = f"; |r| = {abs(row['correlation']):.2f}"
            headings = heading(first["model"], row), heading(first["other_model"], row, "other_") + related
            pairs.append([{"heading": words} | entry for words, entry in zip(headings, (own, other))])
        entry = {"model": f"{first['model']} and {first['other_model']}", "dataset": first["dataset"]}
        entry |= {"seed": first["seed"], "texts": first["texts"]}
        figure = cards.card_pairs(
            pairs,
            title=f"Components of {first['model']} that changed most in {first['other_model']}"
            if shown["changed"].max() >= LEAST
            else f"No component of {first['model']} changed in {first['other_model']}",
            footer=drawing.provenance(entry, load_table(inputs.images), params.protocol)
            + "\nright: the component, of the head "
            + {"same place": "at the same place", "most alike": "that is most alike"}[first["compared"]]
            + ", that it is matched with (r: correlation of the scores), turned the same way",
        )
        drawing.save(figure, *snakemake.output)
