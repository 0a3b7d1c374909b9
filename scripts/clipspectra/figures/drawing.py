"""What all figures share: sizes, colours, the small print on their sources, and how they are written.

Sizes are for print. Colours are Okabe and Ito's and cividis, safe for colour-blind readers. Files carry
no date, so the same inputs give the same bytes.
"""

import io
import json
import os
import warnings
from contextlib import contextmanager

import matplotlib

if "inline" not in os.environ.get("MPLBACKEND", ""):  # in a notebook, the reader's own figures are to appear
    matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.transforms import Bbox, ScaledTranslation
from PIL import Image

from clipspectra.arrays import atomic_write
from clipspectra.figures.lettering import display_width, plain, use_fonts, wrapped

plt.rcParams.update(
    {
        "font.size": 8,
        "axes.titlesize": 9,
        "figure.dpi": 200,
        "pdf.fonttype": 42,
        "text.hinting": "none",  # texts are as wide in PNGs, where the layout is solved, as in PDFs
        "text.parse_math": False,  # texts are shown as they are, dollar signs too
    }
)

PAGE, COLUMN = 178 / 25.4, 85 / 25.4  # inches: the widths of a page and of a column in print
PROTOCOLS = {"held_out": "explained on other images", "same": "explained on the same images"}  # of the config
OKABE_ITO = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2"]


def new_figure(height, *, title, footer, width=PAGE, **options):
    """A figure with a title above, and below it, in small print, what it was computed from. Sizes in inches.

    height: with a line of each; further lines make the figure higher, so that they take nothing from its panels.
    """
    heading, small_print = _lines(title, width, 10), _lines(footer, width, 7)
    height += (10 * heading.count("\n") + 7 * small_print.count("\n")) * 1.25 / 72
    figure = plt.figure(figsize=(width, height), layout="constrained", **options)
    figure.words = {"title": plain(title), "source": plain(footer)}
    figure.suptitle(heading, fontsize=10)
    figure.supxlabel(small_print, fontsize=7, color="#555555")
    return figure


def _lines(words, width, size):
    """Words wrapped to a width in inches, between items rather than in them.

    matplotlib's own wrapping takes dollar signs for formulas.
    """
    letters, lines = width * 72 / (0.6 * size), []
    for part in plain(words).split("\n"):
        first, *items = part.split(" · ")
        lines += wrapped(first, letters)
        for item in items:
            joined = f"{lines[-1]} · {item}"
            lines[-1:] = [joined] if display_width(joined) <= letters else [lines[-1], *wrapped(item, letters)]
    return "\n".join(lines)


def save(figure, *paths):
    """Write a figure without dates: as .png with its title and small print, as .pdf for print without them.

    A .json holds these two, for the caption there: {"title": …, "source": …}.
    """
    with _laid_out(figure):
        for path in paths:
            with atomic_write(path) as part:
                _write(figure, part, str(path).rpartition(".")[2])


def as_picture(figure):
    """A figure as the picture that `save` writes as .png, which a notebook shows."""
    with _laid_out(figure), io.BytesIO() as file:
        _write(figure, file, "png")
        return Image.open(file).copy()


