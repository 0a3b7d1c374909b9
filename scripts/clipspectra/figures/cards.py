"""Cards of components: the images at both poles, what they fire on and what they say; alone, or of two models."""

import numpy as np
import pandas as pd

from clipspectra.data.pictures import open_rgb
from clipspectra.figures.drawing import new_figure, show_picture
from clipspectra.figures.lettering import shorten, wrapped

LABELS = {"fires_on": "fires on", "says": "says"}
POLES = {"top": ("+", "#0072B2"), "bottom": ("−", "#D55E00")}  # sign and colour
LINES = 3  # texts of a naming
ROOM = 46  # letters beside a label
AGAINST = " – writes against it"


def namings(first):
    """The namings that cards show, this one first."""
    return [first, *(other for other in LABELS if other != first)]


def name_lines(texts, naming):
    """Lines of a pole's texts by one naming: (text, whether it is dimmed), with what a reader should know of them."""
    rows = texts[texts["naming"] == naming].sort_values("place").head(LINES)
    rows = rows[(rows["projection"] > 0) | (naming != "says")]  # what lies on the other side, the pole does not say
    named, lines = rows["named"].astype(bool).all(), []
    for place, row in enumerate(rows.itertuples()):
        before, after = ("", "") if named or place else ("unnamed (", ")")
        after += AGAINST if row.projection < 0 else ""
        lines.append((before + shorten(row.text, ROOM - len(before + after)) + after, not named))
    return lines


def poles(place, texts, images, root, namings):
    """{"top", "bottom"} of a component's card, as `cards` takes them.

    place: {"layer", "head", "component"}; texts, images: tables of the names and of the images at the poles of all
    components; root: the folder of the images
    """
    entry = {}
    for pole in POLES:
        pole_texts, pole_images = (
            table[(table[list(place)] == pd.Series(place)).all(axis=1) & (table["pole"] == pole)]
            for table in (texts, images)
        )
        pictures = [open_rgb(root / name) for name in pole_images["image"][:4]]
        names = [(LABELS[naming], name_lines(pole_texts, naming)) for naming in namings]
        entry[pole] = {"names": names, "pictures": pictures}
    return entry


def cards(entries, *, title, footer):
    """One card per component: images and names of its top pole (left) and its bottom pole (right).

    entries: dicts with "heading", and for "top" and "bottom" a dict of "pictures" (four are shown) and "names", a list
    of (what they are, lines), each line a text and whether it is to be dimmed.
    """
    figure = new_figure(0.5 + 1.95 * len(entries), title=title, footer=footer)
    for panel, entry in zip(np.atleast_1d(figure.subfigures(len(entries), 1)), entries):
        _draw_card(panel, entry, (1, 2), "\n".join(wrapped(entry["heading"], 104)), 0.95)
    return figure


def card_pairs(pairs, *, title, footer):
    """Two cards beside each other for each component: as it is in one model and in another, the top pole above.

    pairs: of entries as in `cards`, whose headings have the same number of lines
    """
    figure = new_figure(0.5 + 2.9 * len(pairs), title=title, footer=footer)
    for row, pair in zip(np.atleast_1d(figure.subfigures(len(pairs), 1)), pairs):
        for panel, entry in zip(row.subfigures(1, 2), pair):
            heading = "\n".join(shorten(line, 52) for line in entry["heading"].split("\n"))
            _draw_card(panel, entry, (2, 1), heading, 1.2)
    return figure


def _draw_card(panel, entry, shape, heading, room):
    """Draw a card with its poles in so many rows and columns; room: height of names, in units of the pictures'."""
    panel.suptitle(heading, fontsize=7.5, fontweight="bold", x=0.01, ha="left")
    for place, (pole, (sign, colour)) in zip(panel.add_gridspec(*shape), POLES.items()):
        inner = place.subgridspec(2, 4, height_ratios=[1, room])
        for column, picture in enumerate(entry[pole]["pictures"][:4]):
            show_picture(panel.add_subplot(inner[0, column]), picture, frame=colour)
        axes = panel.add_subplot(inner[1, :])
        axes.set_axis_off()
        lines = list(_card_lines(entry[pole]["names"], sign))
        for number, (head, text, is_dim) in enumerate(lines):
            y = 1 - number / max(len(lines), 6)
            for x, words, colour_of in ((0.0, head, "black"), (0.16, text, "#777777" if is_dim else colour)):
                line = axes.text(
                    x, y, words, ha="left", va="top", fontsize=7, color=colour_of, transform=axes.transAxes
                )
                line.set_in_layout(False)  # a long text must not make its pole's pictures smaller


def _card_lines(names, sign):
    """(label, text, whether it is dimmed) of each line of a card; the label stands beside the first of a kind."""
    for label, lines in names:
        for place, (text, is_dim) in enumerate(lines):
            yield label if place == 0 else "", f"{sign} {text}" if text else "", is_dim
