"""From results to a paper: what was run, the main findings, the typeset pages, and an archive of it all.

study describes a study as one small dict, findings says in sentences what its tables show, typesetting makes the pages,
archive packs what a submission needs. All of them read tables; none computes a result.
"""
