"""Every head, and the whole embedding, explained by some methods: their texts, and the directions that these span."""

import json

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.arrays import load_arrays, save_table, versions
from clipspectra.contributions.kept import open_stored
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.explanations.head import save_explanations
from clipspectra.explanations.methods import explain, with_names
from clipspectra.explanations.naming import TextPool, fit_activities
from clipspectra.explanations.spectral import principal_components
from clipspectra.jobs import job, progress

# Cheap enough for every layer; the other methods explain only the layers that are evaluated.
ALL_LAYER_METHODS = ("components", "weights")
NUMBER_OF_TEXTS = ("texts_per_pole", "texts_per_component")


def explain_layers(stored, layers_of_methods, pool, options):
    """(method, layer, head, HeadExplanation) of every head, and of the whole embedding as layer and head -1.

    layers_of_methods: {method: the layers it explains}; pool: TextPool; options: {method: its options of `explain`}.
    The images are read once for all explanations of a layer, and once more for what the components fire on.
    """
    for layer in progress([*stored.layers, EMBEDDING], "explaining", unit="layer"):
        methods = [method for method, layers in layers_of_methods.items() if layer in layers or layer == EMBEDDING]
        if layer == EMBEDDING:
            methods = [method for method in methods if method != "weights"]  # no head, no value-output map
        all_moments = stored.fit_moments(layer) if methods else []
        all_weights = stored.weight_moments(layer) if "weights" in methods else [None] * len(all_moments)
        explanations = {}
        for number, (moments, weights) in enumerate(zip(all_moments, all_weights)):
            head = EMBEDDING if layer == EMBEDDING else number
            for method in methods:
                explanation = explain(method, moments, pool.features, weights=weights, options=options[method])
                explanations[method, head] = explanation
        with_components = {key: (key[1], value) for key, value in explanations.items() if value.components is not None}
        for key, activity in fit_activities(stored, layer, with_components).items():
            texts = next(options[key[0]][option] for option in NUMBER_OF_TEXTS if option in options[key[0]])
            explanations[key] = with_names(explanations[key], activity, pool, texts=texts)
        for (method, head), explanation in explanations.items():
            yield method, layer, head, explanation


def note(rank):
    """Remark on a head of this numerical rank in the table of heads; empty for most."""
    if rank == 0:
        return "constant contribution: nothing to explain"
    return "" if rank > 1 else "rank 1: a single component"


if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        params, inputs, wildcards = snakemake.params, snakemake.input, snakemake.wildcards
        stored = open_stored(inputs, params.protocol)
        arrays, metadata = load_arrays(inputs.texts, "features")
        pool = TextPool(arrays["features"], *stored.fit_moments(EMBEDDING))
        if not len(principal_components(pool.embedding)[1]):
            raise InputError(
                f"All {stored.fit_count} fit images of {wildcards.dataset}, seed {wildcards.seed}, are the same to the "
                "model, and components are how images differ; take other images, or more under roles.fit."
            )
        texts, methods = np.array(json.loads(metadata["texts"]), object), list(params.options)
        if params.last_layers > len(stored.layers):
            raise InputError(
                f"evaluation.last_layers is {params.last_layers}, but only {len(stored.layers)} layers are stored; "
                "lower it, or keep more under activations.layers."
            )
        layers = dict.fromkeys(methods, stored.layers[-params.last_layers :])
        layers |= {method: stored.layers for method in ALL_LAYER_METHODS if method in layers}
        explanations, tables, heads = ({method: kind() for method in methods} for kind in (dict, list, list))
        for method, layer, head, explanation in explain_layers(stored, layers, pool, params.options):
            unit, rank = {"layer": layer, "head": head}, explanation.rank
            tables[method].append(explanation.table.assign(text=texts[explanation.table["text"]], **unit))
            heads[method].append(unit | {"rank": rank, "directions": len(explanation.steps), "note": note(rank)})
            explanations[method][layer, head] = explanation.stored()
        metadata = {key: wildcards[key] for key in ("model", "dataset", "seed", "texts")}
        metadata |= {"fit_images": stored.fit_count, "sha256": stored.sha256, "code": params.code}
        metadata |= versions("numpy", "scipy")
        outputs = zip(methods, snakemake.output.tables, snakemake.output.heads, snakemake.output.directions)
        for method, table_path, heads_path, directions_path in outputs:
            table = pd.concat(tables[method], ignore_index=True)
            save_table(table_path, table[["layer", "head", *table.columns.drop(["layer", "head"])]])
            save_table(heads_path, pd.DataFrame(heads[method]))
            save_explanations(directions_path, explanations[method], metadata | {"method": method})
