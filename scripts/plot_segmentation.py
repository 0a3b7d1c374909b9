"""Figure of segmentation examples with a table of all methods' scores."""

import json

from clipspectra.arrays import load_arrays, load_table
from clipspectra.figures import drawing, maps
from clipspectra.jobs import job

CLASSES = {"top1": "for the model's own top-1 class", "label": "for the true class"}

if __name__ == "__main__":
    with job(snakemake.log[0]):
        arrays, metadata = load_arrays(snakemake.input.examples)
        scores = load_table(snakemake.input.scores)
        figure = maps.segmentation_examples(
            arrays["pictures"],
            arrays["masks"],
            arrays["maps"],
            arrays["predictions"],
            json.loads(metadata["kinds"]),
            scores[scores["resolution"] == "model"],
            title=f"Zero-shot segmentation with {snakemake.wildcards.model}: {metadata['method']}, {metadata['given']}",
            footer=drawing.provenance(snakemake.wildcards, load_table(snakemake.input.images))
            + f" · {CLASSES[metadata['target']]}",
        )
        drawing.save(figure, *snakemake.output)
