"""The report: Snakemake's own, completed by what was run and found, and by links between captions."""

import json
import os
from pathlib import Path

from clipspectra.jobs import job
from clipspectra.paper.report import complete_report, completed_page

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        study = json.loads(Path(snakemake.input.study).read_text(encoding="utf-8"))
        repository = os.path.dirname(os.path.abspath(snakemake.scriptdir))
        log(f"{len(study['findings'])} findings, {len(study['models'])} models, {len(study['datasets'])} datasets")
        bare, target = Path(snakemake.input.bare), Path(snakemake.output[0])
        copies = bare.parents[2]  # of a bucket's results; else the working directory
        places = [repository, *([str(copies)] if copies.name else [])]
        about = [study, snakemake.params.categories, snakemake.params.see_also, places]
        complete_report(bare, target, lambda page: completed_page(page, *about))
