"""The images nearest to a picture, by the whole embedding, a head or a component; or the ends of a component."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipspectra.arrays import load_arrays, load_table, save_table
from clipspectra.concepts.interventions import check_units
from clipspectra.concepts.retrieval import View, ends
from clipspectra.contributions.stored import EMBEDDING, StoredActivations
from clipspectra.explanations.methods import load_explanations
from clipspectra.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def rows_of(kind, end, order, scores, table):
    """Rows of the table for some rows of a table of images or texts, with their scores."""
    found = table.iloc[order].assign(kind=kind, end=end, place=np.arange(len(order)), score=scores[order])
    return found[["kind", "end", "place", "name", "class", "group", "score"]]


def own_row(view, asked):
    """A picture's own row in the view, [width], from what embed_query stored of it."""
    if view.layer == EMBEDDING:
        return view.of(asked["embedding"] / np.linalg.norm(asked["embedding"]))[0]
    return view.of(np.r_[asked["z"][0, view.layer, view.head], asked["scalars"][0]][None].astype(np.float64))[0]


def nearest(view, own, direction, texts):
    """(closeness that orders them, score that is shown) of all images, and of texts [text, d_embed] about their mean.

    By the cosine in the view for images and the projection for texts; by the score on a direction, if there is one:
    images nearest to the picture's own score, texts at its end.
    """
    if direction is None:
        cosines, scores = view.cosines(own), view.seen(texts) @ own
        return (cosines, cosines), (scores, scores)
    mine, scores, of_texts = own @ view.seen(direction), view.scores(direction), texts @ direction
    return (-np.abs(scores - mine), scores), (of_texts * np.sign(mine), of_texts)


if __name__ == "__main__":
    with job(snakemake.log[0], f"neighbours.{snakemake.wildcards.neighbours}"):
        params, inputs = snakemake.params, snakemake.input
        stored = StoredActivations(inputs.shards, inputs.basis, params.protocol)
        images = stored.extracted_rows(load_table(inputs.images))[stored.scored].rename(columns={"image": "name"})
        pool, about = load_arrays(inputs.texts, "features")
        texts = pd.DataFrame({"name": json.loads(about["texts"]), "class": "", "group": ""})
        features = pool["features"] - pool["features"].mean(0, dtype=np.float64)
        told, place, direction = load_explanations(inputs.components), (EMBEDDING, EMBEDDING), None
        if params.layer is not None:
            place = (params.layer, params.head)
            check_units([place if params.component is None else (*place, params.component)], told)
        if params.component is not None:
            direction = told[place].components[params.component].astype(np.float64)
        view = View(stored, *place, told[place].mean)
        if params.image:
            root = Path(inputs.manifest).parent
            asked, asked_about = load_arrays(inputs.query)
            own = own_row(view, asked)
            of_images, of_texts = nearest(view, own, direction, features)
            closeness, scores = (values[stored.scored] for values in of_images)
            others = np.array([str((root / name).resolve()) != asked_about["path"] for name in images["name"]])
            closeness[~others] = -np.inf  # a picture is not its own neighbour
            end = "nearest" if direction is None else "top" if own @ view.seen(direction) > 0 else "bottom"
            found = [
                rows_of("image", "nearest", ends(closeness, params.most)["top"][: others.sum()], scores, images),
                rows_of("text", end, ends(of_texts[0], params.most)["top"], of_texts[1], texts),
            ]
            if direction is not None:
                itself = pd.DataFrame({"name": [params.image], "class": "", "group": ""})
                found.insert(0, rows_of("picture", "itself", [0], np.array([own @ view.seen(direction)]), itself))
        else:
            scores, of_texts = view.scores(direction)[stored.scored], features @ direction
            found = [
                rows_of(kind, end, order, values, table)
                for kind, values, table in (("image", scores, images), ("text", of_texts, texts))
                for end, order in ends(values, params.most).items()
            ]
        save_table(snakemake.output[0], pd.concat(found))
