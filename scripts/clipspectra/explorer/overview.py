"""The overview of a run: one row a head, the clearest components, and what factor values and texts lead to."""

from itertools import pairwise

import numpy as np
import pandas as pd

from clipspectra.contributions.stored import EMBEDDING
from clipspectra.evaluation.clearest import sureness_of
from clipspectra.explanations.naming import NAMED_BY, shown_names
from clipspectra.explorer.heads import POLES
from clipspectra.explorer.parts import rounded, unit_name

UNIT = ["layer", "head"]
SEARCH_PARTS = 64
VALUE_COMPONENTS = 50  # listed for a factor's value
LEAST_ETA2 = 0.05  # of a component that is listed for one


def units_of(layers, heads):
    """All units of a run, (layer, head), in the order of their numbers; the whole embedding is the last."""
    return [(layer, head) for layer in layers for head in range(heads)] + [(EMBEDDING, EMBEDDING)]


class Quantities:
    """Numbers of each head that the map is coloured by: each a dict with key, label, unit, scale and values [unit]."""

    def __init__(self, units):
        self.index = pd.MultiIndex.from_tuples(units, names=UNIT)
        self.quantities = []

    def add(self, key, label, unit, values, *, scale="sequential", low=None, high=None):
        """values, and low and high their intervals: Series by (layer, head); left out if all are blank."""
        columns = {"values": values, "low": low, "high": high}
        columns = {name: rounded(column.reindex(self.index)) for name, column in columns.items() if column is not None}
        if any(value is not None for value in columns["values"]):
            self.quantities.append({"key": key, "label": label, "unit": unit, "scale": scale} | columns)


EFFECTS = {
    "accuracy_lost": ("accuracy lost if held at its mean", "points", "diverging"),
    "margin_share": ("share of the right class's margin", "%", "diverging"),
    "norm": ("length of the contribution", "of 1, the embedding's", "sequential"),
}


def quantities(units, tables, factor_names, names):
    """The list of Quantities of a run's tables.

    tables: {"effects", "factors", "stability", "parts"}: of evaluation and segmentation; None for one that is missing
    names: first names of the components, by the naming of the config
    """
    effects, factors, stability, parts = (tables[key] for key in ("effects", "factors", "stability", "parts"))
    result = Quantities(units)
    if effects is not None:
        heads = effects[effects["kind"] == "head"].set_index(UNIT)
        for key, (label, unit, scale) in EFFECTS.items():
            result.add(key, label, unit, heads[key], scale=scale, low=heads[f"{key}_low"], high=heads[f"{key}_high"])
    by_head = factors.groupby(UNIT)
    first = factors[factors["component"] == 0].set_index(UNIT)
    result.add("first", "variance in its first component", "% of the head's", 100 * first["share"])
    result.add("components", "components kept", "components", by_head.size().astype(float))
    explained = explained_by(factors, factor_names)
    for name in factor_names:
        label = f"variance explained by {name}" + (", beyond chance" if name == "class" else "")
        result.add(f"factor-{name}", label, "% of the head's", 100 * explained[name])
    if "monosemanticity_top" in factors:
        columns = factors[["monosemanticity_top", "monosemanticity_bottom"]]
        above = columns.max(axis=1) - factors["monosemanticity_by_chance"]
        similarity = factors["similarity"].iloc[0]
        result.add(
            "monosemanticity",
            "most alike pictures at a pole, above any pictures",
            f"similarity ({similarity})",
            above.groupby([factors[key] for key in UNIT]).max(),
        )
    if len(names):
        heads = [names[key] for key in UNIT]
        result.add("named", "poles named above chance", "%", 100 * names["named"].astype(float).groupby(heads).mean())
        result.add("surest", "surest name", "× random texts", sureness_of(names).groupby(heads).max())
    if stability is not None:
        stability = stability.set_index(UNIT)
        compared = stability["compared"].iloc[0] + " " + stability["which"].iloc[0]
        result.add("stability", f"stability: like components, {compared}", "mean |cosine|", stability["cosine"])
        result.add("same-text", f"stability: poles that keep their text, {compared}", "%", stability["same_text"])
    if parts is not None:
        parts = parts[parts["component"] == -1].set_index(UNIT)
        result.add("foreground", "the head alone as a segmenter, AP of the foreground", "%", parts["foreground_ap"])
    return result.quantities


