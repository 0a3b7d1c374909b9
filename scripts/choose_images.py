"""The images that one seed uses, and what for."""

import sys
from typing import TYPE_CHECKING

from clipspectra.arrays import save_table
from clipspectra.datasets import choose_rows, read_manifest
from clipspectra.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        rows = choose_rows(
            read_manifest(snakemake.input.manifest), snakemake.params.roles, int(snakemake.wildcards.seed)
        )
        save_table(snakemake.output.images, rows)
        counts = rows.groupby(["role", "class"]).size().unstack(fill_value=0)
        for role, rule in snakemake.params.roles.items():
            fewest = counts.loc[role].min()
            if rule["per_class"] != "all" and fewest < rule["per_class"]:
                short = f"{role}: a class has {fewest} images where per_class asks for {rule['per_class']}"
                print(f"Note, {snakemake.wildcards.dataset}: {short}", file=sys.stderr)
        log(counts.T.to_string())
