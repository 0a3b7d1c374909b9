"""Spectra of the heads: how their variance adds up over components."""

from clipspectra.arrays import load_table
from clipspectra.figures import curves, drawing
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        wildcards, images = snakemake.wildcards, load_table(snakemake.input.images)
        figure = curves.spectra(
            load_table(snakemake.input.factors),
            title=f"Spectra of the heads of {wildcards.model} on {wildcards.dataset}",
            footer=drawing.provenance(wildcards, images, snakemake.params.protocol)
            + "\ncomponents and their variance: from the fit images",
        )
        drawing.save(figure, *snakemake.output)
