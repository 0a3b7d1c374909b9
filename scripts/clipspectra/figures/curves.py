"""Figures of curves over layers and components: ablation, spectra, stability and transfer."""

import re

import numpy as np
from matplotlib import colormaps
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from clipspectra.figures.drawing import COLUMN, legend_below, new_figure
from clipspectra.figures.lettering import shorten

HELD = 0.9  # of a head's variance, by the components that are counted
ENDS = {
    "first": ("from the first layer on, all MLPs too", "#0072B2", "o"),
    "last": ("from the last layer back, all MLPs too", "#D55E00", "s"),
}


def ablation(table, *, title, footer):
    """Accuracy against the number of layers whose heads are held at their mean, the MLPs too, with 95 % intervals.

    table: of accuracy.csv, the rows of all images and the factor class.
    """
    curves, bounds = ablation_curves(table), ["accuracy_low", "accuracy_high"]
    figure = new_figure(2.9, title=title, footer=footer, width=COLUMN)
    axes = figure.subplots()
    whole = table[table["at_mean"] == "none"].iloc[0]
    axes.axhspan(*whole[bounds], color="black", alpha=0.1, linewidth=0)
    axes.axhline(whole["accuracy"], color="black", linestyle="--", linewidth=1, label="nothing at its mean")
    for end, (label, colour, marker) in ENDS.items():
        rows = curves[curves["end"] == end]
        axes.fill_between(rows["count"], *(rows[bound] for bound in bounds), color=colour, alpha=0.18, linewidth=0)
        axes.plot(rows["count"], rows["accuracy"], marker + "-", color=colour, ms=3, lw=1.2, label=label)
    axes.set(xlabel="layers whose heads are at their mean", ylabel="zero-shot accuracy (%)", ylim=(0, 102))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(**legend_below(axes))
    return figure


def ablation_curves(table):
    """The rows of a table of accuracies that make curves: with their `end` and the `count` of layers at their mean."""
    places = {"MLPs": [("first", 0), ("last", 0)]}
    layers = {}
    for name in table["at_mean"]:
        if layer_range := re.fullmatch(r"MLPs and heads of layers? (\d+)(?:–(\d+))?", name):
            first, last = int(layer_range[1]), int(layer_range[2] or layer_range[1])
            layers[name] = "last" if first else "first", last - first + 1
    places |= {name: [place] for name, place in layers.items()}
    count = 1 + max((count for _, count in layers.values()), default=0)
    places["MLPs and all heads"] = [("first", count), ("last", count)]
    rows = table.assign(place=table["at_mean"].map(places)).dropna(subset="place").explode("place")
    rows = rows.assign(end=rows["place"].str[0], count=rows["place"].str[1].astype(int))
    return rows.sort_values(["end", "count"])


def spectra(table, *, title, footer):
    """How a head's variance adds up over its components, a line each; below, how many hold 90 % of it, by layer.

    table: layer, head, component and share, in falling order, of every head.
    """
    table = table[table["layer"] >= 0].sort_values(["layer", "head", "component"])
    layers = sorted(set(table["layer"]))
    figure = new_figure(4.4, title=title, footer=footer, width=COLUMN)
    upper, lower = figure.subplots(2, 1, height_ratios=[1.5, 1])
    colours, counts = layer_colours(layers), {layer: [] for layer in layers}
    for (layer, _), rows in table.groupby(["layer", "head"]):
        held = np.minimum(np.cumsum(rows["share"].to_numpy()), 1)
        upper.plot(np.arange(1, len(held) + 1), 100 * held, color=colours[layer], linewidth=0.6, alpha=0.8)
        counts[layer].append(1 + int(np.searchsorted(held, HELD - 1e-9)))
    upper.axhline(100 * HELD, color="black", linestyle=":", linewidth=0.8)
    upper.set(xlabel="number of components", ylabel="variance of the head (%)", ylim=(0, 102))
    upper.set_xscale("log", base=2)
    powers = [2**power for power in range(int(table["component"].max() + 1).bit_length())]
    upper.set_xticks(powers, map(str, powers))
    upper.minorticks_off()
    for place, (layer, numbers) in enumerate(counts.items()):
        spread = np.linspace(-0.25, 0.25, len(numbers)) if len(numbers) > 1 else [0]
        lower.plot(place + np.array(spread), numbers, "o", color=colours[layer], markersize=2.5)
        lower.hlines(np.mean(numbers), place - 0.35, place + 0.35, color="black", linewidth=1)
    lower.set_xticks(*_every(layers, most=12))
    lower.set(xlabel="layer (a dot for each head, line: mean)", ylabel=f"components for {100 * HELD:.0f} %")
    lower.set_ylim(bottom=0)
    lower.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def layer_colours(layers):
    """{layer: colour}, from dark to light, without the palest."""
    colours = colormaps["cividis"](np.linspace(0, 0.92, len(layers)))
    return dict(zip(layers, colours))


