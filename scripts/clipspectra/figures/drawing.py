"""What all figures share: sizes, colours, the small print on their sources, and how they are written.

Sizes are for print. Colours are Okabe and Ito's and cividis, safe for colour-blind readers. Files carry
no date, so the same inputs give the same bytes.
"""

import io
import json
import os
from contextlib import contextmanager

import matplotlib

if "inline" not in os.environ.get("MPLBACKEND", ""):  # in a notebook, the reader's own figures are to appear
    matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from clipspectra.arrays import atomic_write

plt.rcParams.update(
    {
        "font.size": 8,
        "axes.titlesize": 9,
        "figure.dpi": 200,
        "pdf.fonttype": 42,
        "text.parse_math": False,  # texts are shown as they are, dollar signs too
    }
)

PAGE, COLUMN = 178 / 25.4, 85 / 25.4  # inches: the widths of a page and of a column in print
OKABE_ITO = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2"]


def new_figure(height, *, title, footer, width=PAGE, **options):
    """A figure with a title above, and below it, in small print, what it was computed from. Sizes in inches."""
    figure = plt.figure(figsize=(width, height), layout="constrained", **options)
    figure.suptitle(title, fontsize=10)
    figure.supxlabel(footer, fontsize=7, color="#555555")
    return figure


def save(figure, *paths):
    """Write a figure without dates: as .png with its title and small print, as .pdf for print without them.

    A .json holds these two, for the caption there: {"title": …, "source": …}.
    """
    words = {"title": figure.get_suptitle(), "source": figure.get_supxlabel()}
    for path in paths:
        with atomic_write(path) as part:
            match str(path).rsplit(".", 1)[1]:
                case "json":
                    part.write_text(json.dumps(words, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
                case "pdf":
                    metadata = {"CreationDate": None, "Title": words["title"], "Subject": words["source"]}
                    with _without_words(figure):
                        figure.savefig(part, format="pdf", metadata=metadata)
                case "png":
                    _save_png(figure, part)
    plt.close(figure)


def as_picture(figure):
    """A figure as the picture that `save` writes as .png, which a notebook shows."""
    with io.BytesIO() as file:
        _save_png(figure, file)
        plt.close(figure)
        return Image.open(file).copy()


def _save_png(figure, file):
    _fix_layout(figure)
    figure.savefig(file, format="png", metadata={"Software": None})


@contextmanager
def _without_words(figure):
    """The figure without its title and small print, and as much lower."""
    width, height = figure.get_size_inches()
    words, renderer = (figure._suptitle, figure._supxlabel), figure.canvas.get_renderer()
    used = sum(text.get_window_extent(renderer).height for text in words if text.get_text()) / figure.dpi
    for text in words:
        text.set_visible(False)
    figure.set_size_inches(width, height - used)
    _fix_layout(figure)
    yield
    for text in words:
        text.set_visible(True)
    figure.set_size_inches(width, height)


def _fix_layout(figure):
    """Lay the figure out, rounded: the layout solver's last digits vary from run to run, the file's bytes must not."""
    for axes in figure.axes:
        axes.set_in_layout(True)
    figure.set_layout_engine("constrained")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position(original=True).bounds, 5))
    for subfigure in figure.subfigs:
        subfigure.bbox_relative.set_points(np.round(subfigure.bbox_relative.get_points(), 5))
    for panel in (figure, *figure.subfigs):
        for text in panel.texts:
            text.set_position(np.round(text.get_position(), 5))


def provenance(wildcards, images, protocol="held_out"):
    """The small print below a figure: what it was computed from. images: the seed's table of images and roles."""
    images = images[images["role"] != "pair"]  # of which only names are judged
    if protocol == "same":
        images = images.assign(role=images["role"].where(images["role"] == "validation", "fit and eval"))
    counts, splits = images["role"].value_counts(), images.groupby("role")["split"].unique().str.join(", ")
    splits = {role: f" ({split})" if split else "" for role, split in splits.items()}
    roles = [f"{counts[role]} {role} images{splits[role]}" for role in sorted(counts.index, reverse=True)]
    names = [f"{key} {wildcards[key]}" for key in ("model", "dataset", "seed", "texts") if key in wildcards.keys()]
    return " · ".join(names + roles)


def rows_of(table, wildcards, keys):
    """The rows of a table that have a figure's wildcards in the columns `keys`."""
    return table[np.logical_and.reduce([table[key] == wildcards[key] for key in keys])]


def show_picture(axes, picture, frame="#888888", **options):
    axes.imshow(picture, interpolation="nearest", **options)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=frame, linewidth=0.8)
