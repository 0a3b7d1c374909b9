"""Retrieval with a number: between texts and images, and of images of the same value by each head and component."""

import json

import numpy as np
import pandas as pd

from clipspectra.arrays import load_arrays, load_table, save_table, split_names, with_source
from clipspectra.concepts.same_value import (
    WHOLE,
    SameValue,
    factor_values,
    naming_shares,
    same_value_table,
    unit_tables,
)
from clipspectra.contributions.kept import open_stored
from clipspectra.data.datasets import class_indices
from clipspectra.evaluation.text_retrieval import text_retrieval
from clipspectra.explanations.head import load_explanations
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        inputs, params, wildcards = snakemake.input, snakemake.params, snakemake.wildcards
        stored = open_stored(inputs, params.protocol)
        images, tables = stored.images[stored.scored], []
        source = {key: wildcards[key] for key in ("model", "dataset", "seed")}
        source |= {"texts": params.texts, "protocol": params.protocol, "split": split_names(images)}
        source |= {"images": len(images), "intervention": "as it is"}
        prompts = {}
        if "classes" in inputs.keys():
            classifiers, metadata = load_arrays(inputs.classes)
            prompts = json.loads(metadata["values"])
            for factor, values in prompts.items():
                labels = class_indices(stored.images, factor, values, wildcards.dataset)
                rows = text_retrieval(stored, classifiers[factor].astype(np.float64), labels)
                tables.append(pd.DataFrame(rows).assign(factor=factor, by=WHOLE, unit=""))

        values, rng = factor_values(stored.images, params.factors, prompts), np.random.default_rng(int(wildcards.seed))
        columns = ["layer", "head", "strength", "text"]
        chosen = [("place", "==", 0), ("naming", "==", params.naming)]
        shares = naming_shares(load_table(inputs.names, columns=columns, filters=chosen), images, params.factors)
        fit, scored = (
            SameValue({factor: column[inside] for factor, column in values.items()}, rng)
            for inside in (stored.fit, stored.scored)
        )
        heads, rows = unit_tables(stored, load_explanations(inputs.components), fit, scored)
        heads["named"] = [shares.get(row.factor, {}).get((row.layer, row.head), np.nan) for row in heads.itertuples()]
        tables.append(same_value_table(heads, rows, scored))
        save_table(snakemake.output.heads, with_source(heads, source))
        save_table(snakemake.output.table, with_source(pd.concat(tables, ignore_index=True), source))
