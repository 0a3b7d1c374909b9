"""What a basis fitted on one dataset gives on another: accuracy recovered, variance held, names kept."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd

from clipspectra.arrays import load_arrays, load_metadata, save_table, split_names, with_source
from clipspectra.contributions.stored import StoredActivations
from clipspectra.data.datasets import class_labels
from clipspectra.evaluation.intervals import holm
from clipspectra.evaluation.recovery import paired_differences, recovered_accuracy
from clipspectra.evaluation.transfer import (
    SETTINGS,
    check_alike,
    head_measures,
    kept_by_budget,
    kept_texts,
    names_by_pole,
    over_heads,
    with_components,
)
from clipspectra.explanations.head import load_explanations
from clipspectra.explanations.methods import control_draws
from clipspectra.jobs import job, progress

# Columns of accuracy, which needs classes: blank without.
ACCURACIES = [f"{score}{end}" for score in ("top1", "top5", "cosine", "against_own") for end in ("", "_low", "_high")]
ACCURACIES += ["top1_draws_low", "top1_draws_high", "p", "p_holm"]


def random_bases(stored, layers, features, means, seed):
    """Draws of the random basis, directions of the span of the fit images: {("random", of): draws about means of `of`}.

    means: {of: {(layer, head): HeadExplanation}}
    """
    heads = {(layer, head): moments for layer in layers for head, moments in enumerate(stored.fit_moments(layer))}
    draws = control_draws("random_directions", heads, features, seed=seed)
    return {
        ("random", of): [
            {unit: replace(explanation, mean=of_unit[unit].mean) for unit, explanation in draw.items()}
            for draw in draws
        ]
        for of, of_unit in means.items()
    }


def variance_of_heads(stored, explanations, draws, budgets, seed):
    """head_measures of all stored heads on the images scored, of random bases as far as there are draws."""
    tables = []
    for layer in progress(stored.layers, "variance held", unit="layer"):
        for head, moments in enumerate(stored.moments(layer, stored.scored)):
            bases = {name: [of_basis[layer, head].components] for name, of_basis in explanations.items()}
            if (layer, head) in draws[0]:
                bases["random"] = [draw[layer, head].steps for draw in draws]
            rng = np.random.default_rng([seed, layer, head])
            tables.append(with_source(head_measures(bases, moments, budgets, rng), {"layer": layer, "head": head}))
    return pd.concat(tables, ignore_index=True)


def accuracies(stored, settings, layers, path, params):
    """Table of the accuracy that each basis recovers about each means, one row per budget; blank without classes.

    stored: {"own", "travelled"}: StoredActivations; settings: {(basis, means): draws}, ("own", "own") first
    path: of the classifiers, None without
    """
    budgets = params.budgets
    if path is None:
        keys = [(*key, budget, len(draws)) for key, draws in settings.items() for budget in budgets]
        return pd.DataFrame(keys, columns=["basis", "means", "budget", "draws"]).reindex(columns=COLUMNS)
    own, tables, reference = stored["own"], [], None
    classes = class_labels(path, own.images, params.datasets["to"])
    means = {name: images.fit_means() for name, images in stored.items()}
    for (basis, of), draws in settings.items():
        options = {"mlps": params.mlps, "means": means[of]}
        table, correct = recovered_accuracy(own, draws, budgets, layers, *classes, **options)
        reference = correct[0] if reference is None else reference
        if basis not in ("own", "random"):
            table = pd.concat([table, paired_differences(correct[0], reference, of="own")], axis=1)
        tables.append(with_source(table, {"basis": basis, "means": of}))
    table = pd.concat(tables, ignore_index=True).reindex(columns=COLUMNS)
    compared = table["p"].notna() & (table["budget"] > 0)  # without components all bases are the same
    table.loc[compared, "p_holm"] = holm(table.loc[compared, "p"])
    return table


COLUMNS = ["basis", "means", "budget", "draws", *ACCURACIES]

if __name__ == "__main__":
    with job(snakemake.log[0], "transfer.{transfer}, {model}, seed {seed}".format(**snakemake.wildcards)):
        params, inputs, wildcards = snakemake.params, snakemake.input, snakemake.wildcards
        seed, budgets = int(wildcards.seed), params.budgets
        own = StoredActivations(inputs.shards, inputs.basis, inputs.images, params.protocol)
        travelled = StoredActivations(inputs.travelled_shards, inputs.basis, inputs.travelled_images, params.protocol)
        stored = {"own": own, "travelled": travelled}
        files = [inputs[name] for name in ("own", "travelled", "weights")]
        check_alike(own, travelled, {path: load_metadata(path) for path in files})
        layers, units = (
            own.layers[-params.last_layers :],
            [(layer, head) for layer in own.layers for head in range(own.heads)],
        )
        explanations = {name: load_explanations(inputs[name], units) for name in ("own", "travelled", "weights")}
        arrays, metadata = load_arrays(inputs.texts, "features")
        features, texts = arrays["features"], np.array([*json.loads(metadata["texts"]), ""], object)  # -1: no name

        bases = {(basis, of): with_components(explanations[basis], explanations[of]) for basis, of in SETTINGS}
        means = {of: explanations[of] for of in ("travelled", "own")}
        random = random_bases(own, layers, features, means, seed)
        heads = variance_of_heads(own, explanations, random["random", "own"], budgets, seed)
        names, given, there = names_by_pole(stored, bases, features, params.texts_per_pole)
        kept, overlaps = kept_texts(given, there)
        replaced = names["layer"].isin(layers)

        settings = {key: [of_basis] for key, of_basis in bases.items()} | random
        table = accuracies(stored, settings, layers, inputs.get("classes"), params)
        table = table.merge(over_heads(heads[heads["layer"].isin(layers)]), how="left", on=["basis", "budget"])
        of_names = kept_by_budget(names[replaced], given[replaced], there[replaced], budgets)
        table = table.merge(of_names, how="left", on=["basis", "means", "budget"])

        scored, fit = (
            set(digests)
            for digests in (own.images["image_sha256"][own.scored], travelled.images["image_sha256"][travelled.fit])
        )
        source = {key: wildcards[key] for key in ("transfer", "model")}
        source |= {"from": params.datasets["from"], "dataset": params.datasets["to"], "seed": seed}
        source |= {"texts": params.datasets["texts"], "split": split_names(own.images[own.scored])}
        source |= {"layers": f"{layers[0]}–{layers[-1]}", "mlps": params.mlps, "protocol": params.protocol}
        source |= {"images": int(own.scored.sum()), "overlap": 100 * len(scored & fit) / len(scored)}
        save_table(snakemake.output.table, with_source(table, source))
        save_table(snakemake.output.heads, heads)
        shown = {"given": texts[given[:, 0]], "there": texts[there[:, 0]], "kept": kept, "texts_kept": 100 * overlaps}
        save_table(snakemake.output.names, names.assign(**shown))
