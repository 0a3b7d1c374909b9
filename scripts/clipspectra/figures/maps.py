"""Figures of the evidence in images: segmentation examples, maps of texts, heads that point at the object."""

import numpy as np
from matplotlib.colors import FuncNorm
from matplotlib.lines import Line2D

from clipspectra.figures.drawing import PAGE, legend_below, new_figure, show_picture
from clipspectra.figures.heads import by_head, draw_heads, heads_height
from clipspectra.figures.lettering import wrapped

SCORE_PANELS = {
    "mean_iou": "mean IoU, threshold:\neach map's mean",
    "mean_ap": "mean AP,\nboth channels",
    "chosen_iou": "mean IoU, threshold:\nchosen on other images",
    "foreground_ap": "mean AP,\nforeground alone",
}
GIVEN_MARKERS = {
    "text minus mean": ("o", "#0072B2", "text minus the mean of all classes"),
    "text": ("s", "#D55E00", "the class's text alone"),
    "no text": ("D", "#777777", "no text"),
}


def segmentation_examples(pictures, masks, maps, predictions, kinds, table, *, title, footer):
    """Columns of examples (image, mask, map, prediction) titled by kind; below them all methods' scores.

    table: one row per method and what it is given of the class, with the scores of SCORE_PANELS in per cent, each with
    _low and _high, and flat_maps. Left the reference's protocol, right the two scores that depend less on it.
    """
    methods = list(dict.fromkeys(table["method"]))
    height = 1.0 + 0.2 * len(methods)
    figure = new_figure(3.7 + height, title=title, footer=footer)
    upper, lower = figure.subfigures(2, 1, height_ratios=[3.4, height])
    axes = upper.subplots(4, len(pictures), squeeze=False)
    grey, heat = ({"cmap": name, "vmin": 0, "vmax": 1} for name in ("gray", "cividis"))
    rows = (("image", pictures, {}), ("mask", masks, grey), ("map", maps, heat), ("prediction", predictions, grey))
    for row_axes, (name, arrays, options) in zip(axes, rows):
        row_axes[0].set_ylabel(name)
        for panel, array in zip(row_axes, arrays):
            show_picture(panel, array, **options)
    for panel, kind in zip(axes[0], kinds):
        panel.set_title(kind, fontsize=7.5)
    panels = lower.subplots(1, len(SCORE_PANELS), sharey=True)
    flat = table.groupby("method", sort=False)["flat_maps"].max()
    for panel, (score, heading) in zip(panels, SCORE_PANELS.items()):
        for given, (marker, colour, label) in GIVEN_MARKERS.items():
            scored = table[table["given"] == given]
            offset = {"text minus mean": -0.14, "text": 0.14, "no text": 0}[given]
            place = [methods.index(method) + offset for method in scored["method"]]
            panel.hlines(place, scored[f"{score}_low"], scored[f"{score}_high"], color=colour, linewidth=1)
            panel.plot(scored[score], place, marker, color=colour, markersize=3, label=label)
        panel.set_title(heading, fontsize=7.5)
        panel.set_xlabel("%, 95 % interval", fontsize=7)
        panel.grid(axis="x", linewidth=0.4, color="#dddddd")
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
        panel.tick_params(axis="x", labelsize=7)
    names = [f"{method}  ({flat[method]:.0f} flat)" if flat[method] else method for method in methods]
    panels[0].set_yticks(range(len(methods)), names, fontsize=7)
    panels[0].set_ylim(len(methods) - 0.4, -0.6)
    lower.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=7)
    return figure


def spatial(picture, evidence, texts, *, layers=4, heads=4, title, footer):
    """One row per text: the picture and maps of the evidence, of all heads, of the last layers and of single heads.

    evidence: parts of the cosine with the text, [text, layer, head, row, column]; the heads shown are those with the
    largest evidence on any patch. Red is evidence for the text, blue against it. All maps of a text have one scale,
    symmetric around 0, whose colours grow with the square root: one head's evidence is seen beside that of all.
    """
    figure = new_figure(0.6 + 0.8 * len(texts), title=title, footer=footer)
    total, layers = evidence.shape[1], min(layers, evidence.shape[1])
    rows = figure.subplots(len(texts), 2 + layers + heads, squeeze=False)
    for row_axes, text, text_evidence in zip(rows, texts, evidence):
        show_picture(row_axes[0], picture)
        label = "\n".join(wrapped(text, 16, most=4))
        row_axes[0].set_ylabel(label, fontsize=7, rotation=0, ha="right", va="center")
        strongest = np.argsort(-np.abs(text_evidence).max((2, 3)).ravel())[:heads]
        places = [np.unravel_index(place, text_evidence.shape[:2]) for place in strongest]
        panels = {"all heads": text_evidence.sum((0, 1))}
        panels |= {f"layer {layer}": text_evidence[layer].sum(0) for layer in range(total - layers, total)}
        panels |= {f"L{layer} head {head}": text_evidence[layer, head] for layer, head in places}
        norm = _evidence_scale(panels.values())
        for axes, (name, values) in zip(row_axes[1:], panels.items()):
            _show_evidence(axes, picture, values, norm)
            axes.set_title(name, fontsize=7, pad=2)
        for axes in row_axes[1 + len(panels) :]:
            axes.set_axis_off()
        _evidence_bar(row_axes, row_axes[1].images[-1])
    return figure


