"""Figures of the evidence in images: segmentation examples, maps of texts, heads that point at the object."""

import textwrap

import numpy as np

from clipspectra.figures.drawing import new_figure, show_picture
from clipspectra.figures.heads import by_head, draw_heads, heads_height


def segmentation_examples(pictures, masks, maps, predictions, kinds, table, *, title, footer):
    """Columns of examples (image, mask, map, prediction) titled by kind; below them a table of all methods' scores.

    table: rows of {"method", "pixel_accuracy", "mean_iou", "mean_ap"}, in per cent, each score with _low and _high.
    """
    figure = new_figure(4.0 + 0.24 * len(table), footer)
    figure.suptitle(title, fontsize=10)
    upper, lower = figure.subfigures(2, 1, height_ratios=[3.4, 0.3 + 0.24 * len(table)])
    axes = upper.subplots(4, len(pictures), squeeze=False)
    grey, heat = ({"cmap": name, "vmin": 0, "vmax": 1} for name in ("gray", "cividis"))
    rows = (("image", pictures, {}), ("mask", masks, grey), ("map", maps, heat), ("prediction", predictions, grey))
    for row_axes, (name, arrays, options) in zip(axes, rows):
        row_axes[0].set_ylabel(name)
        for panel, array in zip(row_axes, arrays):
            show_picture(panel, array, **options)
    for panel, kind in zip(axes[0], kinds):
        panel.set_title(kind, fontsize=7.5)
    below = lower.subplots()
    below.set_axis_off()
    names = {"pixel_accuracy": "pixel accuracy (%)", "mean_iou": "mean IoU (%)", "mean_ap": "mean AP (%)"}

    def cell(row, score):
        return f"{row[score]:.1f}  ({row[score + '_low']:.1f} to {row[score + '_high']:.1f})"

    cells = [[row["method"], *(cell(row, score) for score in names)] for row in table]
    labels = ["method", *names.values()]
    scores = below.table(cells, colLabels=labels, loc="center", cellLoc="center", edges="horizontal")
    scores.auto_set_font_size(False)
    scores.set_fontsize(7.5)
    scores.auto_set_column_width(range(len(labels)))
    scores.scale(1, 1.1)
    return figure


def spatial(picture, evidence, texts, *, layers=4, heads=4, title, footer):
    """One row per text: the picture and maps of the evidence, of all heads, of the last layers and of single heads.

    evidence: [text, layer, head, row, column]; the heads shown are those with the largest evidence on any patch. Red is
    evidence for the text, blue against it; each panel has its own colour scale, symmetric around 0.
    """
    figure = new_figure(0.6 + 0.8 * len(texts), footer)
    figure.suptitle(title, fontsize=10)
    total, layers = evidence.shape[1], min(layers, evidence.shape[1])
    rows = figure.subplots(len(texts), 2 + layers + heads, squeeze=False)
    height, width = picture.shape[:2]
    for row_axes, text, text_evidence in zip(rows, texts, evidence):
        show_picture(row_axes[0], picture)
        row_axes[0].set_ylabel("\n".join(_wrapped(text, 16)), fontsize=7, rotation=0, ha="right", va="center")
        strongest = np.argsort(-np.abs(text_evidence).max((2, 3)).ravel())[:heads]
        places = [np.unravel_index(place, text_evidence.shape[:2]) for place in strongest]
        panels = {"all heads": text_evidence.sum((0, 1))}
        panels |= {f"layer {layer}": text_evidence[layer].sum(0) for layer in range(total - layers, total)}
        panels |= {f"L{layer} head {head}": text_evidence[layer, head] for layer, head in places}
        for axes, (name, values) in zip(row_axes[1:], panels.items()):
            limit = max(np.abs(values).max(), 1e-12)
            axes.imshow(picture.mean(2), cmap="gray", extent=(0, width, height, 0), alpha=0.6)
            show_picture(axes, values, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=(0, width, height, 0), alpha=0.75)
            axes.set_title(name, fontsize=6.5, pad=2)
        for axes in row_axes[1 + len(panels) :]:
            axes.set_axis_off()
    return figure


def _wrapped(text, width):
    """The lines of a text, wrapped at `width` characters."""
    return textwrap.wrap(text, width) or [""]


def segmentation_parts(heads, together, *, title, footer):
    """Layers by heads: mean average precision of each head alone; and the scores of the best units together."""
    values = by_head(heads, lambda rows: rows["mean_ap"].iloc[0])
    figure = new_figure(heads_height(values.shape, least=2.2), footer)
    figure.suptitle(title, fontsize=10)
    left, right = figure.subplots(1, 2)
    options = {"label": "mean AP of the head alone (%)", "cmap": "cividis"}
    draw_heads(left, values, heads["layer"].min(), is_dark=~(values > (values.min() + values.max()) / 2), **options)
    left.set_title("Each head alone")
    lines = {"mean_ap": ("mean AP", "#009E73"), "pixel_accuracy": ("pixel accuracy", "#D55E00")}
    lines["mean_iou"] = ("mean IoU", "#0072B2")
    for unit, style in (("heads", "-"), ("components", "--")):
        rows = together[together["unit"] == unit]
        for score, (name, colour) in lines.items() if len(rows) else ():
            label = f"{name}, {unit}"
            right.plot(rows["number"], rows[score], style, color=colour, marker="o", ms=3, lw=1.2, label=label)
    right.set_xscale("log", base=2)
    powers = [2**power for power in range(int(together["number"].max()).bit_length())]
    right.set_xticks(powers, map(str, powers))
    right.minorticks_off()
    right.set(xlabel="number of best parts together", ylabel="score (%)", title="The best parts together")
    right.spines[["top", "right"]].set_visible(False)
    right.legend(frameon=False, fontsize=7, loc="center right", bbox_to_anchor=(1, 0.47))
    return figure
