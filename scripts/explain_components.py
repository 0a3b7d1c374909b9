"""Principal components of every head over the fit rows, and the texts at their poles."""

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipspectra.activations import StoredActivations
from clipspectra.arrays import load_arrays, save_arrays, save_table, versions
from clipspectra.jobs import job, progress
from clipspectra.spectral import explain_components

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def long_rows(layer, head, explanation, texts):
    """One row a component, pole and text."""
    poles = {
        "top": (explanation.top_text, explanation.top_score),
        "bottom": (explanation.bottom_text, explanation.bottom_score),
    }
    for component in range(explanation.rank):
        for pole, (chosen, scores) in poles.items():
            for place, (text, score) in enumerate(zip(chosen[component], scores[component])):
                yield {
                    "layer": layer,
                    "head": head,
                    "component": component,
                    "singular_value": explanation.singular_values[component],
                    "strength": explanation.strength[component],
                    "pole": pole,
                    "place": place,
                    "text": texts[text],
                    "score": score,
                }


if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        stored = StoredActivations(snakemake.input.shards, snakemake.input.basis)
        pool, metadata = load_arrays(snakemake.input.texts, "features")
        texts = json.loads(metadata["texts"])
        rows, arrays = [], {}
        for layer in progress(stored.layers, "components", unit="layer"):
            for head, moments in enumerate(stored.fit_moments(layer)):
                explanation = explain_components(moments, pool["features"], **snakemake.params.options)
                rows.extend(long_rows(layer, head, explanation, texts))
                arrays[f"components.{layer}.{head}"] = explanation.components
                arrays[f"mean.{layer}.{head}"] = explanation.mean
                if explanation.rank == 0:
                    log(f"layer {layer}, head {head} says the same of every image: no components")
        save_table(snakemake.output.table, pd.DataFrame(rows))
        about = {key: snakemake.wildcards[key] for key in ("model", "dataset", "seed", "texts")}
        about |= {"fit_images": int(np.sum(stored.fit)), "dtype": "float64", "code": snakemake.params.code}
        save_arrays(snakemake.output.components, arrays, about | versions("numpy", "scipy"))
