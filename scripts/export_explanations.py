"""Explanations as JSON lines, with the keys of the reference implementation, so that its notebooks read them.

One line per head of the evaluated layers, then one for the whole embedding (layer and head -1), which also has the
accuracy with all these heads replaced by their explanations, MLPs kept, and the number of different texts.
"""

import json

import numpy as np

from clipspectra.arrays import atomic_write, load_arrays, load_table
from clipspectra.contributions.kept import open_stored
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.data.datasets import class_labels
from clipspectra.evaluation.recovery import recovered_accuracy
from clipspectra.explanations.exports import export_lines
from clipspectra.explanations.head import load_explanations
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        params, inputs, wildcards = snakemake.params, snakemake.input, snakemake.wildcards
        stored = open_stored(inputs, params.protocol)
        layers = stored.layers[-params.last_layers :]
        heads = [(layer, head) for layer in layers for head in range(stored.heads)] + [(EMBEDDING, EMBEDDING)]
        explanations = load_explanations(inputs.directions, heads)
        text_mean = load_arrays(inputs.texts, "features")[0]["features"].astype(np.float64).mean(0)
        images = stored.images
        classifier, labels = class_labels(inputs.classes, images, wildcards.dataset)
        all_texts = [len(text_mean)]  # d_embed texts: all that a head has
        table, _ = recovered_accuracy(stored, [explanations], all_texts, layers, classifier, labels, mlps="kept")
        accuracy = table["top1"].iloc[0]
        texts = load_table(inputs.table)
        lines = export_lines(explanations, texts, wildcards.algorithm, text_mean=text_mean, accuracy=accuracy)
        with atomic_write(snakemake.output[0]) as part, open(part, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
