"""Zero-shot accuracy on the eval rows under mean ablation, of sets of parts and of each head and MLP alone."""

import json

import numpy as np
import pandas as pd

from clipspectra.arrays import load_arrays, save_table, split_names, with_source
from clipspectra.contributions.kept import open_stored
from clipspectra.data.datasets import class_indices
from clipspectra.evaluation import intervals
from clipspectra.evaluation.accuracy import ablations, group_masks, mean_ablated, zero_shot
from clipspectra.evaluation.effects import direct_effects
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
            source = {"factor": factor, "group": group, "at_mean": ablation, "images": mask.sum()}
            yield source | intervals.percent(correct[mask])


if __name__ == "__main__":
    with job(snakemake.log[0]):
        inputs, dataset = snakemake.input, snakemake.wildcards.dataset
        stored = open_stored(inputs, snakemake.params.protocol)
        classifiers, metadata = load_arrays(inputs.classes)
        scored, values = stored.images[stored.scored], json.loads(metadata["values"])
        predictions = {key: predicted[stored.scored] for key, predicted in predict(stored, classifiers).items()}
        source = {key: snakemake.wildcards[key] for key in ("model", "dataset", "seed")}
        source["split"] = split_names(scored)
        rows = pd.DataFrame(accuracies(predictions, scored, values, dataset))
        save_table(snakemake.output.accuracy, with_source(rows, source))
        labels = class_indices(stored.images, "class", values["class"], dataset)
        effects = direct_effects(stored, classifiers["class"].astype(np.float64), labels)
        save_table(snakemake.output.effects, with_source(effects, source | {"images": len(scored)}))
