"""From a text or a picture to the components that carry it, and from a head or a component to images.

A query is a vector of the joint space minus the mean of its kind (texts: of the pool; pictures: of the fit images). Its
score on a component is its projection. The first k components reconstruct it as the sum of its projections on them, as
reconstruct_top_embedding of the reference implementation does; components of different heads overlap, so only the
direction of that sum counts: its cosine with the query.

Search is exact: every image is compared, a chunk at a time, and one number per image is kept.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.arrays import load_table
from clipspectra.checked import open_arrays
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.explanations.naming import shown_names

BLOCK = 64  # components added at a time


@dataclass
class Components:
    """The components of all heads of a model.

    units: layer, head and number of each, [component, 3]; directions: of unit length, float32 [component, d_embed]
    """

    units: np.ndarray
    directions: np.ndarray

    @classmethod
    def load(cls, path):
        """All components of heads in a file that save_explanations wrote, by layer, head and number."""
        with open_arrays(path) as file:
            names = [name.split(".")[1:] for name in file.keys() if name.startswith("components.")]
            heads = sorted((int(layer), int(head)) for layer, head in names)
            heads = [(layer, head) for layer, head in heads if layer != EMBEDDING]
            directions = [file.get_tensor(f"components.{layer}.{head}") for layer, head in heads]
        counts = map(len, directions)
        units = [(layer, head, number) for (layer, head), count in zip(heads, counts) for number in range(count)]
        return cls(np.array(units, int).reshape(-1, 3), np.concatenate(directions))

    def select(self, rows):
        """The components at these places."""
        return Components(self.units[rows], self.directions[rows])


def centred_queries(query, features, mean):
    """Queries minus the mean of their kind, [query, d_embed].

    query: {"features": texts [query, d_embed]}, or {"embedding": pictures [query, d_embed], not normalised}
    features: the text pool's [text, d_embed]; mean: of the normalised embeddings of the fit images, [d_embed]
    """
    if "features" in query:
        return query["features"].astype(np.float64) - features.mean(0, dtype=np.float64)
    embedding = query["embedding"].astype(np.float64)
    return embedding / np.linalg.norm(embedding, axis=1, keepdims=True) - mean


def best_texts(path, naming):
    """The name at both ends of each component by a naming, from a table that explain_heads wrote.

    Columns top, bottom and strength, the component's share of its head's singular values; by layer, head and component.
    A text that is no better than chance is shown as unnamed, with the text in brackets.
    """
    columns = ["layer", "head", "component", "pole", "strength", "text", "named"]
    first = load_table(path, columns=columns, filters=[("place", "==", 0), ("naming", "==", naming)])
    first["text"] = shown_names(first)
    table = first.pivot(index=columns[:3], columns="pole", values="text")
    return table.assign(strength=first.groupby(columns[:3])["strength"].first())


@dataclass
class Trace:
    """The components that carry a query, largest |score| first, as many as are needed.

    order: rows of Components [k]; score: projections of the query on them [k]
    cosine: of the query with its reconstruction by the first 1, 2, … of them [k]; reachable: by all components
    control: the cosines with random components in random order [draw, k]
    """

    order: np.ndarray
    score: np.ndarray
    cosine: np.ndarray
    reachable: float
    control: np.ndarray


def trace(query, components, *, share=0.9, most=200, draws=20, rng):
    """Trace of a centred query [d_embed]: the components for `share` of the reachable cosine, at most `most`.

    Raises InputError for a query that no component can tell from the mean.
    """
    query = np.asarray(query, np.float64)
    score = (components.directions @ query.astype(np.float32)).astype(np.float64)
    query_norm = np.linalg.norm(query)
    reconstruction = score.astype(np.float32) @ components.directions
    reachable = float(reconstruction @ query / max(np.linalg.norm(reconstruction) * query_norm, np.finfo(float).tiny))
    if not reachable > 0:
        raise InputError("The query is the mean of all texts or images, so that no component can carry it; change it.")
    order = np.argsort(-np.abs(score), kind="stable")[:most]
    cosine, partial_sum = [], np.zeros(len(query))
    while len(cosine) < len(order) and not (cosine and max(cosine) >= share * reachable):
        rows = order[len(cosine) : len(cosine) + BLOCK]
        block_cosines, partial_sum = rebuilt_cosines(query, score[rows], components.directions[rows], partial_sum)
        cosine += block_cosines.tolist()
    enough = np.flatnonzero(np.array(cosine) >= share * reachable)
    count = enough[0] + 1 if len(enough) else len(cosine)
    control = np.zeros((draws, count))
    for draw in range(draws):
        rows = rng.choice(len(score), count, replace=False)
        control[draw] = rebuilt_cosines(query, score[rows], components.directions[rows])[0]
    return Trace(order[:count], score[order[:count]], np.array(cosine[:count]), reachable, control)


def trace_table(traced, components, texts):
    """One row for each component of a Trace: its place and score, and the texts at the query's end and at the other.

    traced: Trace; components: its Components; texts: table of best_texts
    """
    texts = texts.loc[list(map(tuple, components.units))].reset_index()
    positive = traced.score > 0
    named, opposite = (np.where(positive == top, texts["top"], texts["bottom"]) for top in (True, False))
    columns = {"place": np.arange(len(texts)), "score": traced.score, "strength": texts["strength"]}
    columns |= {"text": named, "opposite": opposite, "cosine": traced.cosine, "reachable": traced.reachable}
    columns |= {"random_cosine": traced.control.mean(0), "random_cosine_sd": traced.control.std(0, ddof=1)}
    return pd.concat([texts[["layer", "head", "component"]], pd.DataFrame(columns)], axis=1)


def rebuilt_cosines(query, score, directions, before=0.0):
    """(cosines of a query with `before` plus its first 1, 2, … projections [k], the last such sum [d_embed])."""
    sums = before + np.cumsum(score[:, None] * directions.astype(np.float64), axis=0)
    lengths = np.linalg.norm(sums, axis=1) * np.linalg.norm(query)
    return sums @ query / np.maximum(lengths, np.finfo(float).tiny), sums[-1]


def ends(values, count):
    """Indices of the highest, spread and the lowest values [item]: {"top", "spread", "bottom"}, [count] each.

    Spread as in the reference implementation: from the highest to the lowest by rank, denser at both ends, the ranks
    being (1 - cos) / 2 of equal steps. With fewer items than count, all of them.
    """
    descending = np.argsort(-values, kind="stable")
    count = min(count, len(values))
    ranks = (0.5 * (1 - np.cos(np.pi * np.linspace(0, 1, count))) * (len(values) - 1)).astype(int)
    return {"top": descending[:count], "spread": descending[ranks], "bottom": descending[::-1][:count]}


class View:
    """The contributions of one head, or the whole embeddings, of all images about their mean, chunk by chunk.

    stored: StoredActivations; layer, head: of the head, or EMBEDDING for both; mean: over the fit images, [d_embed]
    A head's rows are in an orthonormal frame of its basis, so that lengths and angles are those of its contributions.
    """

    def __init__(self, stored, layer, head, mean):
        self.stored, self.layer, self.head = stored, layer, head
        if layer == EMBEDDING:
            self.frame, self.triangle = None, None
            self.mean = np.asarray(mean, np.float64)
        else:
            self.frame, self.triangle = np.linalg.qr(stored.basis[layer, head].astype(np.float64))
            self.mean = mean @ self.frame

    def rows(self):
        """Rows of all images about the mean, chunk by chunk [image, width]."""
        chunks = self.stored.embeddings() if self.frame is None else self.stored.reduced(self.layer, self.head)
        return (self.centred(chunk) for chunk in chunks)

    def centred(self, rows):
        """Embeddings [image, d_embed], or a head's q [image, coordinate], as rows about the mean."""
        return (rows if self.frame is None else rows @ self.triangle.T) - self.mean

    def coordinates(self, directions):
        """Directions of the joint space [direction, d_embed] in the coordinates of the rows."""
        return directions if self.frame is None else directions @ self.frame

    def cosines(self, row):
        """Cosine of every image with a row [width]: [image]."""
        unit = row / max(np.linalg.norm(row), np.finfo(float).tiny)
        return np.concatenate(
            [rows @ unit / np.maximum(np.linalg.norm(rows, axis=1), np.finfo(float).tiny) for rows in self.rows()]
        )

    def scores(self, direction):
        """Projection of every image on a direction of the joint space [d_embed]: [image]."""
        coordinates = self.coordinates(direction)
        return np.concatenate([rows @ coordinates for rows in self.rows()])


def images_along(view, direction, count=8):
    """The scored images at both ends of a direction [d_embed] in a View, and spread between: one row each.

    Columns: end (top, spread, bottom), place, image, class, group and score; count: of images at each end
    """
    images = view.stored.images[view.stored.scored]
    scores = view.scores(direction / np.linalg.norm(direction))[view.stored.scored]
    tables = [
        images.iloc[rows].assign(end=end, place=np.arange(len(rows)), score=scores[rows])
        for end, rows in ends(scores, count).items()
    ]
    return pd.concat(tables)[["end", "place", "image", "class", "group", "score"]]