@contextmanager
def _laid_out(figure):
    """A figure with fonts for its words and a fixed layout; it is closed afterwards."""
    use_fonts(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # use_fonts has said it in a sentence
        _fix_layout(figure)
        yield
    plt.close(figure)


def _write(figure, path, ending):
    match ending:
        case "json":
            path.write_text(json.dumps(figure.words, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        case "png":
            figure.savefig(path, format="png", metadata={"Software": None})
        case "pdf":
            metadata = {"CreationDate": None, "Title": figure.words["title"], "Subject": figure.words["source"]}
            with _without_words(figure) as box:
                figure.savefig(path, format="pdf", metadata=metadata, bbox_inches=box)


@contextmanager
def _without_words(figure):
    """A figure without its title and small print: the box that is left between them, in inches."""
    title, footer, renderer = figure._suptitle, figure._supxlabel, figure.canvas.get_renderer()
    width, height = figure.get_size_inches()
    bottom = footer.get_window_extent(renderer).y1 / figure.dpi if footer.get_text() else 0
    top = title.get_window_extent(renderer).y0 / figure.dpi if title.get_text() else height
    for text in (title, footer):
        text.set_visible(False)
    yield Bbox(np.round([[0, bottom], [width, top]], 4))
    for text in (title, footer):
        text.set_visible(True)


def _fix_layout(figure):
    """Lay the figure out, rounded: the layout solver's last digits vary from run to run, the file's bytes must not."""
    figure.draw_without_rendering()
    figure.set_layout_engine(None)  # "none" would have savefig draw one time more
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position(original=True).bounds, 5))
    for subfigure in figure.subfigs:
        subfigure.bbox_relative.set_points(np.round(subfigure.bbox_relative.get_points(), 5))
    for panel in (figure, *figure.subfigs):
        for text in panel.texts:
            text.set_position(np.round(text.get_position(), 5))


def provenance(wildcards, images, protocol="held_out"):
    """The small print below a figure: what it was computed from. images: the seed's table of images and roles."""
    names = [f"{key} {wildcards[key]}" for key in ("model", "dataset", "seed", "texts") if key in wildcards.keys()]
    return " · ".join([*names, *images_by_role(images, protocol)])


def is_sample(images):
    """Whether a seed's table of images leaves out some of a role, so that it is a sample of data.samples."""
    return "of_role" in images and bool((images["of_role"] > images.groupby("role")["role"].transform("size")).any())


def images_by_role(images, protocol="held_out", pairs=False):
    """How many images each role has, and of which splits, in words; images: a seed's table of images.

    pairs: whether to count these, of which only names are judged. Of a sample (data.samples), how many of a role's
    images it has; what is fitted is of all.
    """
    images = images if pairs else images[images["role"] != "pair"]
    is_fitted = (images["role"] == "fit").any()
    sizes = images.groupby("role")["of_role"].first().to_dict() if "of_role" in images else {}
    if protocol == "same":
        sizes["fit and eval"] = sizes.get("fit", 0) + sizes.get("eval", 0)
        images = images.assign(role=images["role"].where(~images["role"].isin(["fit", "eval"]), "fit and eval"))
    counts, splits = images["role"].value_counts(), images.groupby("role")["split"].unique().str.join(", ")
    splits = {role: f" ({split})" if split else "" for role, split in splits.items()}
    shown = {role: f"{counts[role]} of {size}" for role, size in sizes.items() if size > counts.get(role, size)}
    roles = [
        f"{shown.get(role, counts[role])} {role} images{splits[role]}" for role in sorted(counts.index, reverse=True)
    ]
    fitted = "fit and eval" if protocol == "same" else "fit"
    return [*roles, f"means and components of all {fitted} images"] if shown and is_fitted else roles


def images_of(table, kind="images"):
    """How many images the rows of a table were computed from, and of which split."""
    split = table["split"].iloc[0]
    return f"{table['images'].max():.0f} {kind}{f' ({split})' if split else ''}"


def rows_of(table, wildcards, keys):
    """The rows of a table that have a figure's wildcards in the columns `keys`."""
    return table[np.logical_and.reduce([table[key] == wildcards[key] for key in keys])]


def legend_below(axes, inches=0.38):
    """Options of a legend below the label of the axes, however high these are."""
    shift = ScaledTranslation(0, -inches, axes.figure.dpi_scale_trans)
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": axes.transAxes + shift}
    return {"frameon": False, "fontsize": 7, "borderaxespad": 0, **place}


def show_picture(axes, picture, frame="#888888", **options):
    axes.imshow(picture, interpolation="nearest", **options)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=frame, linewidth=0.8)
