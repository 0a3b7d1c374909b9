"""Two models side by side on the same images: how alike their heads are, and what became of their components."""

import numpy as np

from clipspectra.arrays import load_arrays, load_table, save_table, split_names, with_source
from clipspectra.comparison.changes import ComparedModel, pair_changes, space_cosine
from clipspectra.comparison.similarity import HeadRows, check_images, compare_heads
from clipspectra.contributions.kept import open_stored
from clipspectra.explanations.head import load_explanations
from clipspectra.jobs import job


def load_model(inputs, prefix, stored):
    """(ComparedModel, features of its texts) of the inputs whose names have this prefix."""
    explanations = load_explanations(inputs[f"{prefix}components"])
    tables = [load_table(inputs[f"{prefix}{name}"]) for name in ("names", "factors")]
    effects = load_table(inputs[f"{prefix}effects"]) if f"{prefix}effects" in inputs.keys() else None
    features = load_arrays(inputs[f"{prefix}texts"], "features")[0]["features"]
    return ComparedModel(HeadRows(stored), explanations, *tables, effects), features


if __name__ == "__main__":
    with job(snakemake.log[0], "comparisons.{comparison}, seed {seed}".format(**snakemake.wildcards)) as log:
        inputs, params, wildcards = snakemake.input, snakemake.params, snakemake.wildcards
        stored = [open_stored(inputs, params.protocol, prefix) for prefix in ("", "other_")]
        check_images(*stored)
        (first, features), (second, other_features) = (
            load_model(inputs, prefix, of_model) for prefix, of_model in zip(("", "other_"), stored)
        )
        similarity = compare_heads(first.rows, second.rows, first.is_constant, second.is_constant)
        cosine = space_cosine(features, other_features)
        log(f"mean cosine of the same texts in both models: {cosine:.3f}")
        tables = pair_changes(similarity, first, second, cosine, np.random.default_rng(int(wildcards.seed)))
        images = stored[0].images[stored[0].scored]
        source = {"comparison": wildcards.comparison} | dict(zip(("model", "other_model"), params.entry["models"]))
        source |= {key: params.entry[key] for key in ("dataset", "texts")} | {"protocol": params.protocol}
        source |= {"seed": wildcards.seed, "split": split_names(images), "images": len(images)}
        for path, table in zip((snakemake.output.heads, snakemake.output.components), tables):
            save_table(path, with_source(table, source))
