"""The main findings of a study as sentences, each from one table. What is compared is fixed here, whatever it shows."""

from clipspectra.paper.study import read_table

# Tables that have a finding, the most telling first: its chapter, the columns that it needs, and numbers.
SOURCES = {
    "accuracy": ("Accuracy", ["model", "dataset", "split", "factor", "group", "at_mean", "images"], ["accuracy"]),
    "recovery": ("Recovery", ["model", "dataset", "texts", "method", "budget"], ["top1", "p_holm"]),
    "names": (
        "Names",
        ["model", "dataset", "method", "naming", "control", "names", "components", "measure"],
        ["score", "by_chance"],
    ),
    "interventions": (
        "Interventions",
        ["intervention", "model", "dataset", "role", "setting", "group"],
        ["accuracy", "change", "change_low", "change_high", "random"],
    ),
    "segmentation": (
        "Segmentation",
        ["model", "dataset", "method", "given", "resolution"],
        ["mean_iou", "chosen_iou"],
    ),
    "exactness": ("Exactness", ["images"], ["largest_sum_error"]),
    "stability": ("Stability", ["model", "dataset", "compared", "layer"], ["cosine", "cosine_by_chance"]),
}
MOST = 5


def findings(paths):
    """[{"chapter": …, "model": …, "dataset": …, "sentence": …}], at most five, in the order of the chapters.

    model and dataset are those that the sentence is about, or None if it is about all.

    paths: {table: its file}, of the tables that the study has. Raises InputError if one lacks a column.
    """
    by_table = {}
    for name, (chapter, columns, numbers) in SOURCES.items():
        if name in paths and len(by_table) < MOST:
            table = read_table(paths[name], columns, numbers)
            finding = SENTENCES[name](table) if len(table) else None
            if finding:
                subject, sentence = finding
                by_table[name] = {"chapter": chapter, "model": None, "dataset": None, **subject, "sentence": sentence}
    order = ["accuracy", "recovery", "names", "segmentation", "interventions", "stability", "exactness"]
    return [by_table[name] for name in order if name in by_table]


def first_study(table, *keys):
    """The rows of a table's first model and dataset, and of further keys."""
    for key in ("model", "dataset", *keys):
        table = table[table[key] == table[key].iloc[0]]
    return table


def about(row):
    """The model and the dataset that a sentence about a row is about."""
    return {"model": row["model"], "dataset": row["dataset"]}


def accuracy_sentence(table):
    """Accuracy of the best model on the first dataset, as it is and with the MLPs at their mean."""
    rows = table[(table["factor"] == "class") & (table["group"] == "all")]
    rows = rows[rows["dataset"] == rows["dataset"].iloc[0]]
    whole = rows[rows["at_mean"] == "none"]
    best = whole.loc[whole["accuracy"].idxmax()]
    own = rows[rows["model"] == best["model"]].set_index("at_mean")["accuracy"]
    rank = f"the highest of {len(whole)} models, " if len(whole) > 1 else ""
    split = f"{best['split']} " if best["split"] not in ("", "all") else ""
    mlps = f", and {own['MLPs']:.1f} % with the MLPs held at their mean" if "MLPs" in own else ""
    return about(best), (
        f"On {best['dataset']}, {best['model']} classifies {best['accuracy']:.1f} % of {best['images']:.0f} "
        f"{split}images right ({rank}zero-shot){mlps}."
    )


RIVALS = {"textspan": "TextSpan", "sparse": "sparse sums of texts", "random_texts": "random vectors as texts"}


def recovery_sentence(table):
    """What components recover with as many texts as the ceiling needs for 95 % of its best, beside others."""
    own = first_study(table, "texts").set_index(["method", "budget"])
    rows, is_clear = own["top1"].unstack(), own["p_holm"].unstack() < 0.05
    if "components" not in rows.index:
        return None
    ceiling = rows.loc["components_without_text" if "components_without_text" in rows.index else "components"]
    budget = ceiling.index[(ceiling >= 0.95 * ceiling.max()).argmax()]
    if budget == 0:
        return None
    others = []
    for key, name in RIVALS.items():
        if key in rows.index:
            tie = "" if key == "random_texts" or is_clear.at[key, budget] else " (no clear difference)"
            others.append(f"{name} {rows.at[key, budget]:.1f} %{tie}")
    first = first_study(table, "texts").iloc[0]
    beside = f"; {', '.join(others)}" if others else ""
    return about(first), (
        f"With {budget} texts a head in place of the heads, the named components of {first['model']} classify "
        f"{rows.at['components', budget]:.1f} % of {first['dataset']} right{beside}."
    )


