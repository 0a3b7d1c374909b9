"""How many images of each seed have the same content as an image with another role, so are not really held out."""

import pandas as pd

from clipspectra.arrays import load_table, save_table
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        rows = []
        for path, (dataset, seed) in zip(snakemake.input, snakemake.params.sources):
            shared = load_table(path)
            first = shared.iloc[0] if len(shared) else {}
            row = {"dataset": dataset, "seed": seed, "shared_images": len(shared)}
            rows.append(row | {key: first.get(key, "") for key in ("image", "role", "same_as", "its_role")})
        save_table(snakemake.output[0], pd.DataFrame(rows))
