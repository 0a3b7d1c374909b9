"""One run for the explorer: an overview, a part for each head, what leads to them, and what each picture is made of."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.arrays import load_arrays, load_table
from clipspectra.contributions.stored import StoredActivations
from clipspectra.explanations.head import load_explanations
from clipspectra.explorer import overview
from clipspectra.explorer.gathering import Heads, ShownPictures, own_classes
from clipspectra.explorer.heads import POLES, factors_part, method_part
from clipspectra.explorer.maps import positive_layer, save_strip
from clipspectra.explorer.own import OwnPictures
from clipspectra.explorer.parts import require_columns, run_folder, unit_name, write_part
from clipspectra.explorer.pictures import (
    ON_A_SHEET,
    SMALL,
    common_folder,
    neighbours,
    picture_list,
    save_webp,
    sheets,
    shown_pictures,
)
from clipspectra.explorer.proof import recovery_curves
from clipspectra.jobs import job

COMPARED = ("seeds", "disjoint halves of the fit images")  # of the tables of stability, the first that there is


def load_methods(inputs, methods, texts):
    """{method: its table of texts}, with `text` as numbers in the pool and the texts themselves as `name`."""
    numbers, tables = pd.Series(range(len(texts)), texts), {}
    for method, path in zip(methods, inputs.tables):
        table = load_table(path)
        text = table["text"].map(numbers)
        if text.isna().any():
            raise InputError(f"{path} has texts that {inputs.texts} has not; remove it, and run again.")
        tables[method] = table.assign(name=table["text"], text=text.astype(int))
    require_columns(tables["components"], ["naming", "named", "projection", "score_by_chance_95"], inputs.tables[0])
    return tables


# Columns that may be blank, of the tables below.
BLANK = ["monosemanticity_top", "monosemanticity_bottom", "cosine", "same_text", "foreground_ap"]


def load_tables(inputs):
    """The run's tables that the map's quantities come from; None where there is none."""
    names = ("effects", "factors", "stability", "parts", "recovery")
    tables = {name: load_table(inputs[name], BLANK) if name in inputs.keys() else None for name in names}
    require_columns(tables["factors"], ["component", "share"], inputs.factors)
    stability, tables["stability"] = tables["stability"], None
    for compared in COMPARED:
        if (rows := stability["compared"] == compared).any():
            tables["stability"] = stability[rows].drop_duplicates(overview.UNIT)
            break
    return tables


def write_heads(root, run, heads, factors, factor_names, methods, paths):
    """Write a part for each head. methods: {method: table}; paths: of these tables, for messages."""
    factors = dict(iter(factors.groupby(overview.UNIT)))
    methods = {method: dict(iter(table.groupby(overview.UNIT))) for method, table in methods.items()}
    for unit in heads.units:
        part = {"unit": unit_name(*unit), "scores": heads.parts[unit]}
        part |= factors_part(factors.get(unit), factor_names)
        part["methods"] = {
            method: method_part(method, tables[unit], path)
            for (method, tables), path in zip(methods.items(), paths)
            if unit in tables
        }
        write_part(root, f"{run}/heads/{unit_name(*unit)}", part)


def write_search(root, run, names, units, text_count):
    """Write where each text is at a pole, in parts, and at how many poles it is."""
    width, codes = overview.text_index(names, units, text_count)
    size, parts = overview.search_parts(codes)
    for number, part in parts.items():
        write_part(root, f"{run}/search/{number}", part)
    write_part(
        root, f"{run}/search/counts", {"size": size, "width": width, "counts": [len(np.unique(c // 2)) for c in codes]}
    )


def write_pictures(root, run, heads, embeddings, first_texts):
    """Write what each picture is made of, and those most like it, a part for each sheet of thumbnails."""
    numbers, sheets = heads.shown.numbers, {}
    near = neighbours(embeddings, embeddings, numbers, same=True)
    for number, components, nearest in zip(numbers, heads.strongest.rows(first_texts), near):
        part = {"components": components, "neighbours": nearest}
        sheets.setdefault(number // ON_A_SHEET, {})[str(number)] = part
    for sheet, parts in sheets.items():
        write_part(root, f"{run}/pictures/{sheet}", parts)


def write_clearest(root, run, cards, listed, root_of_images, folder, factors):
    """Write small thumbnails of the pictures of cards as sheets of their own; the list of these pictures.

    The map shows no others, so that it opens without all of them. The cards get numbers in this list.
    listed: table of all pictures, whose names are paths from root_of_images; folder: left out of the names
    """
    poles = [card[pole] for card in cards for pole in POLES]
    numbers = np.unique(np.concatenate([np.asarray(pole["pictures"], int) for pole in poles] or [[]]).astype(int))
    for pole in poles:
        pole["pictures"] = np.searchsorted(numbers, pole["pictures"])
    table, readable = listed.iloc[numbers], []
    (root / run / "clearest").mkdir()
    paths = [Path(root_of_images, name) for name in table["image"]]
    for number, (sheet, read) in enumerate(sheets(paths, side=SMALL)):
        save_webp(root / run / "clearest" / f"sheet-{number}.webp", sheet)
        readable += read
    return picture_list(table, factors, readable, len(table), folder) | {"folder": f"{run}/clearest"}


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
        "roles": by_role.size().to_dict(),
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
        stored = StoredActivations(inputs.shards, inputs.basis, inputs.images, params.protocol)
        units = overview.units_of(stored.layers, stored.heads)
        texts = json.loads(load_arrays(inputs.texts, "features")[1]["texts"])
        methods, tables = load_methods(inputs, params.methods, texts), load_tables(inputs)
        names = methods["components"]
        first = names[(names["place"] == 0) & (names["naming"] == params.naming)]

        images = stored.images[stored.scored].reset_index(drop=True)
        all_images = [load_table(path) for path in inputs.all_images]
        listed = shown_pictures(all_images, params.protocol, params.pictures)
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

        write_heads(root, run, heads, tables["factors"], factor_names, methods, inputs.tables)
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
        clearest_pictures = write_clearest(
            root, run, cards, listed, Path(inputs.manifest).parent, common_folder(all_images), params.factors
        )
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
