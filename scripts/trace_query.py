"""The components that carry a text or a picture, and the images along what they rebuild of it."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipspectra.arrays import load_arrays, load_table, save_table
from clipspectra.concepts.retrieval import Components, View, best_texts, centred_queries, ends, trace
from clipspectra.contributions.stored import EMBEDDING, StoredActivations
from clipspectra.evaluation.accuracy import component_scores
from clipspectra.explanations.methods import load_explanations
from clipspectra.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

IMAGES = 8  # at each end


def listed(found, where, texts):
    """One row a component of a Trace: where it is, what it scores, the texts at the query's end and at the other."""
    of_component = texts.loc[list(map(tuple, where))].reset_index()
    positive = found.score > 0
    named, opposite = (np.where(positive == top, of_component["top"], of_component["bottom"]) for top in (True, False))
    columns = {"place": np.arange(len(where)), "score": found.score, "strength": of_component["strength"]}
    columns |= {"text": named, "opposite": opposite, "cosine": found.cosine, "reachable": found.reachable}
    columns |= {"random_cosine": found.control.mean(0), "random_cosine_sd": found.control.std(0, ddof=1)}
    return pd.concat([of_component[["layer", "head", "component"]], pd.DataFrame(columns)], axis=1)


def own_scores(asked, components, told, basis):
    """What the picture's own heads put on each of the Components, [component]."""
    z, scalars = (asked[name][0].astype(np.float64) for name in ("z", "scalars"))
    return [
        component_scores(np.r_[z[place], scalars], basis[place], direction[None], told[place].mean)[0]
        for place, direction in zip(map(tuple, components.where[:, :2]), components.directions)
    ]


def along(view, direction, images, scored):
    """The scored images at both ends of a direction, and spread between: one row each."""
    scores = view.scores(direction / np.linalg.norm(direction))[scored]
    tables = [
        images.iloc[rows].assign(end=end, place=np.arange(len(rows)), score=scores[rows])
        for end, rows in ends(scores, IMAGES).items()
    ]
    return pd.concat(tables)[["end", "place", "image", "class", "group", "score"]]


if __name__ == "__main__":
    with job(snakemake.log[0], f"queries.{snakemake.wildcards.queries}"):
        params, inputs = snakemake.params, snakemake.input
        asked, _ = load_arrays(inputs.query)
        features = load_arrays(inputs.texts, "features")[0]["features"]
        whole = load_explanations(inputs.components, [(EMBEDDING, EMBEDDING)])[EMBEDDING, EMBEDDING].mean
        components = Components.load(inputs.components)
        rng = np.random.default_rng(params.seed)
        found = trace(
            centred_queries(asked, features, whole)[0], components, share=params.share, most=params.most, rng=rng
        )
        of_trace = components.rows(found.order)
        table = listed(found, of_trace.where, best_texts(inputs.names))
        if "z" in asked:
            told = load_explanations(inputs.components, sorted(set(map(tuple, of_trace.where[:, :2].tolist()))))
            basis = load_arrays(inputs.basis, "basis")[0]["basis"]
            table.insert(table.columns.get_loc("score") + 1, "own_score", own_scores(asked, of_trace, told, basis))
        save_table(snakemake.output.table, table)
        stored = StoredActivations(inputs.shards, inputs.basis, params.protocol)
        images = stored.extracted_rows(load_table(inputs.images))[stored.scored]
        view = View(stored, EMBEDDING, EMBEDDING, whole)
        save_table(snakemake.output.images, along(view, found.score @ of_trace.directions, images, stored.scored))
