"""The figures, each from one small table; no figure computes a result.

Sizes are for print, 7 inches wide. Colours are Okabe and Ito's and cividis, safe for the colour-blind. Files carry no
date, so the same inputs give the same bytes.
"""

import textwrap

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from clipspectra.arrays import whole

plt.rcParams.update(
    {
        "font.size": 8,
        "axes.titlesize": 9,
        "figure.dpi": 200,
        "pdf.fonttype": 42,
        "text.parse_math": False,  # texts are shown as they are, dollar signs too
    }
)

WIDTH = 7.0
OKABE_ITO = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2"]


def save(figure, *paths):
    """Write a figure under each path, by its ending, without dates."""
    _settle(figure)
    for path in paths:
        ending = str(path).rsplit(".", 1)[1]
        metadata = {"CreationDate": None} if ending == "pdf" else {"Software": None}
        with whole(path) as part:
            figure.savefig(part, format=ending, metadata=metadata)
    plt.close(figure)


def _settle(figure):
    """Lay the figure out for good. The solver's last digits vary from run to run: rounded, the bytes do not."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position(original=True).bounds, 5))
    for part in figure.subfigs:
        part.bbox_relative.set_points(np.round(part.bbox_relative.get_points(), 5))
    for part in (figure, *figure.subfigs):
        for text in part.texts:
            text.set_position(np.round(text.get_position(), 5))


def provenance(wildcards, images, protocol="held_out"):
    """The small print below a figure: what it was computed from. images: the seed's table with its roles."""
    if protocol == "same":
        images = images.assign(role="fit and eval")
    counts, splits = images["role"].value_counts(), images.groupby("role")["split"].unique().str.join(", ")
    used = [f"{counts[role]} {role} images ({splits[role]})" for role in sorted(counts.index, reverse=True)]
    named = [f"{key} {wildcards[key]}" for key in ("model", "dataset", "seed", "texts") if key in wildcards.keys()]
    return " · ".join(named + used)


def _new(height, footer, **options):
    """A figure with its provenance in small print below."""
    figure = plt.figure(figsize=(WIDTH, height), layout="constrained", **options)
    figure.supxlabel(footer, fontsize=6, color="#555555")
    return figure


def _picture(axes, picture, frame="#888888", **options):
    axes.imshow(picture, interpolation="nearest", **options)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=frame, linewidth=0.8)


def caption_of(row, factors):
    """A picture's factors in lines of two, or its class where the dataset has no factors."""
    words = [str(row[factor]) for factor in factors] or [str(row["class"])]
    return "\n".join(" ".join(words[start : start + 2]) for start in range(0, len(words), 2))


