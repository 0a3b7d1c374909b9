"""The manifest of the user's own dataset: from a folder of class folders, or from a manifest CSV."""

from pathlib import Path

from clipspectra.arrays import save_table
from clipspectra.data.datasets import folder_manifest, left_out, own_manifest
from clipspectra.jobs import job, warn

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        folder = snakemake.params.folder
        table = folder_manifest(folder) if folder else own_manifest(Path(snakemake.input.own))
        if folder:
            pictures, endings = left_out(folder)
            counts = ", ".join(f"{count} {ending}" for ending, count in sorted(endings.items()))
            log(f"left out: {counts or 'nothing'}")
            if pictures:
                warn(
                    log,
                    f"{len(pictures)} pictures of {folder} are left out, the first {pictures[0]}: they lie beside the "
                    "class folders, or are of an unsupported kind (convert them to JPEG or PNG).",
                )
        save_table(snakemake.output.manifest, table)
        log(f"{len(table)} images of {table['class'].nunique()} classes")
