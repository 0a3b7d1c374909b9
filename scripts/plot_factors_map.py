"""Map of factors: how much of a component of each head each factor explains."""

from clipspectra.arrays import load_table
from clipspectra.figures import drawing, heads
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        wildcards, images = snakemake.wildcards, load_table(snakemake.input.images)
        figure = heads.factors_map(
            load_table(snakemake.input.factors),
            snakemake.params.factors,
            title=f"What moves components of {wildcards.model} on {wildcards.dataset}, factor by factor",
            footer=drawing.provenance(wildcards, images, snakemake.params.protocol)
            + "\nη²: share of a component's variance over the eval images; of each head's first ten, the largest",
        )
        drawing.save(figure, *snakemake.output)
