"""Segmentation examples with the table of scores."""

from typing import TYPE_CHECKING

from clipspectra import plots
from clipspectra.arrays import load_arrays, load_table
from clipspectra.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake.log[0]):
        arrays, _ = load_arrays(snakemake.input.examples)
        figure = plots.segmentation_examples(
            arrays["pictures"],
            arrays["masks"],
            arrays["maps"],
            arrays["predictions"],
            load_table(snakemake.input.scores).to_dict("records"),
            title=f"Zero-shot segmentation with {snakemake.wildcards.model}, evidence for its own top-1 class",
            footer=plots.provenance(snakemake.wildcards, load_table(snakemake.input.images)),
        )
        plots.save(figure, *snakemake.output)
