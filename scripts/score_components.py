"""What moves each component: the variance of its scores by factor, the images at its poles, and what its texts name."""

import numpy as np
import pandas as pd

from clipspectra.arrays import load_table, save_table, split_names, with_source
from clipspectra.contributions.stored import StoredActivations
from clipspectra.evaluation.accuracy import component_scores, eta_squared, extreme_values
from clipspectra.evaluation.labels import factor_vocabulary, hit_rates
from clipspectra.explanations.catalogue import GIVEN
from clipspectra.explanations.head import load_explanations
from clipspectra.jobs import job, progress

POLE_IMAGES = 8


def factor_columns(scores, table, factors):
    """For each factor its η², and the values with the highest and the lowest mean score: columns [component]."""
    columns = {}
    for factor in factors:
        values = table[factor].astype(str).to_numpy()
        columns[f"eta2_{factor}"] = eta_squared(scores, values)
        columns[f"high_{factor}"], columns[f"low_{factor}"] = extreme_values(scores, values)
    return columns


def pole_images(scores, images, unit):
    """Table rows of the images with the highest and lowest scores of each component of a head (unit)."""
    order = np.argsort(-scores, axis=0, kind="stable")
    for component in range(scores.shape[1]):
        for pole, rows in (("top", order[:POLE_IMAGES]), ("bottom", order[::-1][:POLE_IMAGES])):
            for place, row in enumerate(rows[:, component]):
                image = {"pole": pole, "place": place, "image": images[row], "score": scores[row, component]}
                yield unit | {"component": component} | image


if __name__ == "__main__":
    with job(snakemake.log[0]):
        inputs, params, wildcards = snakemake.input, snakemake.params, snakemake.wildcards
        stored = StoredActivations(inputs.shards, inputs.basis, inputs.images, params.protocol)
        table = stored.images[stored.scored].reset_index(drop=True)
        factors, poles = [], []
        explanations = load_explanations(inputs.components)
        for (layer, head), explanation in progress(explanations.items(), "component scores", unit="head"):
            rows, basis = stored.rows_and_basis(layer, head)
            scores = component_scores(rows[stored.scored], basis, explanation.components, explanation.mean)
            unit, variance = {"layer": layer, "head": head}, scores.var(0)
            share = variance / max(variance.sum(), np.finfo(float).tiny)
            columns = unit | {"component": np.arange(scores.shape[1]), "variance": variance, "share": share}
            factors.append(pd.DataFrame(columns | factor_columns(scores, table, params.factors)))
            poles += pole_images(scores, table["image"], unit)
        factors = pd.concat(factors, ignore_index=True)
        save_table(snakemake.output.factors, factors)
        save_table(snakemake.output.images, pd.DataFrame(poles))
        if "labels" in snakemake.output.keys():
            source = {key: wildcards[key] for key in ("model", "dataset", "seed", "texts")}
            source |= {"split": split_names(table), "images": len(table)}
            vocabulary, rates = factor_vocabulary(stored.images, params.factors), []
            for method, path in zip(params.methods, inputs.explanations):
                rng = np.random.default_rng(int(wildcards.seed))
                hits = hit_rates(load_table(path), factors, vocabulary, rng=rng)
                rates.append(with_source(hits, {"method": method, "given": GIVEN[method]}))
            save_table(snakemake.output.labels, with_source(pd.concat(rates, ignore_index=True), source))
