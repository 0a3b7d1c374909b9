"""The typeset paper, from its source, the tables, the figures and the description of the study."""

from clipspectra.jobs import job
from clipspectra.paper.typesetting import typeset

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        for warning in typeset(snakemake.params.source, "results", snakemake.output[0]):
            log(f"Typst: {warning}")
