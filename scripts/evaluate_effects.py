"""Direct effect of each head and MLP on the eval rows, and the accuracy lost with each one at its mean."""

import json

from clipspectra.arrays import load_arrays, load_table, save_table, with_source
from clipspectra.contributions.stored import StoredActivations
from clipspectra.data.datasets import class_indices
from clipspectra.evaluation.effects import direct_effects
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        stored = StoredActivations(snakemake.input.shards, snakemake.input.basis, snakemake.params.protocol)
        images = stored.extracted_rows(load_table(snakemake.input.images))
        classes, metadata = load_arrays(snakemake.input.classes, "class")
        labels = class_indices(images, "class", json.loads(metadata["values"])["class"], snakemake.wildcards.dataset)
        effects = direct_effects(stored, classes["class"].astype("float64"), labels)
        source = {key: snakemake.wildcards[key] for key in ("model", "dataset", "seed")}
        source |= {"split": "+".join(sorted(set(images["split"][stored.scored]))), "images": int(stored.scored.sum())}
        save_table(snakemake.output[0], with_source(effects, source))
