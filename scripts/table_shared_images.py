"""How many images two roles share, so are not really held out, and how many two seeds share, so are no samples."""

import numpy as np
import pandas as pd

from clipspectra.arrays import load_table, save_table
from clipspectra.jobs import job


def shared_with_others(own, others):
    """Mean share, in %, of a set of images that each of the other sets has; NaN without others, or without images."""
    return np.mean([100 * len(own & other) / len(own) for other in others]) if own and others else np.nan


if __name__ == "__main__":
    with job(snakemake.log[0]):
        sources = [tuple(source) for source in snakemake.params.sources]
        images = {}  # {(dataset, seed): {role: digests of its images}}
        for source, path in zip(sources, snakemake.input.images):
            by_role = load_table(path).groupby("role")["image_sha256"]
            images[source] = {role: set(digests) for role, digests in by_role}
        rows = []
        for (dataset, seed), path in zip(sources, snakemake.input.shared):
            shared, row = load_table(path), {"dataset": dataset, "seed": seed}
            for role in ("fit", "eval"):
                of_seeds = {key[1]: by_role.get(role, set()) for key, by_role in images.items() if key[0] == dataset}
                own = of_seeds.pop(seed)
                row |= {f"{role}_images": len(own)}
                row |= {f"{role}_in_other_seeds": shared_with_others(own, list(of_seeds.values()))}
            row["shared_images"] = len(shared)
            first = shared.iloc[0] if len(shared) else {}
            rows.append(row | {key: first.get(key, "") for key in ("image", "role", "same_as", "its_role")})
        save_table(snakemake.output[0], pd.DataFrame(rows))
