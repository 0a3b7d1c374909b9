"""The explorer: the page, the parts of all runs and datasets, texts, entries of the config, and the index of it all."""

import json
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.arrays import load_metadata, load_table
from clipspectra.explanations.catalogue import METHODS, NAMES
from clipspectra.explorer import entries
from clipspectra.explorer.parts import VERSION, run_folder, write_part
from clipspectra.explorer.pictures import common_folder, short_name
from clipspectra.figures.drawing import OKABE_ITO, images_by_role, is_sample
from clipspectra.jobs import job

PAGE = ("index.html", "style.css", "app", "vendor/ui.js", "vendor/plot.js", "vendor/LICENSES.txt")
SCALES = {"sequential": "cividis", "diverging": "PuOr_r"}  # of the figures
STEPS = 33  # colours of a scale


def copy_page(source, folder):
    """Copy the page's own files as they are."""
    for name in PAGE:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (source / name).is_dir() else shutil.copy)(source / name, target)


def write_texts(folder, paths, names):
    """Write each text pool once, as the list of its texts; paths: of the pools of all models, names: of these pools."""
    pools = {}
    for path, name in zip(paths, names):
        texts = json.loads(load_metadata(path)["texts"])
        if pools.setdefault(name, texts) != texts:
            raise InputError(f"{path} has other texts than the pool's file of another model; remove it, and run again.")
    for name, texts in pools.items():
        write_part(folder, f"texts/{name}", texts)


def colour_scales():
    """Colours of the scales, from low to high, as the figures have them, and those of factors."""
    steps = np.linspace(0, 1, STEPS)
    scales = {name: [matplotlib.colors.to_hex(c) for c in matplotlib.colormaps[m](steps)] for name, m in SCALES.items()}
    return scales | {"categories": OKABE_ITO}


def write_entries(folder, requested, picture_folders):
    """Write each of the config's entries; the list of them for the index.

    requested: dicts of kind, name and files; picture_folders: {dataset: common folder of its pictures}
    """
    listed = []
    for entry in requested:
        files, kind = entry["files"], entry["kind"]
        about = {key: value for key, value in entry.items() if key != "files"}
        key = "/".join(("entries", kind, entry["name"], *([entry["model"]] if kind == "interventions" else [])))
        strip = folder / f"{key}.webp"
        strip.parent.mkdir(parents=True, exist_ok=True)
        if kind == "interventions":
            part = entries.intervention(files, about)
        elif kind == "topics":
            part = entries.topics(files["table"], about)
        elif kind == "spatial":
            part = entries.spatial(files["maps"], strip, about)
        else:
            about["picture"] = "query" in files and entries.picture(files["query"], strip)
            if kind == "queries":
                part = entries.query(files["table"], files["images"], picture_folders[entry["dataset"]], about)
            else:
                part = entries.neighbours(files["table"], picture_folders[entry["dataset"]], about)
        write_part(folder, key, part)
        listed.append(about | {"key": key})
    return listed


EXACTNESS = ["shard", "images", "skipped", "largest_sum_error", "largest_stored_sum_error", "largest_model_error"]
SOURCE = ["precision", "dtype", "sha256", "torch", "open_clip_torch"]


def write_exactness(folder, inputs, runs, picture_folders):
    """Write how exact the runs' extractions are, what they were made with, and which pictures were skipped."""
    tables = load_table(inputs.exactness, EXACTNESS[3:]), load_table(inputs.skipped)
    explored = pd.DataFrame(runs)[["model", "dataset"]].drop_duplicates()
    exactness, skipped = (table.merge(explored) for table in tables)
    names = [short_name(*pair) for pair in zip(skipped["image"], skipped["dataset"].map(picture_folders))]
    part = {
        "rows": rows_by_run(exactness, EXACTNESS),
        "source": rows_by_run(exactness, SOURCE),
        "skipped": rows_by_run(skipped.assign(image=names), ["image", "reason"]),
    }
    write_part(folder, "exactness", part)


def rows_by_run(table, columns):
    """{"model/dataset/seed": rows of the columns} of a table."""
    return {
        "/".join(map(str, run)): [
            [None if value != value else value for value in row] for row in rows[columns].values.tolist()
        ]
        for run, rows in table.groupby(["model", "dataset", "seed"], sort=False)
    }


def with_inputs(entries, paths):
    """The entries with the rule's inputs, in order, as their files: of a bucket, these are copies of other names."""
    paths = iter(paths)

    def located(files):
        return {key: located(value) if isinstance(value, dict) else next(paths) for key, value in files.items()}

    return [entry | {"files": located(entry["files"])} for entry in entries]


if __name__ == "__main__":
    with job(snakemake.log[0]):
        inputs, params, folder = snakemake.input, snakemake.params, Path(snakemake.output[0])
        shutil.rmtree(folder, ignore_errors=True)  # what a failed job left: of a bucket, Snakemake keeps the local copy
        copy_page(next(Path(path).parent for path in inputs.page if path.endswith("index.html")), folder)
        for part in (*inputs.runs, *inputs.pictures):
            shutil.copytree(part, folder, dirs_exist_ok=True)
        write_texts(folder, inputs.texts, params.pools)
        tables, samples = {dataset: [] for dataset, _ in params.images}, {}
        for (dataset, seed), path in zip(params.images, inputs.images):
            tables[dataset].append(load_table(path))
            if is_sample(table := tables[dataset][-1]):
                samples[f"{dataset}/{seed}"] = " · ".join(images_by_role(table, params.protocol, pairs=True))
        picture_folders = {dataset: common_folder(of_seeds) for dataset, of_seeds in tables.items()}
        write_exactness(folder, inputs, params.runs, picture_folders)
        loaded = load_table(inputs.loaded)
        index = {
            "version": VERSION,
            "runs": [run | {"folder": run_folder(**run)} for run in params.runs],
            "missing": params.missing,
            "models": {row["model"]: {k: str(v) for k, v in row.items()} for row in loaded.to_dict("records")},
            "samples": samples,
            "scales": colour_scales(),
            "methods": {method: METHODS[method] for method in params.methods},
            "namings": NAMES,
            "entries": write_entries(folder, with_inputs(params.entries, inputs.entries), picture_folders),
        }
        write_part(folder, "index", index)
