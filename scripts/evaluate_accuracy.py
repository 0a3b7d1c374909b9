"""Zero-shot accuracy on the eval rows under mean ablation, at the means over the fit rows."""

import json

import numpy as np
import pandas as pd

from clipspectra.arrays import load_arrays, save_table, split_names, with_source
from clipspectra.contributions.stored import StoredActivations
from clipspectra.data.datasets import class_indices
from clipspectra.evaluation.accuracy import ablations, group_masks, mean_ablated, zero_shot
from clipspectra.jobs import job


def predict(stored, classifiers):
    """{(ablation, factor): predicted class index of each image [image]}."""
    means, masks = stored.fit_means(), ablations(stored.names)
    predictions = {(ablation, factor): [] for ablation in masks for factor in classifiers}
    for parts in stored.parts():
        for ablation, at_mean in masks.items():
            embedding = mean_ablated(parts, means, at_mean)
            for factor, classifier in classifiers.items():
                predictions[ablation, factor].append(zero_shot(embedding, classifier))
    return {key: np.concatenate(chunks) for key, chunks in predictions.items()}


def accuracies(predictions, table, values, dataset):
    """One row per ablation, factor and group ("all", and each group of the manifest), over the rows of `table`."""
    for (ablation, factor), predicted in predictions.items():
        correct = predicted == class_indices(table, factor, values[factor], dataset)
        for group, mask in group_masks(table).items():
            accuracy = 100 * correct[mask].mean()
            yield {"factor": factor, "group": group, "at_mean": ablation, "images": mask.sum(), "accuracy": accuracy}


if __name__ == "__main__":
    with job(snakemake.log[0]):
        inputs = snakemake.input
        stored = StoredActivations(inputs.shards, inputs.basis, inputs.images, snakemake.params.protocol)
        classifiers, metadata = load_arrays(inputs.classes)
        table = stored.images
        predictions = {key: predicted[stored.scored] for key, predicted in predict(stored, classifiers).items()}
        values, dataset = json.loads(metadata["values"]), snakemake.wildcards.dataset
        rows = pd.DataFrame(accuracies(predictions, table[stored.scored], values, dataset))
        source = {key: snakemake.wildcards[key] for key in ("model", "dataset", "seed")}
        source["split"] = split_names(table[stored.scored])
        save_table(snakemake.output[0], with_source(rows, source))
