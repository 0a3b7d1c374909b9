"""The typeset paper, from its source, the tables, the figures and the description of the study."""

from pathlib import Path

from clipspectra.figures.lettering import check_fonts
from clipspectra.jobs import job
from clipspectra.paper.typesetting import typeset

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        inputs = snakemake.input
        for warning in typeset(inputs.main, Path(inputs.study).parent, snakemake.output[0]):
            log(f"Typst: {warning}")
        for path in (inputs.study, *inputs.tables, *inputs.topics):
            check_fonts(Path(path).read_text(encoding="utf-8"))
