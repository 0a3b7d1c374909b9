"""What a basis fitted on one dataset gives on another: accuracy recovered, variance held, names kept."""

import json

import numpy as np

from clipspectra.arrays import load_arrays, load_metadata, save_table, split_names, with_source
from clipspectra.contributions.kept import open_stored
from clipspectra.data.datasets import class_labels
from clipspectra.evaluation.kept_names import kept_by_budget, kept_texts, names_by_pole
from clipspectra.evaluation.transfer import (
    SETTINGS,
    accuracies,
    check_alike,
    over_heads,
    random_bases,
    variance_of_heads,
    with_components,
)
from clipspectra.explanations.head import load_explanations
from clipspectra.jobs import job
from clipspectra.on_disk import common

if __name__ == "__main__":
    with job(snakemake.log[0], "transfer.{transfer}, {model}, seed {seed}".format(**snakemake.wildcards)):
        params, inputs, wildcards = snakemake.params, snakemake.input, snakemake.wildcards
        seed, budgets = int(wildcards.seed), params.budgets
        own = open_stored(inputs, params.protocol)
        travelled = open_stored(inputs, params.protocol, of="travelled_")
        stored = {"own": own, "travelled": travelled}
        files = [inputs[name] for name in ("own", "travelled", "weights")]
        check_alike(own, travelled, {path: load_metadata(path) for path in files})
        layers = own.layers[-params.last_layers :]
        units = [(layer, head) for layer in own.layers for head in range(own.heads)]
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
        classes = None
        if "classes" in inputs.keys():
            classes = class_labels(inputs.classes, own.images, params.datasets["to"])
        table = accuracies(stored, settings, budgets, layers, classes, params.mlps)
        table = table.merge(over_heads(heads[heads["layer"].isin(layers)]), how="left", on=["basis", "budget"])
        of_names = kept_by_budget(names[replaced], given[replaced], there[replaced], budgets)
        table = table.merge(of_names, how="left", on=["basis", "means", "budget"])

        scored = common([own.images["image_sha256"][own.scored], travelled.fit_digests()])
        source = {key: wildcards[key] for key in ("transfer", "model")}
        source |= {"from": params.datasets["from"], "dataset": params.datasets["to"], "seed": seed}
        source |= {"texts": params.datasets["texts"], "split": split_names(own.images[own.scored])}
        source |= {"layers": f"{layers[0]}–{layers[-1]}", "mlps": params.mlps, "protocol": params.protocol}
        source |= {"images": int(own.scored.sum()), "overlap": 100 * scored[0, 1] / scored[0, 0]}
        save_table(snakemake.output.table, with_source(table, source))
        save_table(snakemake.output.heads, heads)
        shown = {"given": texts[given[:, 0]], "there": texts[there[:, 0]], "kept": kept, "texts_kept": 100 * overlaps}
        save_table(snakemake.output.names, names.assign(**shown))
