"""From results to a paper: what was run, the main findings, the typeset pages, and an archive of it all.

study describes a study as one small dict, findings says in sentences what its tables show, typesetting makes the
paper's pages, report completes Snakemake's report, archive packs what a submission needs. None computes a result.
"""
