"""Zero-shot accuracy that explanations of the last layers' heads recover, by number of texts per head."""

import pandas as pd

from clipspectra.arrays import save_table, split_names, with_source
from clipspectra.contributions.stored import StoredActivations
from clipspectra.data.datasets import class_labels
from clipspectra.evaluation.recovery import Recovery, recovered_accuracy
from clipspectra.explanations.head import load_explanations
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        params, inputs, wildcards = snakemake.params, snakemake.input, snakemake.wildcards
        stored = StoredActivations(inputs.shards, inputs.basis, inputs.images, params.protocol)
        images = stored.images
        classifier, labels = class_labels(inputs.classes, images, wildcards.dataset)
        layers = stored.layers[-params.last_layers :]
        heads = [(layer, head) for layer in layers for head in range(stored.heads)]
        tables = []
        for method, path in zip(params.methods, inputs.explanations):
            recovery = Recovery(load_explanations(path, heads), stored.basis, params.budgets)
            table = recovered_accuracy(stored, recovery, layers, classifier, labels, mlps=params.mlps)
            tables.append(with_source(table, {"method": method}))
        source = {key: wildcards[key] for key in ("model", "dataset", "seed", "texts")}
        source["split"] = split_names(images[stored.scored])
        source |= {"layers": f"{layers[0]}–{layers[-1]}", "mlps": params.mlps}
        source |= {"protocol": params.protocol, "images": int(stored.scored.sum())}
        save_table(snakemake.output[0], with_source(pd.concat(tables, ignore_index=True), source))
