"""The images that one seed uses, and what for."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from clipspectra.arrays import save_table
from clipspectra.datasets import choose_rows, read_manifest, shared_images
from clipspectra.jobs import job, warn

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        rows = choose_rows(
            read_manifest(snakemake.input.manifest), snakemake.params.roles, int(snakemake.wildcards.seed)
        )
        shared = shared_images(rows, Path(snakemake.input.manifest).parent)
        if len(shared):
            warn(
                log,
                f"{snakemake.wildcards.dataset}, seed {snakemake.wildcards.seed}: {len(shared)} pictures have the same "
                f"content as one with another role, the first {shared['image'][0]} ({shared['role'][0]}) as "
                f"{shared['same_as'][0]} ({shared['its_role'][0]}); see results/tables/shared-images.csv.",
            )
        save_table(snakemake.output.shared, shared)
        save_table(snakemake.output.images, rows)
        counts = rows.groupby(["role", "class"]).size().unstack(fill_value=0)
        for role, rule in snakemake.params.roles.items():
            fewest = counts.loc[role].min()
            if rule["per_class"] != "all" and fewest < rule["per_class"]:
                short = f"{role}: a class has {fewest} images where per_class asks for {rule['per_class']}"
                print(f"Note, {snakemake.wildcards.dataset}: {short}", file=sys.stderr)
        log(counts.T.to_string())
