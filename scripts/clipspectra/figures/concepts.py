"""Figures of queries, neighbours and interventions, and the words of their titles and notes."""

from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from clipspectra.figures.drawing import new_figure, show_picture
from clipspectra.figures.lettering import shorten, signed

BLUE, ORANGE, GREY, GREEN = "#0072B2", "#D55E00", "#777777", "#009E73"
END_LABELS = {"nearest": "nearest", "top": "highest", "spread": "spread\nbetween", "bottom": "lowest"}
PAST_TENSE = {"keep": "kept", "remove": "removed", "amplify": "amplified", "invert": "inverted"}


def query_title(entry):
    """Title of a query's figure; entry: of the config."""
    query = entry["text"] if "text" in entry else Path(entry["image"]).name
    return f"What carries '{shorten(query, 60)}' in {entry['model']}"


def neighbours_title(entry):
    """Title of a sheet of neighbours; entry: of the config."""
    unit = f"head {entry.get('head')} of layer {entry.get('layer')}"
    if "component" in entry:
        unit = f"component {entry['component']} of {unit}"
    if "image" not in entry:
        return f"The ends of {unit} of {entry['model']}"
    unit = unit if "layer" in entry else "the whole embedding"
    return f"Nearest to '{shorten(Path(entry['image']).name, 60)}' by {unit} of {entry['model']}"


def scores_note(entry):
    """What the scores on a sheet of neighbours are, for its small print; entry: of the config."""
    if "component" in entry:
        return f"projections on the component{'; black frame: the picture itself' if 'image' in entry else ''}"
    return "cosines with the picture about the mean image; texts: projections on it"


def edit_labels(edit):
    """(name of the units, name of the edited units, rule for their number or "") of an edit of the config."""
    units = "heads" if "heads" in edit else "components"
    if "concept" not in edit:
        return units, f"{units} {PAST_TENSE[edit['do']]}", ""
    rule = f"{100 * edit['share']:g} % of the {edit['rank_by']}" if edit["number"] is None else ""
    return units, f"the concept's {units} {PAST_TENSE[edit['do']]}", rule


