"""The images that one seed uses, and their roles."""

from pathlib import Path

import pandas as pd

from clipspectra.arrays import save_table
from clipspectra.data.datasets import check_requirements, choose_rows, read_manifest, shared_images, with_digests
from clipspectra.data.pairs import take_pairs
from clipspectra.jobs import job, warn


def count_images(rows, classes):
    """Number of images of each role and class, also of classes that have none: table [role, class]."""
    counts = rows.groupby(["role", "class"]).size().unstack(fill_value=0)
    return counts.reindex(columns=sorted(set(classes)), fill_value=0)


if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        params, dataset, seed = snakemake.params, snakemake.wildcards.dataset, snakemake.wildcards.seed
        manifest = read_manifest(snakemake.input.manifest)
        others, pairs = take_pairs(manifest, params.factors, dataset) if params.pairs else (manifest, None)
        rows = choose_rows(others, params.roles, int(seed))
        if params.pairs:  # all of them, whatever the seed
            rows = pd.concat([rows, pairs.reset_index(names="row")], ignore_index=True)
        check_requirements(rows, params.factors, params.masks, dataset)  # hours before they are used
        rows = with_digests(rows, Path(snakemake.input.manifest).parent)
        shared = shared_images(rows)
        if len(shared):
            warn(
                log,
                f"{dataset}, seed {seed}: {len(shared)} pictures have the same content as one of another role, the "
                f"first {shared['image'][0]} ({shared['role'][0]}) as {shared['same_as'][0]} "
                f"({shared['its_role'][0]}); see results/tables/shared-images.csv.",
            )
        save_table(snakemake.output.shared, shared)
        save_table(snakemake.output.images, rows)
        counts = count_images(rows, manifest["class"])
        for role, rule in params.roles.items():
            fewest = counts.loc[role].min()
            if rule["per_class"] != "all" and fewest < rule["per_class"]:
                problem = f"{role}: a class has {fewest} images, but per_class is {rule['per_class']}"
                warn(log, f"{dataset}, {problem}; all of them are used.")
        log(counts.T.to_string())
