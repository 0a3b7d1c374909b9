"""Heads map: each head's variance in its first components, and the factor that explains most of it."""

from clipspectra.arrays import load_table
from clipspectra.figures import drawing, heads
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        figure = heads.heads_map(
            load_table(snakemake.input.factors),
            snakemake.params.factors,
            title=f"What the heads of {snakemake.wildcards.model} hold on {snakemake.wildcards.dataset}",
            footer=drawing.provenance(
                snakemake.wildcards, load_table(snakemake.input.images), snakemake.params.protocol
            ),
        )
        drawing.save(figure, *snakemake.output)
