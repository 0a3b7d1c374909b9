"""Figures: sizes at print, what is in which format, names in other scripts, and heads from few to many."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from clipspectra.figures import cards, comparisons, concepts, curves, drawing, heads, lettering, maps, names, retrieval

rng = np.random.default_rng(0)
WORDS = {"title": "A title", "footer": "model · dataset · 300 eval images (test) · seeds 0, 1 · " * 4}
FACTORS = ["digit", "colour", "a factor of a long name", "size", "place", "light", "sex", "age", "hair"]
PICTURES = rng.random((9, 8, 8, 3))
ENDS = {"top": (PICTURES, np.linspace(0.5, -0.2, 9)), "bottom": (PICTURES, np.linspace(-0.5, 0.2, 9))}


BOUNDS = (("low", -1), ("high", 1))


def scored(rows, *scores):
    """A table of rows with random scores, and bounds of these."""
    table = pd.DataFrame(rows)
    for score in scores:
        values = 50 + 20 * rng.normal(size=len(table))
        bands = {f"{score}{of}_{end}": values + 5 * sign for of in ("", "_draws") for end, sign in BOUNDS}
        table = table.assign(**{score: values}, **bands)
    return table


def each_head(layers, count):
    return [{"kind": "head", "layer": layer, "head": head} for layer in range(layers) for head in range(count)]


def components(layers, count, factors=FACTORS, number=20):
    shares = np.sort(rng.dirichlet(np.ones(number)))[::-1]
    rows = [head | {"component": k, "share": shares[k]} for head in each_head(layers, count) for k in range(number)]
    return pd.DataFrame(rows).assign(**{f"eta2_{factor}": rng.random(len(rows)) for factor in factors})


def stability_table(compared=tuple(curves.COMPARED)):
    rows = [{"compared": name, "layer": layer} for name in compared for layer in ("embedding", "8", "9", "10")]
    return pd.DataFrame(rows).assign(**{name: rng.random(len(rows)) for name in curves.STABILITY_COLUMNS})


def accuracies(layers):
    """What is at its mean, as the table of accuracies names it."""
    first = ["MLPs and heads of layer 0", *(f"MLPs and heads of layers 0–{layer}" for layer in range(1, layers - 1))]
    last = [f"MLPs and heads of layers {layer}–{layers - 1}" for layer in range(1, layers - 1)]
    held = ["none", "MLPs", *first, *last, f"MLPs and heads of layer {layers - 1}", "MLPs and all heads"]
    return scored([{"at_mean": name} for name in held], "accuracy")


def parts_together(number):
    counts = [1, 2, 4, number]
    rows = [{"unit": unit, "number": count} for unit in ("heads", "components") for count in counts]
    return scored(rows, "foreground_ap", "mean_iou", "chosen_iou")


def drawn_query():
    shown = {"layer": 11, "head": 3, "component": range(20), "text": "a photo of a rather long text that is cut"}
    scores = {"score": np.linspace(-1, 1, 20), "own_score": 0.1, "cosine": np.linspace(0.2, 0.9, 20), "reachable": 0.95}
    table = pd.DataFrame(shown | scores | {"random_cosine": 0.3, "random_cosine_sd": 0.1})
    return concepts.query(table, ENDS, picture=PICTURES[0], **WORDS)


def drawn_curve():
    rows = [
        {"role": role, "group": group, "units": k}
        for role in ("eval", "validation")
        for group in ("all", "worst")
        for k in range(5)
    ]
    table = scored(rows, "accuracy", "random")
    return concepts.intervention(table, 3, units="heads", edited="heads removed", **WORDS)


def drawn_values():
    rows = [
        {"factor": "class", "value": value, "meant": "yes"} for value in ("one", "a class of a long name " * 3, "all")
    ]
    table = scored(rows, "change").assign(before=60.0, after=100.0, p_holm=[0.01, 0.5, 0.1])
    return concepts.intervention_values(table, **WORDS)


def drawn_examples():
    given = [
        {"method": method, "given": given}
        for method in ("heads", "a method of a longer name")
        for given in maps.GIVEN_MARKERS
    ]
    grey = PICTURES.mean(-1)
    table = scored(given, *maps.SCORE_PANELS).assign(flat_maps=3)
    return maps.segmentation_examples(PICTURES, grey, grey, grey, ["best"] * 9, table, **WORDS)


def drawn_card():
    pole = {
        "pictures": PICTURES,
        "names": [("fires on", [("a photo of one", False)] * 3), ("says", [("a text", True)] * 3)],
    }
    return cards.cards([{"heading": "layer 1, head 0, component 1", "top": pole, "bottom": pole}], **WORDS)


def drawn_card_pairs():
    pole = {
        "pictures": PICTURES,
        "names": [("fires on", [("a photo of one", False)] * 3), ("says", [("a text", True)] * 3)],
    }
    heading = "a-model-of-a-very-long-n …: layer 11, head 11, component 10\n13 % of the head, 82 % of that by colour"
    entry = {"heading": heading, "top": pole, "bottom": pole}
    return cards.card_pairs([(entry, entry)] * 3, **WORDS)


def compared_heads(layers, count, compared="same place"):
    table = scored(each_head(layers, count), "lost_change").assign(compared=compared, other="L3 H1", cka=0.5)
    gained = rng.choice(["colour", "a factor of a long name"], len(table))
    numbers = {name: rng.random(len(table)) for name in ("variance", "other_variance")} | {"rank": rng.integers(1, 3)}
    return table.assign(**numbers, gained=gained, gained_eta2=rng.random(len(table)) * 9)


def drawn_names():
    rows = [
        {"measure": measure, "naming": naming, "method": "components", "control": control}
        for measure in names.PANELS
        for naming in names.NAMINGS
        for control in ("", "images where one factor tells another")
    ]
    return names.names(scored(rows, "score").assign(components="all", names="all", by_chance=30.0), **WORDS)


def drawn_recovery():
    rows = [
        {"method": name, "budget": k, "draws": 1 + 19 * ("random" in name)}
        for name in heads.RECOVERY_LINES
        for k in (0, 5, 30)
    ]
    return heads.recovery(scored(rows, "top1", "explained_variance"), **WORDS)


def transfer_table(with_classes=True):
    """Of two datasets with long names."""
    rows = [
        {"basis": name, "means": means, "budget": k, "draws": 1 + 19 * (name == "random")}
        for name in curves.TRANSFER_LINES
        for means in ("travelled", "own")
        for k in (0, 5, 30)
    ]
    table = scored(rows, "top1", "variance_held", "names_kept").assign(names_kept_by_chance=5.0)
    table = table.assign(**{"from": "imagenet_sketches_of_animals_1", "dataset": "photographs of 1,000 things at home"})
    return table if with_classes else table.assign(top1=np.nan)


def drawn_retrieval(layers, number, factors, blank=()):
    """blank: factors of which no two images share a value."""
    map_rows = [{"factor": factor} | head for factor in factors for head in each_head(layers, number)]
    table = scored(map_rows, "score", "against_whole", "fit_score", "named").assign(whole=40.0)
    mark_rows = [{"factor": factor, "by": by} for factor in factors for by in retrieval.MARKS]
    marks = scored(mark_rows, "score").assign(unit="L11 H11 c20, L23 H15 c1", by_chance=30.0)
    for of_figure in (table, marks):
        numbers = of_figure.columns.drop(["factor", "layer", "head", "by", "unit", "kind"], errors="ignore")
        of_figure.loc[of_figure["factor"].isin(blank), numbers] = np.nan
    return retrieval.retrieval_map(table, marks, **WORDS)


EVIDENCE = rng.normal(size=(2, 12, 12, 7, 7))
FIGURES = {
    "contact sheet": lambda: heads.contact_sheet(PICTURES, ["three yellow\nbrick large"] * 9, **WORDS),
    "heads map": lambda: heads.heads_map(components(4, 3), FACTORS, **WORDS),
    "heads map without factors": lambda: heads.heads_map(components(12, 12, []), [], **WORDS),
    "heads map of many": lambda: heads.heads_map(components(32, 16), FACTORS, **WORDS),
    "effects": lambda: heads.effects_map(scored(each_head(4, 3), "accuracy_lost", "margin_share"), **WORDS),
    "effects of many": lambda: heads.effects_map(scored(each_head(32, 16), "accuracy_lost", "margin_share"), **WORDS),
    "factors": lambda: heads.factors_map(components(4, 3), FACTORS[:5], **WORDS),
    "factors of many": lambda: heads.factors_map(components(32, 16), FACTORS, **WORDS),
    "factor": lambda: heads.factors_map(components(8, 16), FACTORS[:1], **WORDS),
    "retrieval": lambda: drawn_retrieval(4, 3, FACTORS[:5]),
    "retrieval of many": lambda: drawn_retrieval(32, 16, FACTORS),
    "retrieval of classes": lambda: drawn_retrieval(24, 16, ["class"]),
    "retrieval of nothing": lambda: drawn_retrieval(4, 3, ["digit"], blank=["digit"]),
    "retrieval of a half": lambda: drawn_retrieval(4, 3, ["digit", "size"], blank=["digit"]),
    "parts": lambda: maps.segmentation_parts(scored(each_head(32, 16), "foreground_ap"), parts_together(512), **WORDS),
    "cards": drawn_card,
    "card pairs": drawn_card_pairs,
    "comparison": lambda: comparisons.comparison_map(compared_heads(4, 3), **WORDS),
    "comparison of many": lambda: comparisons.comparison_map(compared_heads(32, 16), **WORDS),
    "comparison of towers": lambda: comparisons.comparison_map(compared_heads(12, 6, "most alike"), **WORDS),
    "examples": drawn_examples,
    "spatial": lambda: maps.spatial(PICTURES[0], EVIDENCE, ["a text", "a text that fills several lines"], **WORDS),
    "query": drawn_query,
    "neighbours": lambda: concepts.neighbours(ENDS, {"top": (["a text"] * 9, range(9))}, picture=PICTURES[0], **WORDS),
    "intervention": drawn_curve,
    "values": drawn_values,
    "names": drawn_names,
    "recovery": drawn_recovery,
    "ablation": lambda: curves.ablation(accuracies(12), **WORDS),
    "spectra": lambda: curves.spectra(components(4, 3), **WORDS),
    "spectra of many": lambda: curves.spectra(components(8, 16, number=64), **WORDS),
    "stability": lambda: curves.stability(stability_table(), **WORDS),
    "stability of one seed": lambda: curves.stability(stability_table(["halves of the pool"]), **WORDS),
    "transfer": lambda: curves.transfer(transfer_table(), **WORDS),
    "transfer without classes": lambda: curves.transfer(transfer_table(with_classes=False), **WORDS),
}


@pytest.mark.parametrize("name", FIGURES)
def test_texts_are_legible_at_print_and_inside_the_page(name):
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    width, height = figure.get_size_inches()
    assert min(abs(width - drawing.PAGE), abs(width - drawing.COLUMN)) < 1e-6
    assert height < 9.5
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 7
    left, bottom, right, top = figure.get_tightbbox().extents
    assert min(left, bottom, width - right, height - top) > -0.01
    drawing.plt.close(figure)


def test_words_are_in_the_png_and_the_json_and_not_in_the_pdf(tmp_path):
    """The PDF is as wide as at print, and lower by the words; all have the same bytes whenever they are made."""
    made = []
    for number in range(2):
        figure = curves.stability(stability_table_of_ones(), **WORDS)
        height = figure.get_size_inches()[1]
        paths = [tmp_path / f"{number}.{ending}" for ending in ("pdf", "png", "json")]
        drawing.save(figure, *paths)
        made.append([path.read_bytes() for path in paths])
    assert made[0] == made[1]
    words = json.loads(made[0][2])
    assert words == {"title": WORDS["title"], "source": WORDS["footer"]}
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+)", made[0][0])
    assert float(box[1]) == pytest.approx(72 * drawing.COLUMN, abs=0.1)
    assert 0.6 * 72 * height < float(box[2]) < 72 * (height - 0.4)
    png_height = int.from_bytes(made[0][1][20:24], "big")
    assert png_height == pytest.approx(200 * height, abs=1)


def stability_table_of_ones():
    return stability_table().assign(**dict.fromkeys(curves.STABILITY_COLUMNS, 1.0))


def test_ablation_curves_begin_at_the_mlps_and_end_at_all_heads():
    for layers in (2, 4):
        table = curves.ablation_curves(accuracies(layers))
        for end in ("first", "last"):
            rows = table[table["end"] == end]
            assert rows["count"].tolist() == list(range(layers + 1))
            assert rows["at_mean"].iloc[[0, -1]].tolist() == ["MLPs", "MLPs and all heads"]
    assert table[(table["end"] == "last") & (table["count"] == 3)]["at_mean"].tolist() == [
        "MLPs and heads of layers 1–3"
    ]


def test_spectra_count_the_components_that_hold_90_per_cent():
    table = pd.DataFrame({"layer": 0, "head": 0, "component": range(4), "share": [0.6, 0.3, 0.06, 0.04]})
    figure = curves.spectra(table, **WORDS)
    assert figure.axes[1].lines[0].get_ydata() == [2]
    drawing.plt.close(figure)


def test_other_scripts_are_drawn_in_fonts_that_have_them_or_reported(tmp_path):
    """A letter of another font and one of none, dollar signs, a control character, a byte that is no text."""
    title, caption = "𝒜 and \U000f1234: $x_1$ \\n $y^ \udcff\x07", "𝒜 \U000f1234"
    figure = heads.contact_sheet(PICTURES[:3], ["one", caption, "$x^$ $"], title=title, footer="𝒜" * 300)
    with pytest.warns(UserWarning, match="no installed font has the characters \U000f1234, which") as warned:
        drawing.save(figure, *(tmp_path / f"figure.{ending}" for ending in ("pdf", "png", "json")))
    assert len(warned) == 1
    families = {text.get_text(): text.get_fontfamily() for text in figure.findobj(Text)}
    assert families["one"] == ["sans-serif"]
    assert families[caption][0] == "DejaVu Sans"
    assert families[caption][1:]
    words = json.loads((tmp_path / "figure.json").read_text())
    assert words["title"] == "𝒜 and \U000f1234: $x_1$ \\n $y^ \N{REPLACEMENT CHARACTER} "


def test_texts_are_cut_by_the_width_they_take():
    assert lettering.shorten("a photo\nof a  dog", 40) == "a photo of a dog"
    assert lettering.shorten("a photo of a very large dog", 16) == "a photo of a …"
    assert lettering.shorten("中" * 40, 20) == "中" * 9 + " …"
    assert lettering.wrapped("a photo of 中中中中中中", 8) == ["a photo", "of", "中中中中", "中中"]
    assert lettering.wrapped("one two three four", 5, most=2) == ["one", "two …"]
    assert lettering.wrapped("", 5) == [""]


def test_many_factors_share_a_grey():
    figure = heads.heads_map(components(8, 16), FACTORS, **WORDS)
    labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert len(labels) == len(drawing.OKABE_ITO) + 1
    assert labels[-1] == "another factor"
    drawing.plt.close(figure)
