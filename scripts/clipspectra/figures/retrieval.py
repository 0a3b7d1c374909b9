"""Figure of retrieval: which heads find images of the same value better than the whole embedding does."""

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from clipspectra.figures.drawing import new_figure
from clipspectra.figures.heads import by_head, draw_cell_numbers, has_numbers, label_heads
from clipspectra.figures.lettering import shorten

MARKS = {  # of what ranks the images: colour, marker
    "whole embedding": ("black", "D"),
    "head, best on fit images": ("#0072B2", "o"),
    "head that names it most": ("#009E73", "s"),
    "component, best on fit images": ("#D55E00", "^"),
}
ROW, STEP = 0.54, 0.205  # inches of a factor's marks, and the part of it between two of them


def retrieval_map(heads, table, *, title, footer):
    """Layers by heads for each factor: mean average precision, coloured by its difference from the whole embedding's.

    Below, for each factor, the whole embedding, the heads and the component that were chosen, and chance. Framed: the
    head that is best on the fit images; green square: the one that names the factor most. Of many factors, those that a
    head finds best beside the whole embedding are shown, as many as a page holds.
    heads: of same_value.unit_tables, averaged over seeds; table: of retrieval.csv, the rows of images among images
    """
    factors = list(dict.fromkeys(heads["factor"]))
    grid = by_head(heads[heads["factor"] == factors[0]], lambda rows: 0).shape
    columns = min(len(factors), 3 if has_numbers(grid) else 2)
    panel_height = 0.75 + max(0.9, (0.3 if has_numbers(grid) else 0.085) * grid[0])

    def height(count):
        return 1.5 + -(-count // columns) * panel_height + ROW * count

    most = max(count for count in range(1, len(factors) + 1) if count == 1 or height(count) < 8.8)
    gain = heads.groupby("factor")["against_whole"].max().fillna(-np.inf)
    shown = sorted(factors, key=lambda factor: -gain[factor])[:most]
    shown = [factor for factor in factors if factor in shown]
    if len(shown) < len(factors):
        footer += f"\n{len(shown)} of {len(factors)} factors: those that a head finds best beside the whole embedding"
    rows = -(-len(shown) // columns)
    figure = new_figure(height(len(shown)), title=title, footer=footer)
    upper, lower = figure.subfigures(2, 1, height_ratios=[rows * panel_height, 0.9 + ROW * len(shown)])
    panels = upper.subplots(rows, columns, squeeze=False)
    limit = heads.loc[heads["factor"].isin(shown), "against_whole"].abs().max()
    limit = limit if limit > 0 else 1
    for axes, factor in zip(panels.flat, shown):
        image = _draw_factor(axes, heads[heads["factor"] == factor], limit, columns)
    for axes in panels.flat[len(shown) :]:
        axes.set_axis_off()
    label = "points above the\nwhole embedding" if rows == 1 else "mAP above the whole embedding's (points)"
    upper.colorbar(image, ax=panels, label=label, aspect=12 * rows, fraction=0.05)
    _draw_marks(lower.subplots(), table, shown)
    return figure


def _draw_factor(axes, heads, limit, columns):
    """One factor's heads: colours from -limit to limit, numbers where there is room, and marks of the chosen heads."""
    start = heads["layer"].min()
    grids = {name: by_head(heads, lambda rows, name=name: rows[name].iloc[0]) for name in ("score", "against_whole")}
    scores, against = grids.values()
    image = axes.imshow(against, aspect="auto", cmap="PuOr_r", vmin=-limit, vmax=limit)
    label_heads(axes, against.shape, start, most=24 // columns)
    whole = heads["whole"].iloc[0]
    axes.set_title(f"{shorten(heads['factor'].iloc[0], 36 // columns)} (whole: {_number(whole)})", fontsize=8)
    draw_cell_numbers(axes, image, scores, np.abs(against) > 0.75 * limit, digits=0)
    chosen = {
        column: heads.loc[heads[column].idxmax(), ["layer", "head"]].astype(int)
        for column in ("fit_score", "named")
        if heads[column].max() > 0
    }
    if "fit_score" in chosen:
        layer, head = chosen["fit_score"]
        place, line = (head - 0.5, layer - start - 0.5), {"edgecolor": "#0072B2", "linewidth": 2, "zorder": 4}
        axes.add_patch(Rectangle(place, 1, 1, fill=False, **line))
    if "named" in chosen:
        layer, head = chosen["named"]
        right, up = (0.36, 0.3) if has_numbers(against.shape) else (0, 0)
        mark = {"color": "#009E73", "markersize": 4, "markeredgecolor": "white", "markeredgewidth": 0.5, "zorder": 5}
        axes.plot(head + right, layer - start - up, "s", **mark)
    return image


def _number(value):
    return "–" if np.isnan(value) else f"{value:.0f}"


def _draw_marks(axes, table, factors):
    """Mean average precision with its interval of all that ranks the images, by factor, and of a random ranking."""
    for place, factor in enumerate(factors):
        rows = table[table["factor"] == factor].set_index("by")
        for number, (by, (colour, marker)) in enumerate(MARKS.items()):
            if by not in rows.index:
                continue
            row, y = rows.loc[by], place + STEP * (number - (len(MARKS) - 1) / 2)
            axes.plot([row["score_low"], row["score_high"]], [y, y], color=colour, linewidth=1.2, solid_capstyle="butt")
            axes.plot(row["score"], y, marker, color=colour, markersize=3.5)
            end, shift, side = ("score_low", -4, "right") if row["score"] > 70 else ("score_high", 4, "left")
            words = {"xytext": (shift, 0), "textcoords": "offset points", "ha": side, "va": "center", "fontsize": 7}
            axes.annotate(shorten(row["unit"], 30), (row[end], y), color=colour, **words)
        chance = rows["by_chance"].iloc[0]
        axes.plot([chance, chance], [place - 0.42, place + 0.42], ":", color="#777777", linewidth=1.4)
    axes.set(xlim=(0, 102), ylim=(len(factors) - 0.5, -0.5))
    axes.set_xlabel("mean average precision of images of the same value (%)")
    axes.set_xticks(range(0, 101, 20))
    axes.set_yticks(range(len(factors)), [shorten(factor, 24) for factor in factors])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    lines = [Line2D([], [], color=colour, marker=marker, ms=3.5, lw=1.2) for colour, marker in MARKS.values()]
    lines.append(Line2D([], [], color="#777777", linestyle=":", linewidth=1.4))
    labels = [*MARKS, "random ranking"]
    axes.figure.legend(lines, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=7)
