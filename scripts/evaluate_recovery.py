"""How much of the zero-shot accuracy the explanations of the last layers' heads recover, by number of texts a head."""

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.activations import StoredActivations
from clipspectra.arrays import load_arrays, load_table, save_table
from clipspectra.jobs import job
from clipspectra.recovery import Recovery, explanations_of, recovered

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


if __name__ == "__main__":
    with job(snakemake.log[0]):
        params, wildcards = snakemake.params, snakemake.wildcards
        stored = StoredActivations(snakemake.input.shards, snakemake.input.basis)
        scored = ~stored.fit
        if params.protocol == "same":  # the reference's: means, explanations and scores from the same images
            stored.fit, scored = np.ones_like(scored), np.ones_like(scored)
        images = stored.of_table(load_table(snakemake.input.images))
        classes, metadata = load_arrays(snakemake.input.classes, "class")
        values = json.loads(metadata["values"])["class"]
        right = images["class"].astype(str).map(values.index).to_numpy()
        texts = load_arrays(snakemake.input.texts, "features")[0]["features"]
        if params.last_layers > len(stored.layers):
            raise InputError(
                f"evaluation.last_layers is {params.last_layers}, but only {len(stored.layers)} layers are stored; "
                "lower it, or keep more under activations.layers."
            )
        layers = stored.layers[-params.last_layers :]
        tables = []
        for method in params.methods:
            explanations, means = explanations_of(
                stored,
                method,
                texts,
                layers,
                seed=int(wildcards.seed),
                budget=max(params.budgets),
                options=params.options if method in ("components", "random_texts") else {},
            )
            recovery = Recovery(explanations, means, stored.basis, params.budgets)
            table = recovered(stored, recovery, layers, classes["class"], right, scored, mlps=params.mlps)
            tables.append(table.assign(method=method))
        found = pd.concat(tables, ignore_index=True)
        found.insert(0, "method", found.pop("method"))
        about = {key: wildcards[key] for key in ("model", "dataset", "seed", "texts")}
        about["split"] = "+".join(sorted(set(images["split"][scored])))
        about |= {"layers": f"{layers[0]}–{layers[-1]}", "mlps": params.mlps}
        about |= {"protocol": params.protocol, "images": int(scored.sum())}
        for place, (key, value) in enumerate(about.items()):
            found.insert(place, key, value)
        save_table(snakemake.output[0], found)
