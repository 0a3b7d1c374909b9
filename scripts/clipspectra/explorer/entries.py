"""The config's interventions, queries, neighbours and maps of texts as entries of the page."""

import json

import numpy as np

from clipspectra.arrays import load_arrays, load_table
from clipspectra.explorer.maps import save_strip, signed_layer
from clipspectra.explorer.parts import rounded, unit_name
from clipspectra.explorer.pictures import short_name
from clipspectra.explorer.proof import intervention_curves

SUMMARY = (
    "setting",
    "group",
    "role",
    "split",
    "units",
    "images",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "random",
)


def intervention(curves, units, summary, description):
    """An intervention on one model: curves, the units of its edits, and accuracies by setting.

    curves: {seed: path}; units, summary: paths of the first seed; description: {what: sentence} of the entry
    """
    curves = {seed: load_table(path, ["random", "accuracy"]) for seed, path in curves.items()}
    table = load_table(units, ["layer", "head", "component", "share", "concept", "classes", "variance"])
    rows = [
        {"unit": unit_name(int(row["layer"]), int(row["head"])) if row["layer"] >= 0 else "", "do": row["do"]}
        | {key: rounded(row[key]) for key in ("layer", "head", "component", "share") if key in row}
        | {"chosen": str(row["chosen"]) == "yes", "edit": int(row["edit"])}
        | {key: str(row[key]) for key in ("says_top", "says_bottom", "fires_on_top", "fires_on_bottom") if key in row}
        for row in table.to_dict("records")
    ]
    summary = load_table(summary, ["accuracy", "random", "images", "units"])
    settings = [
        {key: rounded(row[key], 4) if isinstance(row[key], float) else row[key] for key in SUMMARY}
        for row in summary.to_dict("records")
    ]
    return description | {"curves": intervention_curves(curves), "units": rows, "summary": settings}


def query(table, images, folder, description):
    """A query: the components that carry it with what they rebuild so far, and the images along it by name.

    folder: common_folder of the dataset's pictures
    """
    table, images = load_table(table), load_table(images)
    columns = ["layer", "head", "component", "text", "opposite"]
    numbers = [name for name in ("score", "own_score", "cosine", "random_cosine", "random_cosine_sd") if name in table]
    part = {name: table[name].to_numpy() for name in columns} | {name: rounded(table[name]) for name in numbers}
    part["reachable"] = rounded(table["reachable"].iloc[0]) if len(table) else None
    part["images"] = named_rows(images, "image", folder)
    return description | part


def topics(table, description):
    """Texts traced together: one row for each, as in the table."""
    table = load_table(table)
    names = ["topic", "components", "heads", "cosine", "reachable", "random_cosine"]
    return description | {name: table[name].tolist() if name == "topic" else rounded(table[name]) for name in names}


def neighbours(table, folder, description):
    """Neighbours: images and texts at each end, by name; folder: as in `query`."""
    kinds = load_table(table).groupby("kind")
    return description | {f"{kind}s": named_rows(rows, "name", folder * (kind == "image")) for kind, rows in kinds}


def named_rows(table, column, folder):
    """{end: [[name, score], …]} of a table of what lies at either end; names without the folder."""
    return {
        end: [[short_name(name, folder), rounded(score)] for name, score in zip(rows[column], rows["score"])]
        for end, rows in table.groupby("end", sort=False)
    }


def spatial(path, strip, description):
    """Where texts are in a picture, over all heads: written as a strip of maps, listed with their texts."""
    arrays, metadata = load_arrays(path)
    evidence = arrays["evidence"].sum((1, 2))  # [text, row, column]
    save_strip(strip, arrays["picture"], [signed_layer(values) for values in evidence])
    return description | {"texts": json.loads(metadata["texts"]), "minus": metadata["minus"]}


def picture(path, strip):
    """Write the picture of a query or of neighbours, as the model sees it; whether there is one."""
    arrays, _ = load_arrays(path)
    if "picture" not in arrays:
        return False
    save_strip(strip, np.asarray(arrays["picture"]), [])
    return True
