"""What an intervention does to the zero-shot accuracy: unit by unit, beside random units, by group and by value."""

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipspectra.activations import StoredActivations
from clipspectra.arrays import load_arrays, load_table, save_table
from clipspectra.concepts import component_table
from clipspectra.interventions import Intervention
from clipspectra.jobs import job
from clipspectra.methods import load_told
from clipspectra.outcomes import (
    DRAWS,
    beside_random,
    by_value,
    check_about,
    correct,
    grid,
    groups_of,
    random_pool,
    readings,
    settings,
    units_of,
)
from clipspectra.retrieve import best_texts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        params, inputs, wildcards = snakemake.params, snakemake.input, snakemake.wildcards
        stored = StoredActivations(inputs.shards, inputs.basis, params.of["protocol"])
        told = load_told(inputs.components)
        images, manifest = stored.of_table(load_table(inputs.images)), load_table(inputs.manifest)
        classifiers, metadata = load_arrays(inputs.classes)
        classifiers = {name: classifier.astype(np.float64) for name, classifier in classifiers.items()}
        values = json.loads(metadata["values"])
        check_about(params.about, values)
        roles = {"eval": stored.scored, "validation": stored.validation}
        roles = {role: inside for role, inside in roles.items() if inside.any()}
        groups = groups_of(images, roles, manifest, params.groups, params.of["dataset"])

        every, before, tables = component_table(stored, told), Intervention(), []
        pool_mean = load_arrays(inputs.texts, "features")[0]["features"].mean(0, dtype=np.float64)
        features = iter(load_arrays(inputs.concepts)[0]["features"] if "concepts" in inputs.keys() else [])
        for place, edit in enumerate(params.edits):
            of_edit = np.array([next(features) for _ in edit.get("concept", [])])
            units, wanted, table = units_of(edit, every, stored, told, of_edit, pool_mean, classifiers["class"])
            numbers = np.arange(len(table))
            tables.append(table.assign(edit=place, place=numbers, chosen=np.where(numbers < wanted, "yes", "no")))
            if place < len(params.edits) - 1:
                before = before.then(edit, units[:wanted], stored)
        pool = random_pool(edit, before, every)
        log(f"{wanted} of {len(units)} units; random ones are out of {len(pool)}")

        # One flat list of interventions, each near the one before it, so that one pass over the images makes all.
        steps = [number for number in grid(max(2 * wanted, 16)) if number <= len(units)]
        numbers = sorted({*steps, wanted})
        rng = np.random.default_rng(int(wildcards.seed))
        orders = [units] + [[pool[row] for row in rng.permutation(len(pool))] for _ in range(DRAWS if pool else 0)]
        plan = [(order, number) for order, of in enumerate(orders) for number in numbers if number <= len(of)]
        made = [before.then(edit, orders[order][:number], stored) for order, number in plan]
        truths = {name: images[name].astype(str).map(of.index).to_numpy() for name, of in values.items()}
        untouched, first, *found = correct(
            [Intervention(), before, *made], stored, told, classifiers["class"], truths["class"]
        )
        found = dict(zip(plan, found))
        chosen = {number: found[0, number] for number in numbers}
        draws = {
            number: np.stack([found[order, number] for order in range(1, len(orders))])
            for number in numbers
            if pool and number <= len(pool)
        }
        splits = {role: "+".join(sorted(set(images["split"][inside]))) for role, inside in roles.items()}

        def about(table, role):
            """A table with what it was computed from in front."""
            where = params.of | {"seed": int(wildcards.seed), "role": role, "split": splits[role]}
            table = table.drop(columns="role", errors="ignore")
            sizes = {name: inside.sum() for name, inside in groups[role].items()}
            if "images" not in table.columns:
                table["images"] = table["group"].map(sizes | {"worst": sizes["all"]})
            return pd.concat([pd.DataFrame(where, index=table.index), table], axis=1)

        several = len(params.edits) > 1
        summary = pd.DataFrame(settings(wanted, untouched, first if several else None, chosen, draws, groups))
        curve = [
            about(
                pd.DataFrame(row for number in steps for row in beside_random(number, chosen[number], draws, of_role)),
                role,
            )
            for role, of_role in groups.items()
        ]
        edited = before.then(edit, units[:wanted], stored)
        read = readings([Intervention(), edited], stored, told, classifiers, truths)
        moved = pd.DataFrame(by_value(*read, truths, stored.scored, values, params.about))
        units = pd.concat(tables, ignore_index=True)
        if "component" in units.columns:
            names = best_texts(inputs.names)[["top", "bottom"]].reset_index()
            units = units.merge(names, how="left", on=["layer", "head", "component"])
        save_table(snakemake.output.units, units[["edit", "place", *units.columns.drop(["edit", "place"])]])
        save_table(snakemake.output.curve, pd.concat(curve))
        summary = [about(rows, role) for role, rows in summary.groupby("role", sort=False)]
        save_table(snakemake.output.summary, pd.concat(summary))
        save_table(snakemake.output.values, about(moved, "eval"))
