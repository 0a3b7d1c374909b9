"""What all figures share: sizes, colours, the small print on their sources, and how they are written.

Sizes are for print, 7 inches wide. Colours are Okabe and Ito's and cividis, safe for colour-blind readers. Files carry
no date, so the same inputs give the same bytes.
"""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

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

WIDTH = 7.0
OKABE_ITO = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2"]


def save(figure, *paths):
    """Write a figure to each path, in the format of its ending, without dates."""
    _fix_layout(figure)
    for path in paths:
        ending = str(path).rsplit(".", 1)[1]
        metadata = {"CreationDate": None} if ending == "pdf" else {"Software": None}
        with atomic_write(path) as part:
            figure.savefig(part, format=ending, metadata=metadata)
    plt.close(figure)


def _fix_layout(figure):
    """Fix the layout, rounded: the layout solver's last digits vary from run to run, the file's bytes must not."""
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


def new_figure(height, footer, **options):
    """A figure with its provenance in small print below."""
    figure = plt.figure(figsize=(WIDTH, height), layout="constrained", **options)
    figure.supxlabel(footer, fontsize=6, color="#555555")
    return figure


def show_picture(axes, picture, frame="#888888", **options):
    axes.imshow(picture, interpolation="nearest", **options)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=frame, linewidth=0.8)
