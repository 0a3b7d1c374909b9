"""What an intervention does to the zero-shot accuracy: unit by unit, beside random units, by group and by value."""

import json

import numpy as np
import pandas as pd

from clipspectra.arrays import load_arrays, save_table, table_chunks
from clipspectra.concepts.interventions import Edits, Intervention
from clipspectra.concepts.outcomes import evaluate, predictions, prepare
from clipspectra.concepts.references import Reference, save_edit
from clipspectra.concepts.retrieval import best_texts
from clipspectra.concepts.same_value import SameValue, edited_table, factor_values
from clipspectra.concepts.tables import curve, role_groups, settings, value_counts, with_splits, with_texts
from clipspectra.contributions.kept import open_stored
from clipspectra.data.datasets import class_indices
from clipspectra.explanations.head import load_explanations
from clipspectra.explanations.naming import NAMED_BY
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(
        snakemake.log[0], "interventions.{intervention}, {model}, seed {seed}".format(**snakemake.wildcards)
    ) as log:
        inputs, entry, wildcards = snakemake.input, snakemake.params.entry, snakemake.wildcards
        dataset, protocol, seed = entry["dataset"], snakemake.params.protocol, int(wildcards.seed)
        source = {"intervention": wildcards.intervention, "model": wildcards.model, "dataset": dataset}
        source |= {"texts": entry["texts"], "protocol": protocol, "seed": seed}
        stored = open_stored(inputs, protocol)
        explanations, images = load_explanations(inputs.components), stored.images
        classifiers, metadata = load_arrays(inputs.classes)
        classifiers = {name: classifier.astype(np.float64) for name, classifier in classifiers.items()}
        values = json.loads(metadata["values"])
        labels = {factor: class_indices(images, factor, names, dataset) for factor, names in values.items()}
        roles = {"eval": stored.scored, "validation": stored.validation}
        roles = {role: inside for role, inside in roles.items() if inside.any()}
        groups = role_groups(images, roles, table_chunks(inputs.manifest), entry["groups"], dataset)

        pool_mean = load_arrays(inputs.texts, "features")[0]["features"].mean(0, dtype=np.float64)
        features = load_arrays(inputs.concepts)[0]["features"] if "concepts" in inputs.keys() else []
        text_files = features, pool_mean, classifiers["class"]
        prepared = prepare(entry["edits"], stored, explanations, *text_files, entry["controls"])
        chosen = prepared.units[: prepared.chosen_count]
        log(f"{len(chosen)} of {len(prepared.units)} units; random ones are drawn from {len(prepared.variance)}")
        rng = np.random.default_rng(seed)
        outcome = evaluate(prepared, stored, explanations, classifiers["class"], labels["class"], rng)
        edited = prepared.intervention(chosen, stored)
        before, after = predictions([Intervention(), edited], stored, explanations, classifiers, labels)
        tables = {
            "summary": settings(prepared, outcome, groups),
            "curve": curve(outcome, groups),
            "values": value_counts(before, after, labels, stored.scored, values),
        }
        for name, rows in tables.items():
            save_table(snakemake.output[name], with_splits(pd.DataFrame(rows), source, roles, images))
        about = source | {"images": stored.fit_count, "sha256": stored.sha256, "code": snakemake.params.code}
        save_edit(snakemake.output.edit, edited, Reference.of(stored, explanations, edited), about)
        columns = factor_values(images, snakemake.params.factors, values)
        scored = SameValue({factor: column[stored.scored] for factor, column in columns.items()}, rng)
        embeddings = (Edits(stored, explanations).embeddings(state) for state in (Intervention(), edited))
        retrieval = edited_table(*embeddings, stored, scored).assign(role="eval", images=stored.scored.sum())
        save_table(snakemake.output.retrieval, with_splits(retrieval, source, roles, images))
        names = {f"{naming}_": best_texts(inputs.names, naming)[["top", "bottom"]] for naming in NAMED_BY}
        names = pd.concat([table.add_prefix(naming) for naming, table in names.items()], axis=1)
        save_table(snakemake.output.units, with_texts(prepared.table, names))
