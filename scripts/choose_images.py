"""The images that one seed uses, and their roles."""

from pathlib import Path

import pandas as pd

from clipspectra.arrays import first_row, save_pieces, table_chunks
from clipspectra.data.choosing import ChosenRows, check_requirements, shared_images
from clipspectra.data.datasets import Manifest, with_digests
from clipspectra.data.pairs import check_pairs
from clipspectra.jobs import job, warn

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        params, dataset, seed = snakemake.params, snakemake.wildcards.dataset, snakemake.wildcards.seed
        inputs, outputs = snakemake.input, snakemake.output
        manifest, root = Manifest(inputs.manifest), Path(inputs.manifest).parent
        if params.pairs:
            paired = (piece[piece["pair"] != ""] if "pair" in piece else piece[:0] for piece in manifest)
            check_pairs(pd.concat(paired), params.factors, dataset)
        chosen = ChosenRows(manifest, params.roles, int(seed), params.pairs)
        check_requirements(chosen, params.factors, params.masks, dataset)  # hours before they are used
        save_pieces(outputs.images, (with_digests(piece, root) for piece in chosen))
        save_pieces(outputs.shared, shared_images(table_chunks(outputs.images)))
        count, first = first_row(outputs.shared)
        if count:
            warn(
                log,
                f"{dataset}, seed {seed}: {count} pictures have the same content as one of another role, the "
                f"first {first['image']} ({first['role']}) as {first['same_as']} ({first['its_role']}); see "
                "results/tables/shared-images.csv.",
            )
        for role, rule in params.roles.items():
            fewest = chosen.counts.loc[role].min()
            if rule["per_class"] != "all" and fewest < rule["per_class"]:
                problem = f"{role}: a class has {fewest} images, but per_class is {rule['per_class']}"
                warn(log, f"{dataset}, {problem}; all of them are used.")
        log(chosen.counts.sort_index().T.to_string())
