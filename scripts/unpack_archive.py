"""The pictures and the manifest of a dataset, from its published archives."""

from pathlib import Path

from clipspectra import InputError
from clipspectra.arrays import save_table
from clipspectra.data.archives import ACCESS_NOTES, SOURCES, check_complete
from clipspectra.data.downloads import check_digest
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        if snakemake.params.missing:
            key, path = next(iter(snakemake.params.missing.items()))
            raise InputError(f"Config, {key}: {path} is not there.{ACCESS_NOTES.get(snakemake.params.source, '')}")
        files = {name: Path(path) for name, path in snakemake.input.items()}
        for name, path in files.items():
            check_digest(path, snakemake.params.digests[name])
        folder = Path(snakemake.output.images)
        table = SOURCES[snakemake.params.source](files, folder)
        check_complete(table, snakemake.wildcards.dataset)
        save_table(snakemake.output.manifest, table)
        log(f"{len(table)} pictures of {table['class'].nunique()} classes")
