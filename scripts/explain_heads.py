"""Every head, and the whole embedding, as one method tells it: its texts, and the directions that these span."""

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.arrays import load_arrays, save_table, versions
from clipspectra.contributions.stored import EMBEDDING, StoredActivations
from clipspectra.explanations.methods import explain, save_explanations
from clipspectra.jobs import job, progress

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# Cheap enough for every layer; the others explain the layers that are evaluated.
OF_ALL_LAYERS = ("components", "weights")


def told(stored, method, texts, layers, *, seed, budget, options):
    """(layer, head, methods.HeadExplanation) of every head of the layers, and of the whole embedding as layer and head -1."""
    for layer in progress([*layers, EMBEDDING], method, unit="layer"):
        if layer == EMBEDDING and method == "weights":
            continue  # no head, no value-output map
        weights = stored.weight_moments(layer) if method == "weights" else None
        for number, moments in enumerate(stored.fit_moments(layer)):
            head = EMBEDDING if layer == EMBEDDING else number
            more = {"rng": np.random.default_rng([seed, layer + 1, number]), "options": options, "budget": budget}
            yield layer, head, explain(method, moments, texts, **more, weights=weights and weights[number])


def note(rank):
    """What a reader of the table of heads should know of a head."""
    if rank == 0:
        return "says the same of every image: nothing to explain"
    return "" if rank > 1 else "says one thing only: one component"


if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        params, wildcards = snakemake.params, snakemake.wildcards
        stored = StoredActivations(snakemake.input.shards, snakemake.input.basis, params.protocol)
        pool, metadata = load_arrays(snakemake.input.texts, "features")
        names = np.array([*json.loads(metadata["texts"]), ""], object)  # -1: no text
        if params.last_layers > len(stored.layers):
            raise InputError(
                f"evaluation.last_layers is {params.last_layers}, but only {len(stored.layers)} layers are stored; "
                "lower it, or keep more under activations.layers."
            )
        layers = stored.layers if wildcards.method in OF_ALL_LAYERS else stored.layers[-params.last_layers :]
        options = {"seed": int(wildcards.seed), "budget": max(params.budgets), "options": params.options}
        found, tables, heads = {}, [], []
        for layer, head, of_head in told(stored, wildcards.method, pool["features"], layers, **options):
            place = {"layer": layer, "head": head}
            tables.append(of_head.table.assign(text=names[of_head.table["text"]], **place))
            heads.append(place | {"rank": of_head.rank, "directions": len(of_head.steps), "note": note(of_head.rank)})
            found[layer, head] = of_head
        table = pd.concat(tables, ignore_index=True)
        save_table(snakemake.output.table, table[["layer", "head", *table.columns.drop(["layer", "head"])]])
        save_table(snakemake.output.heads, pd.DataFrame(heads))
        about = {key: wildcards[key] for key in ("model", "dataset", "seed", "texts", "method")}
        about |= {"fit_images": int(np.sum(stored.fit)), "sha256": stored.sha256, "code": params.code}
        save_explanations(snakemake.output.directions, found, about | versions("numpy", "scipy"))
