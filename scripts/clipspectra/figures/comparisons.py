"""Heads maps of two models side by side: what is the same, and what changed."""

import numpy as np

from clipspectra.figures.drawing import new_figure
from clipspectra.figures.heads import by_head, draw_heads, draw_strongest, has_numbers, hatch_heads
from clipspectra.figures.lettering import shorten


def comparison_map(table, *, title, footer):
    """Layers by heads of the first model: how alike the other's head is, and what of it changed.

    table: of comparisons, with one row for each head. Up to four panels: CKA, with the place of the most alike head
    where this is another; the change of variance; the factor that gained most of it; the change of what is lost of the
    accuracy without the head.
    """
    panels = [_draw_cka, _draw_variance]
    panels += [_draw_gained] if "gained" in table and (table["gained"] != "").any() else []
    panels += [_draw_lost] if "lost_change" in table and table["lost_change"].notna().any() else []
    grid, start = by_head(table, lambda rows: 0).shape, table["layer"].min()
    rows = -(-len(panels) // 2)
    height = 0.85 + max(1.3, min(3.3, 0.42 * grid[0]) if has_numbers(grid) else 0.085 * grid[0])
    figure = new_figure(0.6 + rows * height, title=title, footer=footer)
    axes = figure.subplots(rows, 2, squeeze=False).flat
    for place, draw in zip(axes, panels):
        draw(place, table, start)
    for place in list(axes)[: 2 * rows - len(panels)]:
        place.set_axis_off()
    return figure


def _column(table, name):
    return by_head(table, lambda rows: rows[name].iloc[0])


def _draw_cka(axes, table, start):
    values = _column(table, "cka")
    draw_heads(axes, values, start, is_dark=values <= 0.55, label="CKA", digits=2, cmap="cividis", vmin=0, vmax=1)
    is_place = table["compared"].iloc[0] == "same place"
    elsewhere = _column(table, "rank") > 1
    if is_place:
        hatch_heads(axes, elsewhere)
        count = f"{elsewhere.sum()} of {elsewhere.size}"
        heading = f"Likeness to the head at the same place\nhatched: another is more alike, {count}"
    else:
        heading = "Likeness to the most alike head"
        for row in table.itertuples() if has_numbers(values.shape) else ():
            colour = "white" if row.cka <= 0.55 else "black"
            place = row.head, row.layer - start + 0.3
            axes.text(*place, shorten(row.other, 12), ha="center", va="center", color=colour, fontsize=7)
    axes.set_title(heading)


def _draw_change(axes, values, start, label, digits, most=np.inf):
    limit = min(np.nanmax(np.abs(values), initial=0), most) or 1
    is_dark = np.abs(values) > 0.6 * limit
    options = {"cmap": "PuOr_r", "vmin": -limit, "vmax": limit}
    draw_heads(axes, values, start, is_dark=is_dark, label=label, digits=digits, **options)


def _draw_variance(axes, table, start):
    before, after = _column(table, "variance"), _column(table, "other_variance")
    change = 100 * (np.divide(after, before, out=np.full(before.shape, np.nan), where=before > 0) - 1)
    _draw_change(axes, change, start, "% of its variance", 0, most=100)
    axes.set_title("Change of its variance")


def _draw_gained(axes, table, start):
    gains = {
        factor: by_head(table.assign(gain=table["gained_eta2"].where(table["gained"] == factor, 0)), _gain)
        for factor in sorted({name for name in table["gained"] if name})
    }
    most = max(gain.max() for gain in gains.values()) or 1
    draw_strongest(axes, gains, start, title="Factor that gained most\nin points of η²", most=most, label="{:+.0f}")


def _gain(rows):
    return rows["gain"].iloc[0] / 100


def _draw_lost(axes, table, start):
    _draw_change(axes, _column(table, "lost_change"), start, "points of accuracy", 1)
    within = ~((_column(table, "lost_change_low") > 0) | (_column(table, "lost_change_high") < 0))
    hatch_heads(axes, within)
    axes.set_title(f"Change of the accuracy lost without it\nhatched: not told from 0, {within.sum()} of {within.size}")
