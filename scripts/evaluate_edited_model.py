"""An intervention in stored arrays, in the running model, and folded into its weights, on the same eval images."""

import json
from pathlib import Path

import numpy as np

from clipspectra import InputError
from clipspectra.arrays import load_arrays, save_table, split_names, table_chunks, with_source
from clipspectra.concepts.interventions import Edits
from clipspectra.concepts.references import load_edit
from clipspectra.concepts.tables import role_groups
from clipspectra.contributions.chunks import check_weights
from clipspectra.contributions.kept import open_stored
from clipspectra.data.datasets import class_indices
from clipspectra.explanations.head import load_explanations
from clipspectra.jobs import job, model_arguments

if __name__ == "__main__":
    with job(
        snakemake.log[0], "interventions.{intervention}, {model}, seed {seed}".format(**snakemake.wildcards)
    ) as log:
        from clipspectra.editing.folding import folded_weights
        from clipspectra.editing.outcomes import compare, run_edited
        from clipspectra.towers import models

        inputs, params, resources, wildcards = (
            snakemake.input,
            snakemake.params,
            snakemake.resources,
            snakemake.wildcards,
        )
        dataset, by_group = params.entry["dataset"], params.entry["groups"]
        stored = open_stored(inputs, params.protocol)
        images = stored.images[stored.scored].reset_index(drop=True)
        groups = role_groups(
            images, {"eval": np.ones(len(images), bool)}, table_chunks(inputs.manifest), by_group, dataset
        )
        classes, metadata = load_arrays(inputs.classes, "class")
        labels = class_indices(images, "class", json.loads(metadata["values"])["class"], dataset)
        intervention, reference = load_edit(inputs.edit)

        plain = np.concatenate(list(stored.embeddings()))[stored.scored]
        edits = Edits(stored, load_explanations(inputs.components, list(intervention.heads)))
        embeddings = {"as it is": plain, "stored": edits.embeddings(intervention)[stored.scored]}
        options = {"device": snakemake.config["device"], "precision": params.precision, "towers": "image"}
        loaded = models.load(**model_arguments(snakemake), **options)
        check_weights([inputs.basis], loaded.sha256 or "")
        updates, reason = None, ""
        try:
            updates = folded_weights(loaded.model, intervention, reference)
        except InputError as error:
            reason = str(error)
            log(reason)
        options = {"batch_size": resources.batch_size, "workers": snakemake.threads - 1}
        root = Path(inputs.manifest).parent
        embeddings |= run_edited(loaded, intervention, reference, updates, images, root, **options)
        table = compare(embeddings, classes["class"].astype(np.float64), labels, groups["eval"], reason)
        source = {"intervention": wildcards.intervention, "model": wildcards.model, "dataset": dataset}
        source |= {"texts": params.entry["texts"], "protocol": params.protocol, "seed": int(wildcards.seed)}
        save_table(snakemake.output[0], with_source(table, source | {"split": split_names(images)}))
