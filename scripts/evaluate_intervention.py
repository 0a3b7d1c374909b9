"""What an intervention does to the zero-shot accuracy: unit by unit, beside random units, by group and by value."""

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipspectra.arrays import load_arrays, load_table, save_table
from clipspectra.concepts.interventions import Intervention
from clipspectra.concepts.outcomes import (
    check_about,
    curve,
    evaluate,
    prepare,
    readings,
    role_groups,
    settings,
    value_changes,
)
from clipspectra.concepts.retrieval import best_texts
from clipspectra.contributions.stored import StoredActivations
from clipspectra.data.datasets import class_indices
from clipspectra.explanations.methods import load_explanations
from clipspectra.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def named(table, names):
    """A table of units with the texts at both ends of its components."""
    if "component" not in table.columns:
        return table
    places = list(table[["layer", "head", "component"]].itertuples(index=False, name=None))
    return table.assign(**{end: [names[end].get(place, "") for place in places] for end in ("top", "bottom")})


def with_source(table, source, roles, images, groups):
    """A table with what it was computed from in front, and the number of images of each role's groups."""
    splits = {role: "+".join(sorted(set(images["split"][inside]))) for role, inside in roles.items()}
    table = table.assign(split=table["role"].map(splits))
    if "group" in table.columns:
        sizes = {(role, name): inside.sum() for role, of in groups.items() for name, inside in of.items()}
        sizes |= {(role, "worst"): of["all"].sum() for role, of in groups.items()}
        table["images"] = [sizes[place] for place in zip(table["role"], table["group"])]
    front = [*source, "role", "split"]
    return table.assign(**source)[[*front, *table.columns.drop(["role", "split"])]]


if __name__ == "__main__":
    with job(
        snakemake.log[0], "interventions.{intervention}, {model}, seed {seed}".format(**snakemake.wildcards)
    ) as log:
        params, inputs, seed = snakemake.params, snakemake.input, int(snakemake.wildcards.seed)
        stored = StoredActivations(inputs.shards, inputs.basis, params.of["protocol"])
        told, images = load_explanations(inputs.components), stored.extracted_rows(load_table(inputs.images))
        classifiers, metadata = load_arrays(inputs.classes)
        classifiers = {name: classifier.astype(np.float64) for name, classifier in classifiers.items()}
        values = json.loads(metadata["values"])
        check_about(params.about, values)
        truths = {name: class_indices(images, name, of, params.of["dataset"]) for name, of in values.items()}
        roles = {"eval": stored.scored, "validation": stored.validation}
        roles = {role: inside for role, inside in roles.items() if inside.any()}
        groups = role_groups(images, roles, load_table(inputs.manifest), params.groups, params.of["dataset"])

        pool_mean = load_arrays(inputs.texts, "features")[0]["features"].mean(0, dtype=np.float64)
        features = load_arrays(inputs.concepts)[0]["features"] if "concepts" in inputs.keys() else []
        ready = prepare(params.edits, stored, told, features, pool_mean, classifiers["class"])
        log(f"{ready.wanted} of {len(ready.units)} units; random ones are out of {len(ready.pool)}")
        found = evaluate(ready, stored, told, classifiers["class"], truths["class"], np.random.default_rng(seed))
        both = [Intervention(), ready.made(ready.units[: ready.wanted], stored)]
        read = readings(both, stored, told, classifiers, truths)
        tables = {
            "summary": settings(ready, found, groups),
            "curve": curve(found, groups),
            "values": value_changes(*read, truths, stored.scored, values, params.about),
        }
        for name, rows in tables.items():
            table = pd.DataFrame(rows)
            table = table if "role" in table.columns else table.assign(role="eval")
            save_table(snakemake.output[name], with_source(table, params.of | {"seed": seed}, roles, images, groups))
        save_table(snakemake.output.units, named(ready.table, best_texts(inputs.names)))
