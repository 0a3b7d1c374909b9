"""Zero-shot accuracy that explanations of the last layers' heads recover, by number of texts per head."""

import numpy as np
import pandas as pd

from clipspectra.arrays import load_arrays, save_table, split_names, with_source
from clipspectra.contributions.kept import open_stored
from clipspectra.data.datasets import class_labels
from clipspectra.evaluation.intervals import holm
from clipspectra.evaluation.recovery import paired_differences, recovered_accuracy
from clipspectra.explanations.catalogue import CONTROLS, GIVEN
from clipspectra.explanations.head import load_explanations
from clipspectra.explanations.methods import control_draws
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        params, inputs, wildcards = snakemake.params, snakemake.input, snakemake.wildcards
        stored = open_stored(inputs, params.protocol)
        images, files = stored.images, iter(inputs.explanations)
        classifier, labels = class_labels(inputs.classes, images, wildcards.dataset)
        features = load_arrays(inputs.texts, "features")[0]["features"]
        layers = stored.layers[-params.last_layers :]
        moments = {
            (layer, head): head_moments
            for layer in layers
            for head, head_moments in enumerate(stored.fit_moments(layer))
        }
        tables, reference = [], None  # whether components, which come first, have each image right
        for method, options in params.methods.items():
            if method in CONTROLS:
                draws = control_draws(method, moments, features, seed=int(wildcards.seed), options=options)
            else:
                draws = [load_explanations(next(files), list(moments))]
            options = {"mlps": params.mlps}
            table, correct = recovered_accuracy(stored, draws, params.budgets, layers, classifier, labels, **options)
            reference = correct[0] if method == "components" else reference
            if reference is not None and method not in ("components", *CONTROLS):
                table = pd.concat([table, paired_differences(correct[0], reference)], axis=1)
            source = {"method": method, "given": GIVEN[method], "budget": table["budget"], "draws": table["draws"]}
            tables.append(with_source(table, source))
        table = pd.concat(tables, ignore_index=True)
        for name in ("against_components", "against_components_low", "against_components_high", "p", "p_holm"):
            table[name] = table.get(name, np.nan)
        compared = table["p"].notna() & (table["budget"] > 0)  # without texts all methods are the same
        table.loc[compared, "p_holm"] = holm(table.loc[compared, "p"])
        source = {key: wildcards[key] for key in ("model", "dataset", "seed", "texts")}
        source["split"] = split_names(images[stored.scored])
        source |= {"layers": f"{layers[0]}–{layers[-1]}", "mlps": params.mlps}
        source |= {"protocol": params.protocol, "images": int(stored.scored.sum())}
        save_table(snakemake.output[0], with_source(table, source))
