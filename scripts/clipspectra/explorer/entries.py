"""The config's interventions, queries, neighbours and maps of texts as entries of the page."""

import json

from clipspectra.arrays import load_arrays, load_table
from clipspectra.explorer.maps import save_strip, signed_layer
from clipspectra.explorer.parts import rounded, unit_name
from clipspectra.explorer.pictures import short_name
from clipspectra.explorer.proof import intervention_curves

SUMMARY = ["setting", "group", "role", "split", "units", "images"]
SUMMARY += ["accuracy", "accuracy_low", "accuracy_high", "random"]
UNITS = 100  # listed


def intervention(files, description):
    """An intervention on one model: by seed curves, the units of its edits, and accuracies by setting.

    files: {seed: {"curve", "units", "summary": path}}; description: {what: sentence} of the entry
    """
    curves = {seed: load_table(paths["curve"], ["random", "accuracy"]) for seed, paths in files.items()}
    part = description | {"curves": intervention_curves(curves), "units": {}, "unit_counts": {}, "summary": {}}
    for seed, paths in files.items():
        units = load_table(paths["units"], ["layer", "head", "component", "share", "concept", "classes", "variance"])
        part["units"][seed] = [edited_unit(row) for row in units.head(UNITS).to_dict("records")]
        part["unit_counts"][seed] = {"all": len(units), "edited": int((units["chosen"] == "yes").sum())}
        summary = load_table(paths["summary"], ["accuracy", "random", "images", "units"])
        part["summary"][seed] = [
            {key: rounded(row[key], 4) if isinstance(row[key], float) else row[key] for key in SUMMARY}
            for row in summary.to_dict("records")
        ]
    return part


def edited_unit(row):
    """A unit of an edit for the page, from its row of the table of units."""
    unit = {"unit": "", "do": row["do"]}
    if not row.get("layer", -1) >= 0:
        unit["words"] = "all MLPs"
    elif row["head"] == "all":
        unit["words"] = f"layer {int(row['layer'])}, all heads"
    else:
        unit["unit"] = unit_name(int(row["layer"]), int(float(row["head"])))
    unit |= {key: rounded(row[key]) for key in ("component", "share") if key in row}
    unit |= {key: str(row[key]) for key in ("fires_on_top", "fires_on_bottom") if key in row}
    return unit | {"chosen": row["chosen"] == "yes"}


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
    description = description | {"seeds": str(table["seeds"].iloc[0])}
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
    if "picture" in arrays:
        save_strip(strip, arrays["picture"], [])
    return "picture" in arrays