def names_sentence(table):
    """How often either naming says the very value that moves a component, beside chance."""
    rows = first_study(table)
    chosen = (rows["method"] == "components") & (rows["control"] == "") & (rows["names"] == "all")
    rows = rows[chosen & (rows["components"] == "all") & (rows["measure"] == "value_hits")].set_index("naming")
    if not {"fires_on", "says"} <= set(rows.index):
        return None
    fires_on, says, first = rows.loc["fires_on"], rows.loc["says"], rows.iloc[0]
    return about(first), (
        f"In {first['model']} on {first['dataset']}, the text that a component fires on names the very value that "
        f"moves it at {fires_on['score']:.1f} % of the poles (by chance {fires_on['by_chance']:.1f} %), the text that "
        f"lies closest to it at {says['score']:.1f} %."
    )


def segmentation_sentence(table):
    """Mean IoU of the decomposition's best maps, and of the best other method, at either threshold."""
    rows = first_study(table)
    rows = rows[(rows["resolution"] == "model") & ~rows["method"].isin(["centre prior", "all background"])]
    is_own = rows["method"].str.startswith("decomposition")
    if not is_own.any():
        return None
    parts = []
    for score, threshold in {"mean_iou": "each map's mean", "chosen_iou": "a threshold of other images"}.items():
        own, others = rows.loc[is_own, score].max(), rows[~is_own]
        best = others.loc[others[score].idxmax()] if len(others) else None
        beside = "" if best is None else f" (best other method: {best['method']}, {best[score]:.1f} %)"
        parts.append(f"{own:.1f} % at {threshold}{beside}")
    first, scores = rows.iloc[0], " and of ".join(parts)
    return about(
        first
    ), f"On {first['dataset']}, maps of the evidence in {first['model']} reach a mean IoU of {scores}."


def interventions_sentence(table):
    """Accuracy before and after the first intervention: of the worst group, or of all images."""
    rows = table[(table["intervention"] == table["intervention"].iloc[0]) & (table["role"] == "eval")]
    rows = rows[rows["model"] == rows["model"].iloc[0]]
    group = "worst" if (rows["group"] == "worst").any() else "all"
    rows = rows[rows["group"] == group].set_index("setting")
    if not {"as it is", "edited"} <= set(rows.index):
        return None
    before = rows.loc["before the last edit" if "before the last edit" in rows.index else "as it is"]
    after = rows.loc["edited"]
    random = after["random"]
    beside = f"; as many random units give {random:.1f} %" if random == random else ""
    whom = "the worst group of " if group == "worst" else ""
    change = f"{after['change']:+.1f} points [{after['change_low']:+.1f}, {after['change_high']:+.1f}]".replace(
        "-", "−"
    )
    return about(after), (
        f"The intervention {before['intervention']} takes the accuracy of {before['model']} on {whom}"
        f"{before['dataset']} from {before['accuracy']:.1f} to {after['accuracy']:.1f} %, by {change}{beside}."
    )


def stability_sentence(table):
    """How alike the components of two halves of the fit images are."""
    rows = first_study(table)
    rows = rows[(rows["compared"] == "halves of the images") & (rows["layer"] != "embedding")]
    if rows["cosine"].isna().all():
        return None
    return about(rows.iloc[0]), (
        f"Matched components of {table['model'].iloc[0]} on disjoint halves of {table['dataset'].iloc[0]}'s fit "
        f"images, {rows['images'].iloc[0]:.0f} each, have a mean |cosine| of {rows['cosine'].mean():.2f} (by chance "
        f"{rows['cosine_by_chance'].mean():.2f})."
    )


def exactness_sentence(table):
    """The largest error of the sum over all extractions."""
    error = f"{table['largest_sum_error'].max():.1e}".replace("e-0", "e-")
    return {}, f"The sum of all contributions misses the model's own embedding, of length 1, by {error} at most."


SENTENCES = {
    "accuracy": accuracy_sentence,
    "recovery": recovery_sentence,
    "names": names_sentence,
    "interventions": interventions_sentence,
    "segmentation": segmentation_sentence,
    "exactness": exactness_sentence,
    "stability": stability_sentence,
}
