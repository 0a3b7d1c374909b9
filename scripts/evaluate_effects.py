"""Direct effect of each head and MLP on the eval rows, and the accuracy lost with each one at its mean."""

from clipspectra.arrays import save_table, split_names, with_source
from clipspectra.contributions.stored import StoredActivations
from clipspectra.data.datasets import class_labels
from clipspectra.evaluation.effects import direct_effects
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        inputs = snakemake.input
        stored = StoredActivations(inputs.shards, inputs.basis, inputs.images, snakemake.params.protocol)
        images = stored.images
        classifier, labels = class_labels(inputs.classes, images, snakemake.wildcards.dataset)
        effects = direct_effects(stored, classifier.astype("float64"), labels)
        source = {key: snakemake.wildcards[key] for key in ("model", "dataset", "seed")}
        source |= {"split": split_names(images[stored.scored]), "images": int(stored.scored.sum())}
        save_table(snakemake.output[0], with_source(effects, source))
