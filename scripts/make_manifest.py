"""The manifest of a dataset of one's own: from a folder of class folders, or from a manifest CSV."""

from pathlib import Path
from typing import TYPE_CHECKING

from clipspectra.arrays import save_table
from clipspectra.datasets import folder_manifest, own_manifest
from clipspectra.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        folder = snakemake.params.folder
        table = folder_manifest(folder) if folder else own_manifest(Path(snakemake.input.own))
        save_table(snakemake.output.manifest, table)
        log(f"{len(table)} images of {table['class'].nunique()} classes")