def explained_by(factors, factor_names):
    """Share of each head's variance that each factor explains, a table by (layer, head) with a column for each factor.

    The components are orthogonal, so it is the mean of their η² weighted by their share of the variance.
    """
    eta2 = factors[[f"eta2_{name}" for name in factor_names]].set_axis(factor_names, axis=1)
    return eta2.mul(factors["share"], axis=0).groupby([factors[key] for key in UNIT]).sum()


def strongest_factors(units, factors, factor_names):
    """The factor that explains most of each head: its number [unit] and its share of the head's variance in %."""
    if not factor_names:
        return None
    shares = explained_by(factors, factor_names).reindex(units, fill_value=0).to_numpy()
    return {"names": list(factor_names), "number": shares.argmax(1), "share": rounded(100 * shares.max(1))}


def clearest_cards(clearest, names, pictures):
    """What the map shows of the clearest components: where they are, first names, pictures, factor.

    names: first names of the run by the naming of the config; pictures: {(layer, head, component): {pole: numbers}}
    """
    cards = []
    names = names.set_index([*UNIT, "component", "pole"])
    for row in clearest.itertuples():
        place = row.layer, row.head, row.component
        card = {"unit": unit_name(row.layer, row.head), "component": row.component}
        card |= {"share": rounded(100 * row.share), "sureness": rounded(row.sureness)}
        if "factor" in clearest:
            card |= {"factor": row.factor, "eta2": rounded(100 * row.eta2)}
        for pole in POLES:
            name = names.loc[(*place, pole)]
            card[pole] = {"text": name["name"], "named": bool(name["named"])}
            card[pole]["pictures"] = pictures.get(place, {}).get(pole, [])[:4]
        cards.append(card)
    return cards


def first_names(units, names):
    """What the poles of each unit's first component are called, "" where it has none: [unit][pole]; names: as above."""
    names = names[names["component"] == 0].assign(shown=lambda rows: shown_names(rows.assign(text=rows["name"])))
    shown = names.set_index([*UNIT, "pole"])["shown"]
    return [[shown.get((*unit, pole), "") for pole in POLES] for unit in units]


def text_index(table, units, text_count):
    """(width, codes of each text, a list [text] of lists): where a text is at a pole.

    table: names of all components, `text` as numbers. A code is ((unit · width + component) · 2 + pole) · 2 + naming,
    with `width` the most components of a head; best places come first.
    """
    numbers = {unit: number for number, unit in enumerate(units)}
    width = int(table["component"].max()) + 1 if len(table) else 1
    unit = np.fromiter(map(numbers.__getitem__, zip(table["layer"], table["head"])), int, len(table))
    pole = (table["pole"] == POLES[1]).to_numpy()
    naming = table["naming"].map({name: number for number, name in enumerate(NAMED_BY)}).to_numpy()
    codes = ((unit * width + table["component"].to_numpy()) * 2 + pole) * 2 + naming
    texts, order = table["text"].to_numpy(), np.lexsort((codes, table["place"].to_numpy(), table["text"].to_numpy()))
    bounds = np.searchsorted(texts[order], np.arange(text_count + 1))
    codes = codes[order]
    return width, [codes[start:end] for start, end in pairwise(bounds)]


def search_parts(codes):
    """{number: the part's list of codes by text} in at most SEARCH_PARTS parts, and the number of texts of each."""
    size = max(-(-len(codes) // SEARCH_PARTS), 1)
    return size, {number: codes[size * number : size * (number + 1)] for number in range(-(-len(codes) // size))}


def value_components(units, factors, factor_names):
    """For each factor its values, each with the components whose poles it is at: lists of [unit, component, pole, η²].

    Those that the factor explains most of, among the `total` of which it explains LEAST_ETA2 or more.
    """
    numbers = {unit: number for number, unit in enumerate(units)}
    result = []
    for name in factor_names:
        rows = factors[factors[f"eta2_{name}"] >= LEAST_ETA2].sort_values(
            f"eta2_{name}", ascending=False, kind="stable"
        )
        values = {}
        for row in rows[[*UNIT, "component", f"eta2_{name}", f"high_{name}", f"low_{name}"]].itertuples(index=False):
            for pole, value in enumerate(row[-2:]):
                values.setdefault(str(value), []).append([numbers[row[0], row[1]], row[2], pole, rounded(row[3], 2)])
        listed = [
            {"value": value, "total": len(values[value]), "components": values[value][:VALUE_COMPONENTS]}
            for value in sorted(values)
        ]
        result.append({"name": name, "values": listed})
    return result