def contact_sheet(pictures, captions, *, title, footer, columns=8):
    """Pictures in a grid with a short caption below each."""
    rows = -(-len(pictures) // columns)
    figure = _new(0.5 + 1.25 * rows, footer)
    figure.suptitle(title, fontsize=10)
    for axes, picture, caption in zip(figure.subplots(rows, columns).flat, pictures, captions):
        _picture(axes, picture)
        axes.set_xlabel(caption, fontsize=6.5, labelpad=2)
    for axes in figure.axes[len(pictures) :]:
        axes.set_axis_off()
    return figure


def head_factors(table, factors):
    """Share of each head's variance between the values of each factor: {factor: [layer, head]}, from the first layer.

    The components are orthogonal, so it is the mean of their η² weighted by their variance.
    """
    return {
        factor: _by_head(table, lambda rows, of=f"eta2_{factor}": (rows[of] * rows["share"]).sum())
        for factor in factors
    }


def _by_head(table, value):
    """value(rows of a head) as an array [layer, head] that starts at the table's first layer; 0 for absent heads."""
    first, last = table["layer"].min(), table["layer"].max()
    values = np.zeros((last - first + 1, table["head"].max() + 1))
    for (layer, head), rows in table.groupby(["layer", "head"]):
        values[layer - first, head] = value(rows)
    return values


def heads_map(table, factors, *, first=3, title, footer):
    """Layers by heads: how much of a head's variance its first components hold, and what moves it."""
    table = table[table["layer"] >= 0]
    held = _by_head(table, lambda rows: 100 * rows.loc[rows["component"] < first, "share"].sum())
    grid, start = held.shape, table["layer"].min()
    small = grid[1] <= 6
    figure = _new(1.4 + max(1.8, 0.42 * grid[0] if small else 0.14 * grid[0]), footer)
    figure.suptitle(title, fontsize=10)
    left, right = figure.subplots(1, 2) if factors else (figure.subplots(), None)
    image = left.imshow(held, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    figure.colorbar(image, ax=left, label="% of the head's variance", shrink=0.9)
    left.set_title(f"Variance in the first {first} components")
    _label_heads(left, grid, start)
    if small:
        for (layer, head), value in np.ndenumerate(held):
            left.text(head, layer, f"{value:.0f}", ha="center", va="center", color="black" if value > 55 else "white")
    if factors:
        shares = np.stack(list(head_factors(table, factors).values()))
        winner = shares.argmax(0)
        right.set(xlim=(-0.5, grid[1] - 0.5), ylim=(grid[0] - 0.5, -0.5), title="Factor that explains most of it")
        for (layer, head), index in np.ndenumerate(winner):
            share = shares[index, layer, head]
            colour = OKABE_ITO[index % len(OKABE_ITO)]
            right.add_patch(
                Rectangle(
                    (head - 0.5, layer - 0.5), 1, 1, facecolor=colour, alpha=0.15 + 0.85 * share, edgecolor="white"
                )
            )
            if small:
                right.text(
                    head, layer, f"{factors[index]}\n{100 * share:.0f} %", ha="center", va="center", fontsize=7.5
                )
        _label_heads(right, grid, start)
        if not small:
            colours = [OKABE_ITO[index % len(OKABE_ITO)] for index in range(len(factors))]
            handles = [Rectangle((0, 0), 1, 1, facecolor=colour) for colour in colours]
            right.legend(handles, factors, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, frameon=False)
    return figure


def effects_map(table, *, title, footer):
    """Layers by heads: points of accuracy lost with a head at its mean, and its share of the margin."""
    table = table[table["kind"] == "head"]
    panels = {
        "accuracy_lost": ("Accuracy lost if held at its mean", "points of accuracy"),
        "margin_share": ("Share of the right class's margin", "% of the margin"),
    }
    shown = {name: _by_head(table, lambda rows, name=name: rows[name].iloc[0]) for name in panels}
    grid, start = shown["margin_share"].shape, table["layer"].min()
    small = grid[1] <= 6
    figure = _new(1.4 + max(1.8, 0.42 * grid[0] if small else 0.14 * grid[0]), footer)
    figure.suptitle(title, fontsize=10)
    for axes, (name, (heading, unit)) in zip(figure.subplots(1, 2), panels.items()):
        most = max(np.abs(shown[name]).max(), 1e-9)
        image = axes.imshow(shown[name], cmap="PuOr_r", vmin=-most, vmax=most, aspect="auto")
        figure.colorbar(image, ax=axes, label=unit, shrink=0.9)
        axes.set_title(heading)
        _label_heads(axes, grid, start)
        if small:
            for (layer, head), value in np.ndenumerate(shown[name]):
                colour = "white" if abs(value) > 0.75 * most else "black"
                axes.text(head, layer, f"{value:.1f}", ha="center", va="center", color=colour)
    return figure


def _label_heads(axes, grid, start):
    axes.set(xlabel="head", ylabel="layer")
    axes.set_xticks(range(0, grid[1], 1 if grid[1] <= 16 else 4))
    layers = range(0, grid[0], 1 if grid[0] <= 16 else 4)
    axes.set_yticks(layers, [start + layer for layer in layers])


def clearest(table, factors, *, count=5, least_share=0.05):
    """Rows of the components to show first: those that one factor explains best, at most two a factor.

    Without factors: those that hold the largest share of their head's variance, one a head.
    """
    shown = table[(table["share"] >= least_share) & (table["layer"] >= 0)].copy()
    if not factors:
        return shown.sort_values("share", ascending=False).drop_duplicates(["layer", "head"]).head(count)
    eta = shown[[f"eta2_{factor}" for factor in factors]].to_numpy()
    shown["factor"] = np.array(factors)[eta.argmax(1)]
    shown["eta2"] = eta.max(1)
    shown = shown.sort_values("eta2", ascending=False).drop_duplicates(["layer", "head", "factor"])
    shown["place"] = shown.groupby("factor").cumcount()
    return shown[shown["place"] < 2].sort_values(["place", "eta2"], ascending=[True, False]).head(count)


def cards(entries, *, title, footer):
    """One card a component: its texts and images at the top pole (left) and the bottom pole (right).

    entries: dicts with "heading", and for "top" and "bottom" a dict with "texts" and "pictures" (four or more).
    """
    figure = _new(0.5 + 1.62 * len(entries), footer)
    figure.suptitle(title, fontsize=10)
    for part, entry in zip(np.atleast_1d(figure.subfigures(len(entries), 1)), entries):
        part.suptitle(entry["heading"], fontsize=8.5, fontweight="bold", x=0.01, ha="left")
        grid = part.add_gridspec(1, 2)
        for side, (pole, sign, colour) in enumerate((("top", "+", "#0072B2"), ("bottom", "−", "#D55E00"))):
            inner = grid[side].subgridspec(2, 4, height_ratios=[1, 0.62])
            for place, picture in enumerate(entry[pole]["pictures"][:4]):
                _picture(part.add_subplot(inner[0, place]), picture, frame=colour)
            text = part.add_subplot(inner[1, :])
            text.set_axis_off()
            lines = "\n".join(f"{sign} {line}" for line in entry[pole]["texts"][:3])
            text.text(
                0.02,
                1,
                lines,
                va="top",
                ha="left",
                fontsize=7.5,
                color=colour,
                linespacing=1.3,
                transform=text.transAxes,
            )
    return figure


def segmentation_examples(pictures, masks, maps, found, kinds, table, *, title, footer):
    """Columns of examples (image, mask, map, prediction) under the kind of each; below them the scores of all methods.

    table: rows of {"method", "pixel_accuracy", "mean_iou", "mean_ap"}, in per cent, each score with _low and _high.
    """
    figure = _new(4.0 + 0.24 * len(table), footer)
    figure.suptitle(title, fontsize=10)
    upper, lower = figure.subfigures(2, 1, height_ratios=[3.4, 0.3 + 0.24 * len(table)])
    axes = upper.subplots(4, len(pictures), squeeze=False)
    grey, heat = ({"cmap": name, "vmin": 0, "vmax": 1} for name in ("gray", "cividis"))
    rows = (("image", pictures, {}), ("mask", masks, grey), ("map", maps, heat), ("prediction", found, grey))
    for line, (name, shown, options) in zip(axes, rows):
        line[0].set_ylabel(name)
        for one, picture in zip(line, shown):
            _picture(one, picture, **options)
    for one, kind in zip(axes[0], kinds):
        one.set_title(kind, fontsize=7.5)
    below = lower.subplots()
    below.set_axis_off()
    names = {"pixel_accuracy": "pixel accuracy (%)", "mean_iou": "mean IoU (%)", "mean_ap": "mean AP (%)"}

    def cell(row, score):
        return f"{row[score]:.1f}  ({row[score + '_low']:.1f} to {row[score + '_high']:.1f})"

    cells = [[row["method"], *(cell(row, score) for score in names)] for row in table]
    labels = ["method", *names.values()]
    drawn = below.table(cells, colLabels=labels, loc="center", cellLoc="center", edges="horizontal")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(7.5)
    drawn.auto_set_column_width(range(len(labels)))
    drawn.scale(1, 1.1)
    return figure


def spatial(picture, evidence, texts, *, layers=4, heads=4, title, footer):
    """A row a text: the picture, where the evidence for the text is, the same by layer (the last ones) and by head.

    evidence: [text, layer, head, row, column]; the heads shown are those with the largest evidence on any patch. Red is
    for the text, blue against it; each panel has its own scale, all panels of a row share their sign.
    """
    figure = _new(0.6 + 0.8 * len(texts), footer)
    figure.suptitle(title, fontsize=10)
    layers = min(layers, evidence.shape[1])
    rows = figure.subplots(len(texts), 2 + layers + heads, squeeze=False)
    height, width = picture.shape[:2]
    for line, text, of_text in zip(rows, texts, evidence):
        _picture(line[0], picture)
        line[0].set_ylabel("\n".join(_wrapped(text, 16)), fontsize=7, rotation=0, ha="right", va="center")
        strongest = np.argsort(-np.abs(of_text).max((2, 3)).ravel())[:heads]
        places = [np.unravel_index(place, of_text.shape[:2]) for place in strongest]
        panels = {"all heads": of_text.sum((0, 1))}
        panels |= {f"layer {layer}": of_text[layer].sum(0) for layer in range(len(of_text) - layers, len(of_text))}
        panels |= {f"L{layer} head {head}": of_text[layer, head] for layer, head in places}
        for axes, (name, values) in zip(line[1:], panels.items()):
            most = max(np.abs(values).max(), 1e-12)
            axes.imshow(picture.mean(2), cmap="gray", extent=(0, width, height, 0), alpha=0.6)
            _picture(axes, values, cmap="RdBu_r", vmin=-most, vmax=most, extent=(0, width, height, 0), alpha=0.75)
            axes.set_title(name, fontsize=6.5, pad=2)
        for axes in line[1 + len(panels) :]:
            axes.set_axis_off()
    return figure


def _wrapped(text, width):
    """Lines of a text, at most about `width` characters each."""
    return textwrap.wrap(text, width) or [""]


def segmentation_parts(heads, together, *, title, footer):
    """Layers by heads: average precision of each head alone; and the scores of the best heads together."""
    values = _by_head(heads, lambda rows: rows["mean_ap"].iloc[0])
    grid, small = values.shape, values.shape[1] <= 6
    figure = _new(1.4 + max(2.2, 0.42 * grid[0] if small else 0.14 * grid[0]), footer)
    figure.suptitle(title, fontsize=10)
    left, right = figure.subplots(1, 2)
    image = left.imshow(values, cmap="cividis", aspect="auto")
    figure.colorbar(image, ax=left, label="mean AP of the head alone (%)", shrink=0.9)
    left.set_title("Each head alone")
    _label_heads(left, grid, heads["layer"].min())
    if small:
        middle = (values.min() + values.max()) / 2
        for (layer, head), value in np.ndenumerate(values):
            colour = "black" if value > middle else "white"
            left.text(head, layer, f"{value:.0f}", ha="center", va="center", color=colour)
    lines = {"mean_ap": ("mean AP", "#009E73"), "pixel_accuracy": ("pixel accuracy", "#D55E00")}
    lines["mean_iou"] = ("mean IoU", "#0072B2")
    for kind, style in (("heads", "-"), ("components", "--")):
        rows = together[together["of"] == kind]
        for score, (name, colour) in lines.items() if len(rows) else ():
            label = f"{name}, {kind}"
            right.plot(rows["number"], rows[score], style, color=colour, marker="o", ms=3, lw=1.2, label=label)
    right.set_xscale("log", base=2)
    powers = [2**power for power in range(int(together["number"].max()).bit_length())]
    right.set_xticks(powers, map(str, powers))
    right.minorticks_off()
    right.set(xlabel="number of best parts together", ylabel="score (%)", title="The best parts together")
    right.spines[["top", "right"]].set_visible(False)
    right.legend(frameon=False, fontsize=7, loc="center right", bbox_to_anchor=(1, 0.47))
    return figure


RECOVERY_LINES = {
    "components": ("components, a text each", "#0072B2", "-"),
    "textspan": ("TextSpan, centred", "#D55E00", "-"),
    "textspan_paper": ("TextSpan as in the paper's code", "#E69F00", "-"),
    "sparse": ("sparse sums of texts", "#009E73", "-"),
    "sparse_coherent": ("sparse sums of like texts", "#56B4E9", "-"),
    "weights": ("components of the weights", "#CC79A7", "-"),
    "random_texts": ("components, random pool", "#0072B2", "--"),
    "random_texts_sparse": ("sparse, random pool", "#009E73", "--"),
    "random_directions": ("random directions (floor)", "#777777", "--"),
    "components_without_text": ("components without text (ceiling)", "#000000", ":"),  # last: on top
}


def recovery(table, *, title, footer):
    """Accuracy against the number of texts a head, one line a method, sd over seeds as a band; top-1 and variance."""
    figure = _new(4.0, footer)
    figure.suptitle(title, fontsize=10)
    panels = {"top1": "zero-shot top-1 accuracy (%)", "explained_variance": "explained variance of the heads (%)"}
    places = figure.subplot_mosaic([["legend", "legend"], list(panels)], height_ratios=[1.5, 7])
    for score, label in panels.items():
        axes = places[score]
        for method, (name, colour, style) in RECOVERY_LINES.items():
            rows = table[table["method"] == method].sort_values("budget")
            if rows.empty:
                continue
            low, high = rows[score] - rows[f"{score}_sd"], rows[score] + rows[f"{score}_sd"]
            axes.fill_between(rows["budget"], low, high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(
                rows["budget"], rows[score], style, color=colour, label=name, marker="o", markersize=2.5, linewidth=1.2
            )
        axes.set(xlabel="texts a head", ylabel=label)
        axes.spines[["top", "right"]].set_visible(False)
    places["legend"].set_axis_off()
    places["legend"].legend(*axes.get_legend_handles_labels(), loc="center", ncols=3, frameon=False)
    return figure
