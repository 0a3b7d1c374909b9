"""Figures of heads and their components, each drawn from one small table of results."""

import numpy as np
from matplotlib.patches import Rectangle

from clipspectra.figures.drawing import OKABE_ITO, legend_below, new_figure, show_picture
from clipspectra.figures.lettering import shorten, wrapped


def picture_caption(row, factors):
    """A picture's factor values, or its class if the dataset has no factors, in lines as wide as a picture."""
    words = " ".join(shorten(row[factor], 15) for factor in factors) or str(row["class"])
    return "\n".join(wrapped(words, 15, most=3))


def contact_sheet(pictures, captions, *, title, footer, columns=8):
    """Pictures in a grid with a short caption below each."""
    rows = -(-len(pictures) // columns)
    figure = new_figure(0.5 + 1.25 * rows, title=title, footer=footer)
    for axes, picture, caption in zip(figure.subplots(rows, columns).flat, pictures, captions):
        show_picture(axes, picture)
        axes.set_xlabel(caption, fontsize=7, labelpad=2)
    for axes in figure.axes[len(pictures) :]:
        axes.set_axis_off()
    return figure


def head_factors(table, factors):
    """η² of each factor over a head's whole variance: {factor: [layer, head]}, from the table's first layer.

    The components are orthogonal, so it is the mean of their η² weighted by their share of the variance.
    """
    shares = {factor: table.assign(value=table[f"eta2_{factor}"] * table["share"]) for factor in factors}
    return {factor: by_head(rows, lambda rows: rows["value"].sum()) for factor, rows in shares.items()}


def by_head(table, value):
    """value(a head's rows) for each head: [layer, head], from the table's first layer; 0 for heads not in the table."""
    first, last = table["layer"].min(), table["layer"].max()
    values = np.zeros((last - first + 1, table["head"].max() + 1))
    for (layer, head), rows in table.groupby(["layer", "head"]):
        values[layer - first, head] = value(rows)
    return values


OTHER = "#999999"


def heads_map(table, factors, *, first=3, title, footer):
    """Layers by heads: a head's variance in its first components, and the factor that explains most of its variance."""
    table = table[table["layer"] >= 0]
    variance = by_head(table, lambda rows: 100 * rows.loc[rows["component"] < first, "share"].sum())
    grid, start = variance.shape, table["layer"].min()
    figure = new_figure(heads_height(grid), title=title, footer=footer)
    left, right = figure.subplots(1, 2) if factors else (figure.subplots(), None)
    options = {"cmap": "cividis", "vmin": 0, "vmax": 100}
    draw_heads(left, variance, start, is_dark=variance <= 55, label="% of the head's variance", **options)
    left.set_title(f"Variance in the first {first} components")
    if factors:
        draw_strongest(right, head_factors(table, factors), start)
    return figure


def draw_strongest(axes, shares, start, *, title="Factor that explains most of it", most=1.0, label="{:.0f} %"):
    """The factor with the largest share of each head, deeper in colour the larger it is; start: the first layer.

    shares: {factor: [layer, head]}; most: the share of the deepest colour; label: of shares, in %. The factors that are
    largest in most heads have colours, all others are grey.
    """
    names, shares = list(shares), np.stack(list(shares.values()))
    strongest, grid = shares.argmax(0), shares.shape[1:]
    by_count = np.argsort(-np.bincount(strongest.ravel(), minlength=len(names)), kind="stable")[: len(OKABE_ITO)]
    colours = {index: OKABE_ITO[place] for place, index in enumerate(sorted(by_count))}
    axes.set(xlim=(-0.5, grid[1] - 0.5), ylim=(grid[0] - 0.5, -0.5), title=title)
    for (layer, head), index in np.ndenumerate(strongest):
        share, place = shares[index, layer, head], (head - 0.5, layer - 0.5)
        fill = {"facecolor": colours.get(index, OTHER), "alpha": 0.15 + 0.85 * share / most}
        axes.add_patch(Rectangle(place, 1, 1, edgecolor="white", linewidth=cell_edge(grid), **fill))
        if has_numbers(grid):
            words = f"{shorten(names[index], min(12, 36 // grid[1]))}\n{label.format(100 * share)}"
            axes.text(head, layer, words, ha="center", va="center", fontsize=7.5)
    label_heads(axes, grid, start)
    if not has_numbers(grid):
        entries = {shorten(names[index], 20): colour for index, colour in colours.items()}
        entries |= {"another factor": OTHER} if len(names) > len(colours) else {}
        handles = [Rectangle((0, 0), 1, 1, facecolor=colour) for colour in entries.values()]
        axes.legend(handles, entries, ncols=3, handlelength=1, **legend_below(axes))


def factors_map(table, factors, *, first=10, title, footer):
    """Layers by heads for each factor: the largest η² that one of a head's first components has, and which that is.

    Of many factors, those with the largest η² anywhere are shown, as many as a page holds.
    """
    table = table[(table["layer"] >= 0) & (table["component"] < first)]
    best = {factor: by_head(table, lambda rows, name=f"eta2_{factor}": rows[name].max()) for factor in factors}
    grid, start = best[factors[0]].shape, table["layer"].min()
    columns = min(len(factors), 3 if has_numbers(grid) else 4 if len(factors) > 4 else 2)
    height = 0.75 + max(1.2, (0.38 if has_numbers(grid) else 0.085) * grid[0])
    most = columns * max(1, int(8.5 / height))
    shown = sorted(factors, key=lambda factor: -best[factor].max())[:most]
    shown = [factor for factor in factors if factor in shown]
    if len(shown) < len(factors):
        footer += f"\n{len(shown)} of {len(factors)} factors: those that move a component most"
    rows = -(-len(shown) // columns)
    figure = new_figure(0.6 + rows * height, title=title, footer=footer)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, factor in zip(panels.flat, shown):
        image = axes.imshow(100 * best[factor], aspect="auto", cmap="cividis", vmin=0, vmax=100)
        label_heads(axes, grid, start, most=24 // columns)
        axes.set_title(shorten(factor, 60 // columns))
        rows_of_best = table.loc[table.groupby(["layer", "head"])[f"eta2_{factor}"].idxmax()]
        for row in rows_of_best.itertuples() if has_numbers(grid) else ():
            share = 100 * best[factor][row.layer - start, row.head]
            place, colour = (row.head, row.layer - start), "white" if share <= 55 else "black"
            axes.text(*place, f"c{row.component}: {share:.0f}", ha="center", va="center", color=colour, fontsize=7.5)
    for axes in panels.flat[len(shown) :]:
        axes.set_axis_off()
    figure.colorbar(image, ax=panels, label="η² of the component (%)", aspect=20 * rows, fraction=0.05)
    return figure


def effects_map(table, *, title, footer):
    """Layers by heads: accuracy lost with a head at its mean, in points, and its share of the margin.

    Hatched are heads whose 95 % interval includes 0.
    """
    table = table[table["kind"] == "head"]
    panels = {
        "accuracy_lost": ("Accuracy lost if held at its mean", "points of accuracy"),
        "margin_share": ("Share of the right class's margin", "% of the margin"),
    }
    names = [f"{name}{end}" for name in panels for end in ("", "_low", "_high")]
    grids = {name: by_head(table, lambda rows, name=name: rows[name].iloc[0]) for name in names}
    figure = new_figure(heads_height(grids["margin_share"].shape), title=title, footer=footer)
    for axes, (name, (heading, unit)) in zip(figure.subplots(1, 2), panels.items()):
        limit = np.nanmax(np.abs(grids[name]), initial=0) or 1
        options = {"digits": 1, "cmap": "PuOr_r", "vmin": -limit, "vmax": limit}
        is_dark = np.abs(grids[name]) > 0.75 * limit
        draw_heads(axes, grids[name], table["layer"].min(), is_dark=is_dark, label=unit, **options)
        within_noise = ~((grids[f"{name}_low"] > 0) | (grids[f"{name}_high"] < 0))  # blank ones too
        hatch_heads(axes, within_noise)
        axes.set_title(f"{heading}\nhatched: not told from 0, {within_noise.sum()} of {within_noise.size}")
    return figure


def hatch_heads(axes, chosen):
    """Hatch the heads in the bool array chosen [layer, head], around the numbers in their middle."""
    for layer, head in np.argwhere(chosen):
        cell = Rectangle((head - 0.5, layer - 0.5), 1, 1, fill=False, hatch="////", edgecolor="#999999", linewidth=0)
        axes.add_patch(cell)


def has_numbers(grid):
    """Whether the cells of heads, (layers, heads), have room for numbers."""
    return grid[0] <= 12 and grid[1] <= 6


def cell_edge(grid):
    """Width of the line between the cells of heads, (layers, heads)."""
    return 1 if has_numbers(grid) else 0.4


def heads_height(grid, least=1.8):
    """Height of a figure of heads, (layers, heads)."""
    return 1.4 + max(least, (0.42 if has_numbers(grid) else 0.14) * grid[0])


def draw_heads(axes, values, start, *, is_dark, label, digits=0, **options):
    """Values [layer, head] as colours, numbers in white where is_dark, and a colour bar; start: the first layer."""
    image = axes.imshow(values, aspect="auto", **options)
    axes.figure.colorbar(image, ax=axes, label=label, shrink=0.9)
    label_heads(axes, values.shape, start)
    draw_cell_numbers(axes, image, values, is_dark, digits)


def draw_cell_numbers(axes, image, values, is_dark, digits):
    """Numbers of values [layer, head] where there is room, in white where is_dark, over the colours of an image."""
    shades = np.ma.filled(image.get_array(), np.nan)
    for (layer, head), value in np.ndenumerate(values) if has_numbers(values.shape) else ():
        colour = "white" if is_dark[layer, head] else "black"
        fill = image.cmap(image.norm(shades[layer, head]))
        background = {"facecolor": fill, "edgecolor": "none", "pad": 1}  # over a hatch
        number = "–" if np.isnan(value) else f"{value:.{digits}f}".replace("-", "−")
        axes.text(head, layer, number, ha="center", va="center", color=colour, bbox=background, zorder=3)


def label_heads(axes, grid, start, most=12):
    """Numbers of heads, at most so many, and of layers, from the first one, start."""
    axes.set(xlabel="head", ylabel="layer")
    axes.set_xticks(range(0, grid[1], _step(grid[1], most)))
    layers = range(0, grid[0], _step(grid[0], 16))
    axes.set_yticks(layers, [start + layer for layer in layers])


def _step(count, most):
    """The power of two in whose steps at most so many of the count are named."""
    return 2 ** max(0, int(np.ceil(np.log2(count / most))))


RECOVERY_LINES = {
    "components": ("components, a text each", "#0072B2", "-"),
    "textspan": ("TextSpan, centred", "#D55E00", "-"),
    "textspan_paper": ("TextSpan as in the paper's code", "#E69F00", "-"),
    "sparse": ("sparse sums of texts", "#009E73", "-"),
    "sparse_coherent": ("sparse sums of like texts", "#56B4E9", "-"),
    "weights": ("components of the weights", "#CC79A7", "-"),
    "texts_at_random": ("texts drawn at random", "#8C6D31", "--"),
    "random_texts": ("components, random vectors as texts", "#0072B2", "--"),
    "random_texts_sparse": ("sparse sums, random vectors as texts", "#009E73", "--"),
    "random_directions": ("random directions of the head's space (floor)", "#777777", "--"),
    "components_without_text": ("components without text (ceiling)", "#000000", ":"),  # last: on top
}


def recovery(table, *, title, footer):
    """Top-1 accuracy and explained variance against the number of texts per head: one line per method.

    Bars are 95 % intervals over the images; bands hold 95 % of the draws of a random control.
    """
    figure = new_figure(4.6, title=title, footer=footer)
    panels = {"top1": "zero-shot top-1 accuracy (%)", "explained_variance": "explained variance of the heads (%)"}
    places = figure.subplot_mosaic([["legend", "legend"], list(panels)], height_ratios=[1.9, 7])
    shown = [method for method in RECOVERY_LINES if (table["method"] == method).any()]
    width = 0.012 * max(table["budget"].max(), 1)
    for score, label in panels.items():
        axes = places[score]
        for number, method in enumerate(shown):
            name, colour, style = RECOVERY_LINES[method]
            rows = table[table["method"] == method].sort_values("budget")
            line = {"color": colour, "linestyle": style, "marker": "o", "markersize": 2.5, "linewidth": 1.2}
            axes.plot(rows["budget"], rows[score], label=name, **line)
            if rows["draws"].max() > 1:
                low, high = rows[f"{score}_draws_low"], rows[f"{score}_draws_high"]
                axes.fill_between(rows["budget"], low, high, color=colour, alpha=0.2, linewidth=0)
            else:
                place = rows["budget"] + width * (number / max(len(shown) - 1, 1) - 0.5)  # beside each other
                axes.vlines(place, rows[f"{score}_low"], rows[f"{score}_high"], color=colour, linewidth=0.6, alpha=0.8)
        axes.set(xlabel="texts a head", ylabel=label)
        axes.spines[["top", "right"]].set_visible(False)
    places["legend"].set_axis_off()
    places["legend"].legend(*axes.get_legend_handles_labels(), loc="center", ncols=2, frameon=False, fontsize=7)
    return figure
