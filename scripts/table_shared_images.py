"""How many images two roles share, so are not really held out, and how many two seeds share, so are no samples."""

import numpy as np
import pandas as pd

from clipspectra.arrays import first_row, save_table, table_chunks
from clipspectra.jobs import job
from clipspectra.on_disk import common


def digests_of(path, role):
    """Yield the digests of a seed's images of a role."""
    for chunk in table_chunks(path):
        yield from chunk["image_sha256"][chunk["role"] == role]


def shared_with_others(numbers):
    """Mean share, in %, of each set that each other set has; NaN without others, or without images.

    numbers: of what each two sets have in common, see on_disk.common
    """
    shares = [np.delete(100 * row / row[own], own) if row[own] else np.zeros(0) for own, row in enumerate(numbers)]
    return [np.mean(of_set) if len(of_set) else np.nan for of_set in shares]


if __name__ == "__main__":
    with job(snakemake.log[0]):
        inputs, rows = snakemake.input, []
        sources = pd.DataFrame(snakemake.params.sources, columns=["dataset", "seed"])
        for _, of_dataset in sources.assign(images=inputs.images, shared=inputs.shared).groupby("dataset", sort=False):
            columns = {"dataset": of_dataset["dataset"].tolist(), "seed": of_dataset["seed"].tolist()}
            for role in ("fit", "eval"):
                numbers = common(digests_of(path, role) for path in of_dataset["images"])
                columns[f"{role}_images"] = numbers.diagonal()
                columns[f"{role}_in_other_seeds"] = shared_with_others(numbers)
            counts, first = zip(*map(first_row, of_dataset["shared"]))
            columns["shared_images"] = counts
            for key in ("image", "role", "same_as", "its_role"):
                columns[key] = [row.get(key, "") for row in first]
            rows.append(pd.DataFrame(columns))
        save_table(snakemake.output[0], pd.concat(rows))
