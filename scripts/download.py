"""A file from the web, complete and checked."""

from clipspectra.data.downloads import fetch
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        fetch(snakemake.params.url, snakemake.output[0], snakemake.params.digest, log)
        log(f"fetched {snakemake.params.url}")
