"""Every head, and the whole embedding, explained by one method: its texts, and the directions that these span."""

import json

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.arrays import load_arrays, save_table, versions
from clipspectra.contributions.stored import EMBEDDING, StoredActivations
from clipspectra.explanations.methods import explain, save_explanations
from clipspectra.jobs import job, progress

# Cheap enough for every layer; the other methods explain only the layers that are evaluated.
ALL_LAYER_METHODS = ("components", "weights")


def explain_layers(stored, method, text_features, layers, *, seed, budget, options):
    """(layer, head, HeadExplanation) of every head of the layers, and of the whole embedding as layer and head -1."""
    for layer in progress([*layers, EMBEDDING], method, unit="layer"):
        if layer == EMBEDDING and method == "weights":
            continue  # no head, no value-output map
        weights = stored.weight_moments(layer) if method == "weights" else None
        for number, moments in enumerate(stored.fit_moments(layer)):
            head = EMBEDDING if layer == EMBEDDING else number
            settings = {"rng": np.random.default_rng([seed, layer + 1, number]), "options": options, "budget": budget}
            weight_moments = weights and weights[number]
            yield layer, head, explain(method, moments, text_features, **settings, weights=weight_moments)


def note(rank):
    """Remark on a head of this numerical rank in the table of heads; empty for most."""
    if rank == 0:
        return "constant contribution: nothing to explain"
    return "" if rank > 1 else "rank 1: a single component"


if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        params, wildcards = snakemake.params, snakemake.wildcards
        stored = StoredActivations(snakemake.input.shards, snakemake.input.basis, params.protocol)
        pool, metadata = load_arrays(snakemake.input.texts, "features")
        texts = np.array([*json.loads(metadata["texts"]), ""], object)  # -1: no text
        if params.last_layers > len(stored.layers):
            raise InputError(
                f"evaluation.last_layers is {params.last_layers}, but only {len(stored.layers)} layers are stored; "
                "lower it, or keep more under activations.layers."
            )
        layers = stored.layers if wildcards.method in ALL_LAYER_METHODS else stored.layers[-params.last_layers :]
        settings = {"seed": int(wildcards.seed), "budget": max(params.budgets), "options": params.options}
        explanations, tables, heads = {}, [], []
        for layer, head, explanation in explain_layers(stored, wildcards.method, pool["features"], layers, **settings):
            unit, rank = {"layer": layer, "head": head}, explanation.rank
            tables.append(explanation.table.assign(text=texts[explanation.table["text"]], **unit))
            heads.append(unit | {"rank": rank, "directions": len(explanation.steps), "note": note(rank)})
            explanations[layer, head] = explanation
        table = pd.concat(tables, ignore_index=True)
        save_table(snakemake.output.table, table[["layer", "head", *table.columns.drop(["layer", "head"])]])
        save_table(snakemake.output.heads, pd.DataFrame(heads))
        metadata = {key: wildcards[key] for key in ("model", "dataset", "seed", "texts", "method")}
        metadata |= {"fit_images": int(np.sum(stored.fit)), "sha256": stored.sha256, "code": params.code}
        save_explanations(snakemake.output.directions, explanations, metadata | versions("numpy", "scipy"))
