"""Explanations as JSON lines, with the keys of the reference implementation, so that its notebooks read them.

A line a head of the evaluated layers, then one for the whole embedding (layer and head -1), which also has the accuracy
with all these heads replaced by their explanations, MLPs kept, and the number of different texts.
"""

import json
from typing import TYPE_CHECKING

import numpy as np

from clipspectra.arrays import load_arrays, load_table, whole
from clipspectra.contributions.stored import EMBEDDING, StoredActivations
from clipspectra.data.datasets import class_indices
from clipspectra.evaluation.recovery import Recovery, recovered_accuracy
from clipspectra.explanations.methods import load_explanations
from clipspectra.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def poles(rows):
    """The texts of one component, the pole with the larger |score| first."""
    listed = {
        short: [
            {f"text_{short}_{place}": text, f"corr_{short}_{place}": float(score)}
            for place, (text, score) in enumerate(zip(of_pole["text"], of_pole["score"]))
        ]
        for short, of_pole in (("max", rows[rows["pole"] == "top"]), ("min", rows[rows["pole"] == "bottom"]))
    }
    top, bottom = (abs(listed[short][0][f"corr_{short}_0"]) for short in ("max", "min"))
    return listed["max"] + listed["min"] if top > bottom else listed["min"] + listed["max"]


def of_components(told, rows):
    """What the reference's svd_data_approx says of a head."""
    in_components = told.components @ told.steps.T  # [component, step]
    singular = rows.groupby("component")["singular_value"].first().to_numpy()
    listed = []
    for component, of_component in rows.groupby("component"):
        best = of_component[of_component["pole"] == "top"].iloc[0]
        listed.append(
            {
                "text": poles(of_component),
                "eigen_v_emb": told.components[component].tolist(),
                "strength_abs": float(singular[component]),
                "strength_rel": float(100 * singular[component] / singular.sum()),
                "cosine_similarity": float(best["score"]),
            }
        )
    return {
        "project_matrix": (in_components @ in_components.T).tolist(),
        "vh": told.components.tolist(),
        "s": singular.tolist(),
        "embeddings_sort": listed,
    }


def of_text_span(told, rows):
    """What the reference's text_span says of a head; its project_matrix is a basis of the head's space."""
    return {"project_matrix": told.steps.tolist(), "embeddings_sort": [{"text": text} for text in rows["text"]]}


if __name__ == "__main__":
    with job(snakemake.log[0]):
        params, wildcards = snakemake.params, snakemake.wildcards
        stored = StoredActivations(snakemake.input.shards, snakemake.input.basis, params.protocol)
        layers = stored.layers[-params.last_layers :]
        heads = [(layer, head) for layer in layers for head in range(stored.heads)] + [(EMBEDDING, EMBEDDING)]
        told, table = load_explanations(snakemake.input.directions, heads), load_table(snakemake.input.table)
        mean_of_texts = load_arrays(snakemake.input.texts, "features")[0]["features"].astype(np.float64).mean(0)
        classes, metadata = load_arrays(snakemake.input.classes, "class")
        images = stored.extracted_rows(load_table(snakemake.input.images))
        right = class_indices(images, "class", json.loads(metadata["values"])["class"], wildcards.dataset)
        everything = Recovery(told, stored.basis, [len(mean_of_texts)])
        accuracy = recovered_accuracy(stored, everything, layers, classes["class"], right, mlps="kept")["top1"].iloc[0]
        tell = of_components if wildcards.algorithm == "svd_data_approx" else of_text_span
        in_layers = table["layer"].isin(list(layers))
        with whole(snakemake.output[0]) as part, open(part, "w", encoding="utf-8") as file:
            for layer, head in heads:
                line = {"layer": layer, "head": head}
                if layer == EMBEDDING:
                    line |= {"accuracy": float(accuracy), "nr_texts": int(table[in_layers]["text"].nunique())}
                of_head = told[layer, head]
                line |= {"mean_values_att": of_head.mean.tolist(), "mean_values_text": mean_of_texts.tolist()}
                rows = table[(table["layer"] == layer) & (table["head"] == head)]
                file.write(json.dumps(line | tell(of_head, rows)) + "\n")
