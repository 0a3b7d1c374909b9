"""One run for the explorer: an overview, a part for each head, what leads to them, and what each picture is made of."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.arrays import load_arrays, load_metadata, load_table
from clipspectra.contributions.kept import open_stored
from clipspectra.explanations.head import load_explanations
from clipspectra.explorer import overview
from clipspectra.explorer.gathering import Heads, ShownPictures, own_classes
from clipspectra.explorer.heads import POLES, columns_of, factors_part, method_part
from clipspectra.explorer.maps import positive_layer, save_strip
from clipspectra.explorer.own import OwnPictures
from clipspectra.explorer.parts import require_columns, run_folder, unit_name, write_part
from clipspectra.explorer.pictures import (
    ON_A_SHEET,
    SMALL,
    common_folder,
    neighbours,
    picture_list,
    save_sheets,
    shown_pictures,
)
from clipspectra.explorer.proof import recovery_curves
from clipspectra.jobs import job

COMPARED = ("seeds", "halves of the images")  # of the tables of stability, the first that there is


def load_methods(inputs, methods, texts):
    """{method: its table of texts}, with `text` as numbers in the pool and the texts themselves as `name`."""
    numbers, tables = pd.Series(range(len(texts)), texts), {}
    for method, path in zip(methods, inputs.tables):
        table = load_table(path)
        require_columns(table, columns_of(method), path)
        text = table["text"].map(numbers)
        if text.isna().any():
            raise InputError(f"{path} has texts that {inputs.texts} has not; remove it, and run again.")
        tables[method] = table.assign(name=table["text"], text=text.astype(int))
    return tables


# Columns that may be blank, of the tables below.
BLANK = ["monosemanticity_top", "monosemanticity_bottom", "cosine", "same_text", "foreground_ap"]


def load_tables(inputs, factors):
    """The run's tables that the map's quantities come from; None where there is none."""
    names = ("effects", "factors", "stability", "parts", "recovery")
    tables = {name: load_table(inputs[name], BLANK) if name in inputs.keys() else None for name in names}
    needed = [f"{column}_{factor}" for factor in factors for column in ("eta2", "high", "low")]
    require_columns(tables["factors"], ["share", *needed], inputs.factors)
    stability, tables["stability"] = tables["stability"], None
    for compared in COMPARED:
        if (rows := stability["compared"] == compared).any():
            tables["stability"] = stability[rows].drop_duplicates(overview.UNIT)
            break
    return tables


def write_heads(root, run, heads, factors, factor_names, methods):
    """Write a part for each head. factors: table; methods: {method: table}"""
    factors = dict(iter(factors.groupby(overview.UNIT)))
    methods = {method: dict(iter(table.groupby(overview.UNIT))) for method, table in methods.items()}
    for unit in heads.units:
        part = {"scores": heads.parts[unit]} | factors_part(factors.get(unit), factor_names)
        part["methods"] = {
            method: method_part(method, tables[unit]) for method, tables in methods.items() if unit in tables
        }
        write_part(root, f"{run}/heads/{unit_name(*unit)}", part)


def write_search(root, run, names, units, text_count):
    """Write where each text is at a pole, in parts, and at how many poles it is."""
    width, codes = overview.text_index(names, units, text_count)
    size, parts = overview.search_parts(codes)
    for number, part in parts.items():
        write_part(root, f"{run}/search/{number}", part)
    counts = [len(np.unique(of_text // 2)) for of_text in codes]  # a pole may have a text by both namings
    write_part(root, f"{run}/search/counts", {"size": size, "width": width, "counts": counts})


def write_pictures(root, run, heads, embeddings, first_texts):
    """Write what each picture is made of, and those most like it, a part for each sheet of thumbnails."""
    numbers, sheets = heads.shown.numbers, {}
    near = neighbours(embeddings, embeddings, numbers, same=True)
    for number, components, nearest in zip(numbers, heads.strongest.rows(first_texts), near):
        part = {"components": components, "neighbours": nearest}
        sheets.setdefault(number // ON_A_SHEET, {})[str(number)] = part
    for sheet, parts in sheets.items():
        write_part(root, f"{run}/pictures/{sheet}", parts)


def write_clearest(root, run, cards, listed, images, common, factors):
    """Write small thumbnails of the pictures of cards as sheets of their own; the list of these pictures.

    The map shows no others, so that it opens without all of them. The cards get numbers in this list.
    listed: table of all pictures, whose names are paths from the folder images; common: as in picture_list
    """
    poles = [card[pole] for card in cards for pole in POLES]
    numbers = np.array(sorted({number for pole in poles for number in pole["pictures"]}), int)
    for pole in poles:
        pole["pictures"] = np.searchsorted(numbers, pole["pictures"])
    table, sheets = listed.iloc[numbers], f"{run}/clearest"
    readable = save_sheets(root / sheets, [images / name for name in table["image"]], side=SMALL)
    return picture_list(table, factors, readable, len(table), sheets=sheets, common=common)


def segmentation_maps(path, names, folder):
    """[[picture, what it is], …] of the segmentation's examples among the pictures, their maps written as strips."""
    arrays, metadata = load_arrays(path)
    if "images" not in metadata:
        raise InputError(f"{path} was written by an older version of the code; remove it, and run again.")
    numbers, maps = {name: number for number, name in enumerate(names)}, {}
    for row, (name, kind) in enumerate(zip(json.loads(metadata["images"]), json.loads(metadata["kinds"]))):
        if name in numbers and numbers[name] not in maps:
            layers = [positive_layer(arrays["maps"][row]), positive_layer((arrays["masks"][row] == 1).astype(float))]
            save_strip(Path(folder, f"map-{numbers[name]}.webp"), arrays["pictures"][row], layers)
            maps[numbers[name]] = kind
    return [list(pair) for pair in maps.items()]