def evidence_by_head(picture, evidence, *, layers=4, title, footer):
    """The picture, and layers by heads: where each head of the last layers has its evidence for a text, on one scale.

    evidence: [layer, head, row, column]. Red is evidence for the text, blue against it.
    """
    first = max(len(evidence) - layers, 0)
    shown = evidence[first:]
    norm, columns = _evidence_scale([shown]), max(1 + shown.shape[1], 6)
    figure = new_figure(0.6 + PAGE / columns * len(shown), title=title, footer=footer)
    grid = figure.subplots(len(shown), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for (layer, head), axes in np.ndenumerate(grid[:, 1 : 1 + shown.shape[1]]):
        axes.set_axis_on()
        _show_evidence(axes, picture, shown[layer, head], norm)
        axes.set_title(f"L{first + layer} head {head}", fontsize=7, pad=2)
    grid[0, 0].set_axis_on()
    show_picture(grid[0, 0], picture)
    _evidence_bar(grid, axes.images[-1])
    return figure


def _evidence_scale(panels):
    """One scale of colours for all panels, symmetric around 0; its steps are square roots, so that small ones show."""
    limit = max(max(np.abs(values).max() for values in panels), 1e-12)
    return FuncNorm((_signed_root, _signed_square), -limit, limit)


def _evidence_bar(all_axes, image):
    """A colour bar beside the axes, for an image that one of them has."""
    limit = image.norm.vmax
    bar = image.axes.figure.colorbar(image, ax=all_axes, aspect=9, pad=0.01, ticks=[-limit, 0, limit])
    bar.ax.set_yticks([-limit, 0, limit], [f"−{limit:.2g}", "0", f"{limit:.2g}"], fontsize=7)
    bar.ax.minorticks_off()


def _show_evidence(axes, picture, values, norm):
    """Evidence by patch [row, column] on a grey picture, red for the text, blue against it."""
    height, width = picture.shape[:2]
    axes.imshow(picture.mean(2), cmap="gray", extent=(0, width, height, 0), alpha=0.6)
    show_picture(axes, values, cmap="RdBu_r", norm=norm, extent=(0, width, height, 0), alpha=0.75)


def _signed_root(values):
    return np.sign(values) * np.sqrt(np.abs(values))


def _signed_square(values):
    return np.sign(values) * np.square(values)


def segmentation_parts(heads, together, *, title, footer):
    """Layers by heads: foreground AP of each head alone; and the scores of the best units together."""
    values = by_head(heads, lambda rows: rows["foreground_ap"].iloc[0])
    figure = new_figure(heads_height(values.shape, least=2.8), title=title, footer=footer)
    left, right = figure.subplots(1, 2)
    options = {"label": "foreground AP of the head alone (%)", "cmap": "cividis"}
    known = values[np.isfinite(values)]
    is_dark = values <= (known.min() + known.max()) / 2 if len(known) else np.zeros(values.shape, bool)
    draw_heads(left, values, heads["layer"].min(), is_dark=is_dark, **options)
    left.set_title("Each head alone")
    lines = {"foreground_ap": ("foreground AP", "#009E73"), "mean_iou": ("mean IoU, cut at the mean", "#0072B2")}
    lines["chosen_iou"] = ("mean IoU, chosen cut", "#D55E00")
    styles = {unit: style for unit, style in (("heads", "-"), ("components", "--")) if (together["unit"] == unit).any()}
    for unit, style in styles.items():
        rows = together[together["unit"] == unit]
        for score, (_, colour) in lines.items():
            right.plot(rows["number"], rows[score], style, color=colour, marker="o", ms=3, lw=1.2)
            place = rows["number"] * (0.98 if unit == "heads" else 1.02)  # beside each other
            right.vlines(place, rows[f"{score}_low"], rows[f"{score}_high"], color=colour, lw=0.6, linestyle=style)
    handles = [Line2D([], [], color=colour, marker="o", ms=3, lw=1.2, label=name) for name, colour in lines.values()]
    handles += [Line2D([], [], color="black", linestyle=style, lw=1.2, label=unit) for unit, style in styles.items()]
    right.set_xscale("log", base=2)
    powers = [2**power for power in range(int(together["number"].max()).bit_length())]
    right.set_xticks(powers, map(str, powers))
    right.minorticks_off()
    right.set(xlabel="number of best parts together", ylabel="score (%)", title="The best parts together")
    right.spines[["top", "right"]].set_visible(False)
    right.legend(handles=handles, ncols=2, **legend_below(right))
    return figure
