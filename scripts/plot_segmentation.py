"""Segmentation examples with the table of scores."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from clipspectra import plots
from clipspectra.arrays import load_arrays, load_table
from clipspectra.datasets import open_picture
from clipspectra.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake.log[0]):
        arrays, metadata = load_arrays(snakemake.input.examples)
        root = Path(snakemake.input.manifest).parent
        figure = plots.segmentation_examples(
            [open_picture(root / name).convert("RGB") for name in json.loads(metadata["images"])],
            arrays["masks"],
            arrays["maps"],
            arrays["predictions"],
            load_table(snakemake.input.scores).to_dict("records"),
            title=f"Zero-shot segmentation with {snakemake.wildcards.model}, evidence for its own top-1 class",
            footer=plots.provenance(snakemake.wildcards, load_table(snakemake.input.images)),
        )
        plots.save(figure, *snakemake.output)