def query(table, images, *, picture=None, bars=12, title, footer):
    """The components that carry a query, with scores and texts; the cosine of their sum with it; images along the sum.

    table: of a trace; images: {end: (pictures, scores)}; picture: the query, if it is a picture
    """
    shown = table.head(bars)
    heights = 0.9 + 0.2 * max(len(shown), 6), 0.75 * len(images)
    figure = new_figure(0.7 + sum(heights), title=title, footer=footer)
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    left, right = upper.subplots(1, 2, width_ratios=[1, 1.2])
    place = np.arange(len(shown))
    if "own_score" in shown:
        left.plot(
            shown["own_score"], place, "D", color="black", markersize=3, zorder=3, label="put there by its own head"
        )
        left.legend(frameon=False, fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    left.barh(place, shown["score"], color=np.where(shown["score"] > 0, BLUE, ORANGE), height=0.7)
    names = [f"L{row.layer} H{row.head} c{row.component}:  {shorten(row.text, 40)}" for row in shown.itertuples()]
    left.set_yticks(place, names, fontsize=7)
    left.set(ylim=(len(shown) - 0.4, -0.6), xlabel="projection of the query on it; text: at that end")
    left.xaxis.set_major_locator(MaxNLocator(5))
    left.axvline(0, color="black", linewidth=0.6)
    left.spines[["top", "right", "left"]].set_visible(False)
    left.tick_params(axis="y", length=0)
    count = np.arange(1, len(table) + 1)
    spread = table["random_cosine_sd"]
    low, high = table["random_cosine"] - spread, table["random_cosine"] + spread
    right.fill_between(count, low, high, color=GREY, alpha=0.25, linewidth=0)
    right.plot(count, table["random_cosine"], "--", color=GREY, linewidth=1.2, label="random components, ± sd")
    right.plot(
        count, table["cosine"], color=BLUE, marker="o", markersize=2.5, linewidth=1.2, label="largest |score| first"
    )
    right.axhline(table["reachable"].iloc[0], color="black", linestyle=":", linewidth=1, label="all components")
    right.set(xlabel="number of components", ylabel="cosine with the query")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_xlim(0, len(table) + 1)
    right.set_ylim(min(0.0, low.min()), 1.02)
    right.spines[["top", "right"]].set_visible(False)
    right.legend(frameon=False, fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    _draw_rows(lower, images, picture)
    return figure


def neighbours(images, texts, *, picture=None, heading="picture", title, footer):
    """Images and texts at each end: rows of pictures with their scores, and below columns of texts with theirs.

    images: {end: (pictures, scores)}; texts: {end: (texts, scores)}; picture: whose neighbours they are, or None
    heading: above that picture
    """
    columns = {"texts, " + END_LABELS[end].replace("\n", " "): column for end, column in texts.items()}
    if len(columns) == 1:  # one long list as two short ones
        ((end, (names, scores)),) = columns.items()
        half = (len(names) + 1) // 2
        columns = {end: (names[:half], scores[:half]), " ": (names[half:], scores[half:])}
    lines = max(len(names) for names, _ in columns.values())
    rows = _split_rows(images)
    column_count = max(len(pictures) for _, pictures, _ in rows) + (picture is not None)
    heights = (0.2 + 6.4 / max(column_count, 8)) * len(rows), 0.35 + 0.14 * lines
    figure = new_figure(0.6 + sum(heights), title=title, footer=footer)
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    _draw_rows(upper, images, picture, heading)
    for axes, (end, (names, scores)) in zip(lower.subplots(1, len(columns), squeeze=False)[0], columns.items()):
        axes.set_axis_off()
        axes.set_title(end, fontsize=8, loc="left")
        listed = [f"{signed(score)}  {shorten(name, 112 // len(columns))}" for name, score in zip(names, scores)]
        axes.text(0, 1, "\n".join(listed), va="top", fontsize=7, linespacing=1.3, transform=axes.transAxes)
    return figure


def intervention(table, chosen, *, units, edited, title, footer):
    """Accuracy against the number of units, beside random ones: of the worst group, where there is one, and of all.

    table: the averaged curve; chosen: mean number of units that the rule selects, None without a rule
    units, edited: labels of `edit_labels`
    """
    groups = [group for group in ("worst", "all") if (table["group"] == group).any()]
    figure = new_figure(3.3, title=title, footer=footer)
    names = {"worst": "accuracy of the worst group (%)", "all": "accuracy (%)"}
    places = figure.subplot_mosaic([["legend"] * len(groups), groups], height_ratios=[1, 6])
    for group in groups:
        axes, rows = places[group], table[table["group"] == group].sort_values("units")
        eval_rows, validation_rows = rows[rows["role"] == "eval"], rows[rows["role"] == "validation"]
        if eval_rows["random"].notna().any():
            unit_numbers, label = eval_rows["units"], f"random {units} of like variance, 95 % of draws"
            low, high = eval_rows["random_draws_low"], eval_rows["random_draws_high"]
            axes.fill_between(unit_numbers, low, high, color=GREY, alpha=0.25, linewidth=0)
            axes.plot(unit_numbers, eval_rows["random"], ":", color=GREY, linewidth=1.4, label=label)
        bounds = eval_rows["accuracy_low"], eval_rows["accuracy_high"]
        axes.fill_between(eval_rows["units"], *bounds, color=BLUE, alpha=0.15, linewidth=0)
        line = {"color": BLUE, "marker": "o", "markersize": 2.5, "linewidth": 1.2}
        axes.plot(eval_rows["units"], eval_rows["accuracy"], **line, label=f"{edited}, 95 % interval")
        if len(validation_rows):
            label = "the same on validation images"
            axes.plot(validation_rows["units"], validation_rows["accuracy"], "--", color=GREEN, lw=1.2, label=label)
        if chosen is not None:
            axes.axvline(chosen, color="black", linewidth=0.8, linestyle="-.", label="number that the rule gives")
        axes.set(xlabel=f"number of {units}", ylabel=names[group])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    places["legend"].set_axis_off()
    places["legend"].legend(*axes.get_legend_handles_labels(), loc="center", ncols=2, frameon=False)
    return figure


def intervention_values(table, *, most=30, title, footer):
    """Change in accuracy of each value of each factor with its 95 % interval; in orange the values the edit targets.

    Filled are changes of single values that are significant after correction for the number of values.
    table: of `value_changes`, averaged over seeds; of many values, the `most` with the largest changes are shown.
    """
    is_sum = table["value"].isin(["all", "all others"])
    single = table[~is_sum]
    kept = single["change"].abs().sort_values(ascending=False, kind="stable").index[:most]
    total, table = len(table), table[is_sum | table.index.isin(kept) | (table["meant"] == "yes")].reset_index(drop=True)
    if len(table) < total:
        footer += f"\n{len(table)} of {total} rows: the {most} values that change most, and the sums"
    footer += "\nfilled: exact McNemar test, p < 0.05 after correction for the number of values (Holm)"
    figure = new_figure(1.2 + 0.17 * len(table), title=title, footer=footer)
    axes, place = figure.subplots(), np.arange(len(table))
    for y, row in enumerate(table.itertuples()):
        colour = ORANGE if row.meant == "yes" else "black" if row.value in ("all", "all others") else GREY
        axes.plot([row.change_low, row.change_high], [y, y], color=colour, linewidth=1.2, solid_capstyle="butt")
        is_clear = row.p_holm < 0.05
        marker = "|" if row.value in ("all", "all others") else "o"
        axes.plot(row.change, y, marker, color=colour, markersize=4, markerfacecolor=colour if is_clear else "white")
    axes.axvline(0, color="black", linewidth=0.6)
    values = [f"{shorten(factor, 34)}: {shorten(value, 34)}" for factor, value in zip(table["factor"], table["value"])]
    names = [f"{value}  ({row.before:.1f} → {row.after:.1f} %)" for value, row in zip(values, table.itertuples())]
    axes.set_yticks(place, names, fontsize=7)
    for label, meant in zip(axes.get_yticklabels(), table["meant"]):
        label.set_color(ORANGE if meant == "yes" else "black")
    axes.set(ylim=(len(table) - 0.4, -0.6), xlabel="change in accuracy, points (95 % interval)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _split_rows(images, most=12):
    """{end: (pictures, scores)} as rows (label, pictures, scores) with `most` pictures at most."""
    rows = []
    for end, (pictures, scores) in images.items():
        for start in range(0, max(len(pictures), 1), most):
            part = slice(start, start + most)
            rows.append((END_LABELS[end] if start == 0 else "", pictures[part], scores[part]))
    return rows


def _draw_rows(figure, images, picture, heading="picture"):
    """Rows of pictures with their scores for each end; in front of the first, the picture they are about."""
    rows = _split_rows(images)
    column_count = max(8, max(len(pictures) for _, pictures, _ in rows) + (picture is not None))
    grid = figure.subplots(len(rows), column_count, squeeze=False)
    for row, (row_axes, (label, pictures, scores)) in enumerate(zip(grid, rows)):
        for axes in row_axes:
            axes.set_axis_off()
        if picture is not None and row == 0:
            row_axes[0].set_axis_on()
            show_picture(row_axes[0], picture, frame="black")
            row_axes[0].set_title(heading, fontsize=7, pad=2)
        for axes, image, score in zip(row_axes[picture is not None :], pictures, scores):
            axes.set_axis_on()
            show_picture(axes, image)
            axes.set_title(signed(score), fontsize=7, pad=2)
        row_axes[int(picture is not None)].set_ylabel(label, fontsize=7.5)
