"""Zero-shot accuracy on the eval rows, with ever more of the sum held at its mean over the fit rows."""

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipspectra.arrays import load_arrays, load_table, save_table
from clipspectra.contributions.stored import StoredActivations
from clipspectra.data.datasets import class_indices
from clipspectra.evaluation.accuracy import ablations, group_masks, mean_ablated, zero_shot
from clipspectra.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def predictions(stored, classifiers):
    """{(ablation, factor): predicted value of each image}, chunk by chunk."""
    means, held = stored.fit_means(), ablations(stored.names)
    found = {(ablation, factor): [] for ablation in held for factor in classifiers}
    for parts in stored.parts():
        for ablation, at_mean in held.items():
            embedding = mean_ablated(parts, means, at_mean)
            for factor, classifier in classifiers.items():
                found[ablation, factor].append(zero_shot(embedding, classifier))
    return {key: np.concatenate(predicted) for key, predicted in found.items()}


def accuracies(found, table, values, dataset):
    """One row an ablation, factor and group ("all", and each group of the manifest), over the rows of `table`."""
    for (ablation, factor), predicted in found.items():
        right = predicted == class_indices(table, factor, values[factor], dataset)
        for group, inside in group_masks(table).items():
            accuracy = 100 * right[inside].mean()
            yield {"factor": factor, "group": group, "at_mean": ablation, "images": inside.sum(), "accuracy": accuracy}


if __name__ == "__main__":
    with job(snakemake.log[0]):
        stored = StoredActivations(snakemake.input.shards, snakemake.input.basis, snakemake.params.protocol)
        classifiers, metadata = load_arrays(snakemake.input.classes)
        table = stored.extracted_rows(load_table(snakemake.input.images))
        found = {key: predicted[stored.scored] for key, predicted in predictions(stored, classifiers).items()}
        values, dataset = json.loads(metadata["values"]), snakemake.wildcards.dataset
        rows = pd.DataFrame(accuracies(found, table[stored.scored], values, dataset))
        about = {key: snakemake.wildcards[key] for key in ("model", "dataset", "seed")}
        about["split"] = "+".join(sorted(set(table["split"][stored.scored])))
        for place, (key, value) in enumerate(about.items()):
            rows.insert(place, key, value)
        save_table(snakemake.output[0], rows)
