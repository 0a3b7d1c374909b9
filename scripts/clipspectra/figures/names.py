"""The figure of which names are right: every judge's score for every naming, with its interval and chance."""

import numpy as np

from clipspectra.figures.drawing import new_figure

NAMINGS = {
    "says": ("says", "#0072B2", "o"),
    "fires_on": ("fires on", "#D55E00", "s"),
    "pattern": ("pattern", "#009E73", "^"),
    "fires_on_said": ("fires on, of what it says", "#CC79A7", "D"),
}
PANELS = {
    "value_hits": "name says the value (%)",
    "factor_hits": "name says the factor (%)",
    "beats_matched": "removal: matched texts\nthat lose less (%)",
    "auc": "paired changes: moves by\nwhat is named (AUC)",
    "signed_hits": "paired changes: towards\nthe value named (%)",
    "purity": "paired changes: movement\nby what is named (%)",
}
METHODS = {
    "components": "components",
    "weights": "components of the weights",
    "sparse": "sparse sums",
    "sparse_coherent": "coherent sums",
}


def names(table, *, title, footer):
    """One panel per measure, one line per method, and below controls of what components fire on; table: names.csv."""
    shown = [measure for measure in PANELS if (table["measure"] == measure).any()]
    table = table[(table["components"] == "all") & (table["names"] == "all")]
    rows = [(METHODS[method], (table["method"] == method) & (table["control"] == "")) for method in METHODS]
    controls = [control for control in dict.fromkeys(table["control"]) if control]
    is_component = table["method"] == "components"
    rows += [(control, is_component & (table["control"] == control)) for control in controls]
    rows = [(label, table[inside & table["measure"].isin(shown)]) for label, inside in rows]
    rows = [(label, of_row) for label, of_row in rows if len(of_row)]
    columns = min(len(shown), 3)
    panels = -(-len(shown) // columns)
    height = 0.75 + 0.21 * len(rows)
    figure = new_figure(1 + panels * height, title=title, footer=footer)
    spec = figure.add_gridspec(panels + 1, columns, height_ratios=[0.25, *[height] * panels])
    grid = np.array([[figure.add_subplot(spec[1 + row, column]) for column in range(columns)] for row in range(panels)])
    used = [naming for naming in NAMINGS if (table["naming"] == naming).any()]
    for axes, measure in zip(grid.flat, shown):
        for place, (_, of_row) in enumerate(rows):
            of_measure = of_row[of_row["measure"] == measure].set_index("naming")
            for number, naming in enumerate(name for name in used if name in of_measure.index):
                row, (label, colour, marker) = of_measure.loc[naming], NAMINGS[naming]
                shift = 0.17 * (number - (len(used) - 1) / 2)
                axes.plot([row["score_low"], row["score_high"]], [place + shift] * 2, color=colour, linewidth=0.9)
                axes.plot(row["score"], place + shift, marker, color=colour, markersize=3, label=label)
                if np.isfinite(row["by_chance"]):
                    axes.plot(row["by_chance"], place + shift, "|", color="#777777", markersize=4, label="by chance")
        axes.set_title(PANELS[measure], fontsize=8)
        is_first = axes in grid[:, 0]
        axes.set_yticks(range(len(rows)), [label for label, _ in rows] if is_first else [""] * len(rows), fontsize=7)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="x", color="#dddddd", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    handles = {}
    for axes in grid.flat:
        handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels()) if label not in handles}
    order = [label for label, _, _ in NAMINGS.values() if label in handles] + ["by chance"] * ("by chance" in handles)
    legend = figure.add_subplot(spec[0, :])
    legend.set_axis_off()
    legend.legend([handles[label] for label in order], order, loc="center", ncols=5, frameon=False, fontsize=7)
    return figure
