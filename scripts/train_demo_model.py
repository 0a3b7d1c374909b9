"""A demo model, trained from a seed."""

import json
from pathlib import Path

import pandas as pd

from clipspectra.arrays import save_arrays, save_table, versions
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        from clipspectra.demo import training

        recipe = snakemake.params.recipe
        config = json.loads(Path(snakemake.input.config).read_text())
        state, history = training.train(config, start=snakemake.input.get("start") or None, **recipe)
        arrays = {name: value.numpy() for name, value in state.items()}
        save_arrays(snakemake.output.weights, arrays, {"recipe": recipe} | versions("torch", "open_clip_torch"))
        save_table(snakemake.output.history, pd.DataFrame(history))
