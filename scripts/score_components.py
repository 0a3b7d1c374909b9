"""What moves each component on the eval rows: its scores' variance by factor, and the images at its poles."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.activations import StoredActivations
from clipspectra.arrays import load_arrays, load_table, save_table
from clipspectra.evaluate import component_scores, eta_squared
from clipspectra.jobs import job, progress

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

POLE_IMAGES = 8

if __name__ == "__main__":
    with job(snakemake.log[0]):
        stored = StoredActivations(snakemake.input.shards, snakemake.input.basis)
        table = stored.of_table(load_table(snakemake.input.images))[~stored.fit].reset_index(drop=True)
        for factor in snakemake.params.factors:
            if factor not in table.columns:
                raise InputError(f"The config has '{factor}' under factors, but the manifest has no such column.")
        factors, poles = [], []
        for layer in progress(stored.layers, "component scores", unit="layer"):
            for head in range(stored.heads):
                names = f"components.{layer}.{head}", f"mean.{layer}.{head}"
                arrays, _ = load_arrays(snakemake.input.components, *names)
                q = np.concatenate(list(stored.reduced(layer, head)))[~stored.fit]
                scores = component_scores(q, stored.basis[layer, head], *(arrays[name] for name in names))
                variance = scores.var(0)
                where = {"layer": layer, "head": head}
                eta = {factor: eta_squared(scores, table[factor].to_numpy()) for factor in snakemake.params.factors}
                for component in range(scores.shape[1]):
                    of = where | {"component": component}
                    share = variance[component] / max(variance.sum(), np.finfo(float).tiny)
                    moved = {f"eta2_{factor}": values[component] for factor, values in eta.items()}
                    factors.append(of | {"variance": variance[component], "share": share} | moved)
                    order = np.argsort(-scores[:, component], kind="stable")
                    for pole, rows in (("top", order[:POLE_IMAGES]), ("bottom", order[::-1][:POLE_IMAGES])):
                        poles += [
                            of
                            | {
                                "pole": pole,
                                "place": place,
                                "image": table["image"][row],
                                "score": scores[row, component],
                            }
                            for place, row in enumerate(rows)
                        ]
        save_table(snakemake.output.factors, pd.DataFrame(factors))
        save_table(snakemake.output.images, pd.DataFrame(poles))
