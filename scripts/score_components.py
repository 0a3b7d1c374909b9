"""What moves each component: the variance of its scores by factor, the images at its poles, and what its texts name."""

import numpy as np
import pandas as pd

from clipspectra.arrays import load_table, save_table, split_names, with_source
from clipspectra.contributions.kept import open_stored
from clipspectra.evaluation.accuracy import eta_squared, extreme_values
from clipspectra.evaluation.clearest import UNIT, candidates, distinct, factor_features, monosemanticity
from clipspectra.evaluation.labels import factor_vocabulary, hit_rates
from clipspectra.explanations.catalogue import GIVEN
from clipspectra.explanations.head import load_explanations, scores_by_head
from clipspectra.explanations.spectral import falling, pole_rows
from clipspectra.jobs import job

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
    for component, pole, rows in pole_rows(scores, falling(scores), POLE_IMAGES):
        for place, row in enumerate(rows):
            image = {"pole": pole, "place": place, "image": images[row], "score": scores[row, component]}
            yield unit | {"component": component} | image


def similarity_features(table, factors, other):
    """(features [image, feature] whose products are the similarities of images, what these are of); None, "" without.

    other: (name, StoredActivations) of another model on the same images, where factors are unknown; else None
    """
    if factors:
        return factor_features(table, factors), "factors"
    if other is None:
        return None, ""
    name, stored = other
    embeddings = stored.embeddings_of(table["row"])
    return (None, "") if embeddings is None else (embeddings, f"embeddings of {name}")


def component_table(stored, explanations, factors, other):
    """(table of all components: variance, factors, monosemanticity; table of the images at their poles)."""
    table, tables, poles = stored.images[stored.scored].reset_index(drop=True), [], []
    features, similarity = similarity_features(table, factors, other)
    for (layer, head), scores in scores_by_head(stored, explanations):
        unit, variance = {"layer": layer, "head": head}, scores.var(0)
        share = variance / max(variance.sum(), np.finfo(float).tiny)
        columns = unit | {"component": np.arange(scores.shape[1]), "variance": variance, "share": share}
        columns |= factor_columns(scores, table, factors)
        if features is not None:
            top, bottom, by_chance = monosemanticity(scores, features)
            columns |= {"monosemanticity_top": top, "monosemanticity_bottom": bottom}
            columns |= {"monosemanticity_by_chance": by_chance, "similarity": similarity}
        tables.append(pd.DataFrame(columns))
        poles += pole_images(scores, table["image"], unit)
    return pd.concat(tables, ignore_index=True), pd.DataFrame(poles)


def clearest_components(stored, explanations, factors, names, factor_names):
    """The components to show first, rows of the table of factors, with the factor that explains most of each."""
    table = candidates(names, factors)
    wanted = {unit: rows["component"].to_numpy() for unit, rows in table.groupby(["layer", "head"])}
    chosen = {unit: explanation for unit, explanation in explanations.items() if unit in wanted}
    scores = {(*unit, c): s[:, c] for unit, s in scores_by_head(stored, chosen) for c in wanted[unit]}
    order = [tuple(row) for row in table[UNIT].to_numpy()]
    if order:
        texts = names.groupby(UNIT)["text"].agg(set).to_dict()
        chosen = distinct(np.stack([scores[unit] for unit in order], axis=1), [texts[unit] for unit in order])
        table = table.iloc[chosen].copy()
    if factor_names:
        eta2 = table[[f"eta2_{factor}" for factor in factor_names]].to_numpy()
        table["factor"], table["eta2"] = np.array(factor_names)[eta2.argmax(1)], eta2.max(1)
    return table


if __name__ == "__main__":
    with job(snakemake.log[0]):
        inputs, params, wildcards = snakemake.input, snakemake.params, snakemake.wildcards
        stored = open_stored(inputs, params.protocol)
        other = None
        if params.other:
            other = params.other, open_stored(inputs, params.protocol, of="other_")
        explanations = load_explanations(inputs.components)
        factors, poles = component_table(stored, explanations, params.factors, other)
        save_table(snakemake.output.factors, factors)
        save_table(snakemake.output.images, poles)
        names = load_table(inputs.names).query("place == 0 and naming == @params.naming")
        clearest = clearest_components(stored, explanations, factors, names, list(params.factors))
        save_table(snakemake.output.clearest, clearest.assign(naming=params.naming))
        if "labels" in snakemake.output.keys():
            table = stored.images[stored.scored]
            source = {key: wildcards[key] for key in ("model", "dataset", "seed", "texts")}
            source |= {"split": split_names(table), "images": len(table)}
            vocabulary, rates = factor_vocabulary(stored.images, params.factors), []
            for method, path in zip(params.methods, inputs.explanations):
                rng = np.random.default_rng(int(wildcards.seed))
                for naming, texts in load_table(path).groupby("naming", sort=False):
                    hits = hit_rates(texts, factors, vocabulary, rng=rng)
                    rates.append(with_source(hits, {"method": method, "naming": naming, "given": GIVEN[method]}))
            save_table(snakemake.output.labels, with_source(pd.concat(rates, ignore_index=True), source))
