"""Zero-shot accuracy on the eval rows, with ever more of the sum held at its mean over the fit rows."""

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipspectra.activations import StoredActivations
from clipspectra.arrays import load_arrays, load_table, save_table
from clipspectra.evaluate import ablations, accuracy, mean_ablated
from clipspectra.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def accuracies(parts, fit, table, classifiers, values, layers):
    """One row an ablation, factor and group ("all", and each group of the manifest)."""
    means = parts[fit].mean(0, dtype=np.float64)
    table, parts = table[~fit], parts[~fit]
    groups = {"all": np.ones(len(table), bool)}
    groups |= {name: (table["group"] == name).to_numpy() for name in sorted(set(table["group"]) - {""})}
    for ablation, at_mean in ablations(layers).items():
        embedding = mean_ablated(parts, means, at_mean)
        for factor, classifier in classifiers.items():
            labels = table[factor].astype(str).map(values[factor].index).to_numpy()
            for group, inside in groups.items():
                yield {
                    "factor": factor,
                    "group": group,
                    "at_mean": ablation,
                    "images": int(inside.sum()),
                    "accuracy": 100 * accuracy(embedding[inside], classifier, labels[inside]),
                }


if __name__ == "__main__":
    with job(snakemake.log[0]):
        stored = StoredActivations(snakemake.input.shards, snakemake.input.basis)
        classifiers, metadata = load_arrays(snakemake.input.classes)
        table = load_table(snakemake.input.images)
        values = json.loads(metadata["values"])
        rows = pd.DataFrame(accuracies(stored.parts(), stored.fit, table, classifiers, values, stored.layers))
        for place, key in enumerate(("model", "dataset", "seed")):
            rows.insert(place, key, snakemake.wildcards[key])
        save_table(snakemake.output[0], rows)
