"""The main findings of a study as sentences, each from one table. What is compared is fixed here, whatever it shows."""

from clipspectra.paper.study import read_table

# Tables that have a finding, the most telling first: its chapter, the columns that it needs, and numbers.
SOURCES = {
    "accuracy": ("Accuracy", ["model", "dataset", "split", "factor", "group", "at_mean", "images"], ["accuracy"]),
    "recovery": ("Recovery", ["model", "dataset", "texts", "method", "budget"], ["top1"]),
    "names": (
        "Names",
        ["model", "dataset", "method", "naming", "control", "names", "components", "measure"],
        ["score", "by_chance"],
    ),
    "interventions": (
        "Interventions",
        ["intervention", "model", "dataset", "role", "setting", "group"],
        ["accuracy", "random"],
    ),
    "segmentation": ("Segmentation", ["model", "dataset", "method", "given", "resolution"], ["mean_iou"]),
    "exactness": ("Exactness", ["images"], ["largest_sum_error"]),
    "stability": ("Stability", ["model", "dataset", "compared", "layer"], ["cosine", "cosine_by_chance"]),
}
MOST = 5


def findings(paths):
    """[{"chapter": …, "sentence": …}], at most five, in the order of the chapters.

    paths: {table: its file}, of the tables that the study has. Raises InputError if one lacks a column.
    """
    found = {}
    for name, (chapter, columns, numbers) in SOURCES.items():
        if name in paths and len(found) < MOST:
            table = read_table(paths[name], columns, numbers)
            sentence = SENTENCES[name](table) if len(table) else None
            if sentence:
                found[name] = {"chapter": chapter, "sentence": sentence}
    order = ["accuracy", "recovery", "names", "segmentation", "interventions", "stability", "exactness"]
    return [found[name] for name in order if name in found]


def first_study(table, *keys):
    """The rows of a table's first model and dataset, and of further keys."""
    for key in ("model", "dataset", *keys):
        table = table[table[key] == table[key].iloc[0]]
    return table


def accuracy_sentence(table):
    """Accuracy of the best model on the first dataset, as it is and with the MLPs and all heads at their mean."""
    rows = table[(table["factor"] == "class") & (table["group"] == "all")]
    rows = rows[rows["dataset"] == rows["dataset"].iloc[0]]
    whole = rows[rows["at_mean"] == "none"]
    best = whole.loc[whole["accuracy"].idxmax()]
    own = rows[rows["model"] == best["model"]].set_index("at_mean")["accuracy"]
    rank = f"the highest of {len(whole)} models, " if len(whole) > 1 else ""
    mlps = f", and {own['MLPs']:.1f} % with the MLPs held at their mean" if "MLPs" in own else ""
    return (
        f"On {best['dataset']}, {best['model']} classifies {best['accuracy']:.1f} % of {best['images']:.0f} "
        f"{best['split']}{' ' if best['split'] else ''}images right ({rank}zero-shot){mlps}."
    )


RIVALS = {"textspan": "TextSpan", "sparse": "sparse sums of texts", "random_texts": "random vectors as texts"}


def recovery_sentence(table):
    """What components recover with as many texts as the ceiling needs for 95 % of its best, beside others."""
    rows = first_study(table, "texts").set_index(["method", "budget"])["top1"].unstack()
    if "components" not in rows.index:
        return None
    ceiling = rows.loc["components_without_text" if "components_without_text" in rows.index else "components"]
    budget = ceiling.index[(ceiling >= 0.95 * ceiling.max()).argmax()]
    others = [f"{name} {rows.at[key, budget]:.1f} %" for key, name in RIVALS.items() if key in rows.index]
    first = first_study(table, "texts").iloc[0]
    beside = f"; {', '.join(others)}" if others else ""
    return (
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
    return (
        f"In {first['model']} on {first['dataset']}, the text that a component fires on names the very value that "
        f"moves it at {fires_on['score']:.1f} % of the poles (by chance {fires_on['by_chance']:.1f} %), the text that "
        f"lies closest to it at {says['score']:.1f} %."
    )


def segmentation_sentence(table):
    """Mean IoU of the decomposition's maps, and of the best other method."""
    rows = first_study(table)
    rows = rows[rows["resolution"] == "model"].sort_values("mean_iou", ascending=False, kind="stable")
    is_own = rows["method"].str.startswith("decomposition")
    own, others = rows[is_own], rows[~is_own]
    if own.empty:
        return None
    best = own.iloc[0]
    beside = [f"; the best other method, {row.method}, {row.mean_iou:.1f} %" for row in others.head(1).itertuples()]
    return (
        f"On {best['dataset']}, maps of the evidence in {best['model']} ({best['method']}) reach a mean IoU of "
        f"{best['mean_iou']:.1f} %{''.join(beside)}."
    )


def interventions_sentence(table):
    """Accuracy before and after the first intervention: of the worst group, or of all images."""
    rows = table[(table["intervention"] == table["intervention"].iloc[0]) & (table["role"] == "eval")]
    rows = rows[rows["model"] == rows["model"].iloc[0]]
    group = "worst" if (rows["group"] == "worst").any() else "all"
    rows = rows[rows["group"] == group].set_index("setting")
    if not {"as it is", "edited"} <= set(rows.index):
        return None
    before, after = rows.loc["as it is"], rows.loc["edited"]
    random = after["random"]
    beside = f"; as many random units, {random:.1f} %" if random == random else ""
    whom = "the worst group of " if group == "worst" else ""
    return (
        f"The intervention {before['intervention']} takes the accuracy of {before['model']} on {whom}"
        f"{before['dataset']} from {before['accuracy']:.1f} to {after['accuracy']:.1f} %{beside}."
    )


def stability_sentence(table):
    """How alike the components of disjoint halves of the fit images are."""
    rows = first_study(table)
    rows = rows[(rows["compared"] == "disjoint halves of the fit images") & (rows["layer"] != "embedding")]
    if rows["cosine"].isna().all():
        return None
    return (
        f"Matched components of {table['model'].iloc[0]} on disjoint halves of {table['dataset'].iloc[0]}'s fit images "
        f"have a mean |cosine| of {rows['cosine'].mean():.2f} (by chance {rows['cosine_by_chance'].mean():.2f})."
    )


def exactness_sentence(table):
    """The largest error of the sum over all extractions."""
    error = f"{table['largest_sum_error'].max():.1e}".replace("e-0", "e-")
    return f"The sum of all contributions misses the model's own embedding, of length 1, by {error} at most."


SENTENCES = {
    "accuracy": accuracy_sentence,
    "recovery": recovery_sentence,
    "names": names_sentence,
    "interventions": interventions_sentence,
    "segmentation": segmentation_sentence,
    "exactness": exactness_sentence,
    "stability": stability_sentence,
}
