"""Settings that every model was loaded with: preprocessing, activation, tokenizer, sizes, and their sources."""

import json

import pandas as pd

from clipspectra.arrays import load_arrays, save_table
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        rows = []
        for path in snakemake.input:
            metadata = load_arrays(path, "basis")[1]
            rows.append({"model": metadata["model"]} | json.loads(metadata["used"]))
        save_table(snakemake.output[0], pd.DataFrame(rows))
