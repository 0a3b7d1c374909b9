"""Contents of each text pool, for each model: texts kept, dropped and too long."""

import json

import pandas as pd

from clipspectra.arrays import load_arrays, save_table
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        rows = []
        for path in snakemake.input:
            metadata = load_arrays(path, "features")[1]
            dropped, too_long = json.loads(metadata["dropped"]), json.loads(metadata["too_long"])
            row = {"model": metadata["model"], "texts": metadata["pool"], "count": len(json.loads(metadata["texts"]))}
            row |= dropped | {"too_long": len(too_long), "first_too_long": (too_long or [""])[0]}
            rows.append(row)
        save_table(snakemake.output[0], pd.DataFrame(rows))