def proof_part(stored, text_count, params, recovery):
    """What the run was computed from, and what its explanations recover; recovery: a table, or None."""
    by_role = stored.images.groupby("role")
    return {
        "roles": stored.images_by_role(),
        "splits": {role: "+".join(sorted(set(rows["split"]))) for role, rows in by_role},
        "protocol": params.protocol,
        "texts": text_count,
        "sha256": stored.sha256,
        "code": params.code,
        "recovery": None if recovery is None else recovery_curves(recovery),
    }


if __name__ == "__main__":
    with job(snakemake.log[0]):
        inputs, params, wildcards = snakemake.input, snakemake.params, snakemake.wildcards
        root, run = Path(snakemake.output[0]), run_folder(**wildcards)
        (root / run).mkdir(parents=True)
        stored = open_stored(inputs, params.protocol)
        units = overview.units_of(stored.layers, stored.heads)
        texts = json.loads(load_metadata(inputs.texts)["texts"])
        methods, tables = load_methods(inputs, params.methods, texts), load_tables(inputs, params.factors)
        names = methods["components"]
        first = names[(names["place"] == 0) & (names["naming"] == params.naming)]

        images = stored.images[stored.scored].reset_index(drop=True)
        all_images = [load_table(path) for path in inputs.all_images]
        listed, _ = shown_pictures(all_images, params.protocol, params.pictures)
        heads, classes = Heads(units, ShownPictures(listed, images)), own_classes(images, params.factors)
        own = OwnPictures(inputs.own) if "own" in inputs.keys() else None
        following = load_explanations(inputs.next_components) if "next_components" in inputs.keys() else {}
        heads.gather(
            stored,
            load_explanations(inputs.components),
            next_components={unit: explanation.components for unit, explanation in following.items()},
            own=own,
            classes=classes,
        )
        factor_names = [*params.factors, *([] if classes is None else ["class"])]
        if heads.class_factors:
            table = tables["factors"].merge(pd.concat(heads.class_factors), on=[*overview.UNIT, "component"])
            tables["factors"] = table

        write_heads(root, run, heads, tables["factors"], factor_names, methods)
        write_search(root, run, names, units, len(texts))
        write_part(root, f"{run}/values", overview.value_components(units, tables["factors"], factor_names))
        first_texts = {
            (units.index((row.layer, row.head)), row.component, row.pole): row.text
            for row in first[first["named"].astype(bool)].itertuples()
        }
        embeddings = stored.embeddings_of(images["row"].iloc[heads.shown.rows])
        write_pictures(root, run, heads, embeddings, first_texts)
        own_parts = own.parts(embeddings, first_texts, heads.shown.numbers) if own else []
        if own and params.own_maps:
            maps = own.write_maps(root / run, wildcards.dataset, units)
            own_parts = [part | {"maps": places} for part, places in zip(own_parts, maps)]
        cards = overview.clearest_cards(load_table(inputs.clearest), first, heads.at_poles)
        common, folder = common_folder(all_images), Path(inputs.manifest).parent
        clearest_pictures = write_clearest(root, run, cards, listed, folder, common, params.factors)
        with_maps = "examples" in inputs.keys()
        part = {
            "layers": [stored.layers.start, len(stored.layers)],
            "heads": stored.heads,
            "naming": params.naming,
            "quantities": overview.quantities(units, tables, factor_names, first),
            "factor": overview.strongest_factors(units, tables["factors"], factor_names),
            "names": overview.first_names(units, first),
            "clearest_pictures": clearest_pictures,
            "clearest": cards,
            "pictures": len(heads.shown.rows),
            "maps": segmentation_maps(inputs.examples, listed["image"], root / run) if with_maps else [],
            "own": own_parts,
        }
        write_part(root, f"{run}/overview", part)
        write_part(root, f"{run}/proof", proof_part(stored, len(texts), params, tables["recovery"]))