def _every(layers, most):
    """(places, labels) of at most so many layers."""
    step = -(-len(layers) // most)
    return range(0, len(layers), step), [str(layer) for layer in layers[::step]]


COMPARED = {
    "halves of the images": ("halves of the images", "#0072B2", "o"),
    "seeds": ("seeds", "#D55E00", "s"),
    "halves of the pool": ("halves of the text pool", "#009E73", "^"),
}
STABILITY_PANELS = {
    "mean_angle": "angle of spans (degrees)",
    "cosine": "|cosine| of components",
    "same_text": "same best text (%)",
    "text_cosine": "cosine of best texts",
}
STABILITY_COLUMNS = [f"{measure}{of}" for measure in STABILITY_PANELS for of in ("", "_by_chance")]


def stability(table, *, title, footer):
    """What stays of the heads' components by layer, and of the embedding's, with what chance gives.

    The rows of a comparison, of several seeds, are averaged.
    """
    figure = new_figure(4.2, title=title, footer=footer, width=COLUMN)
    shown = [compared for compared in COMPARED if (table["compared"] == compared).any()]
    layers = sorted({layer for layer in table["layer"] if layer != "embedding"}, key=int)
    means = table.groupby(["compared", "layer"])[STABILITY_COLUMNS].mean()
    names = list(STABILITY_PANELS)
    places = figure.subplot_mosaic([["legend"] * 2, names[:2], names[2:]], height_ratios=[0.3, 1, 1])
    for measure, label in STABILITY_PANELS.items():
        axes = places[measure]
        for compared in shown:
            _, colour, marker = COMPARED[compared]
            for column, line, point in ((measure, f"{marker}-", marker), (f"{measure}_by_chance", ":", "_")):
                values = means.loc[compared, column].reindex([*layers, "embedding"]).to_numpy()
                axes.plot(range(len(layers)), values[:-1], line, color=colour, markersize=2.5, linewidth=1)
                axes.plot(len(layers), values[-1], point, color=colour, markersize=3)
        axes.set_title(label, fontsize=8)
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.spines[["top", "right"]].set_visible(False)
        ticks, labels = _every(layers, most=6)
        axes.set_xticks([*ticks, len(layers)], [*labels, "all"])
    for measure in names[2:]:
        places[measure].set_xlabel("layer (all: embedding)")
    lines = [Line2D([], [], color=COMPARED[name][1], marker=COMPARED[name][2], ms=3, lw=1) for name in shown]
    lines.append(Line2D([], [], color="black", linestyle=":", linewidth=1))
    places["legend"].set_axis_off()
    labels = [*(COMPARED[name][0] for name in shown), "by chance"]
    places["legend"].legend(lines, labels, loc="center", ncols=2, frameon=False, fontsize=7)
    return figure


TRANSFER_LINES = {
    "own": ("components of {dataset} itself", "black", "o-"),
    "travelled": ("components of {from}, frozen", "#0072B2", "s-"),
    "weights": ("components of the weights", "#D55E00", "^-"),
    "random": ("random directions", "#888888", ":"),
}
# By the measure, and the means that it was measured about.
TRANSFER_PANELS = {
    "top1 travelled": ("about the means of {from}", "zero-shot accuracy (%)"),
    "top1 own": ("about the means of {dataset}", "zero-shot accuracy (%)"),
    "variance_held own": ("", "variance of the heads held (%)"),
    "names_kept travelled": ("", "names kept (%)"),
}


def transfer(table, *, title, footer):
    """What a basis gives on another dataset, against the number of components: its own, travelled, weights, chance.

    table: of transfer.csv, the rows of one transfer and model. Without classes there is no panel of accuracy. The own
    basis is about its own means in every panel.
    """
    shown = [panel for panel in TRANSFER_PANELS if table[panel.split()[0]].notna().any()]
    rows = [[*shown[start : start + 2], "."][:2] for start in range(0, len(shown), 2)]
    figure = new_figure(1 + 1.9 * len(rows), title=title, footer=footer)
    places = figure.subplot_mosaic([["legend"] * 2, *rows], height_ratios=[0.25, *[1] * len(rows)])
    names = {key: shorten(table[key].iloc[0], 28) for key in ("from", "dataset")}
    lines, width = {}, 0.012 * max(table["budget"].max(), 1)
    for panel in shown:
        axes, (score, means) = places[panel], panel.split()
        for number, (basis, (label, colour, style)) in enumerate(TRANSFER_LINES.items()):
            of_basis = table[(table["basis"] == basis) & ((table["means"] == means) | (basis == "own"))]
            of_basis = of_basis.sort_values("budget").dropna(subset=score)
            if not len(of_basis):
                continue
            thick = basis == "own"  # a rim to see below a line that is the same
            budgets, line = of_basis["budget"], {"color": colour, "ms": 3, "lw": 1.2}
            line |= {"ms": 4.5, "lw": 2.4} if thick else {}
            (lines[label.format(**names)],) = axes.plot(budgets, of_basis[score], style, **line)
            if score == "top1" and basis == "random":
                band = of_basis["top1_draws_low"], of_basis["top1_draws_high"]
                axes.fill_between(budgets, *band, color=colour, alpha=0.2, linewidth=0)
            elif score == "top1":
                beside = budgets + width * (number - 1)  # the bars beside each other
                axes.vlines(beside, of_basis["top1_low"], of_basis["top1_high"], color=colour, linewidth=0.6)
            if score == "names_kept" and basis == "travelled":
                chance = of_basis["names_kept_by_chance"]
                (lines["names dealt at random"],) = axes.plot(budgets, chance, "--", color="#888888", linewidth=1.2)
        heading, label = TRANSFER_PANELS[panel]
        axes.set_title(heading.format(**names), fontsize=8)
        axes.set(xlabel="components a head", ylabel=label)
        axes.spines[["top", "right"]].set_visible(False)
        if score != "top1":
            axes.set_ylim(0, 104)
    places["legend"].set_axis_off()
    if lines:
        places["legend"].legend(lines.values(), lines.keys(), loc="center", ncols=2, frameon=False, fontsize=7)
    else:
        places["legend"].text(0.5, 0.5, "nothing to score: no classes, and no variance over the images", ha="center")
    return figure
