"""Images and texts nearest to a picture, by the whole embedding, a head or a component; and the ends of a component."""

import numpy as np
import pandas as pd

from clipspectra.concepts.interventions import check_units
from clipspectra.concepts.retrieval import View, ends
from clipspectra.contributions.stored import EMBEDDING


def select_view(stored, explanations, layer=None, head=None, component=None):
    """(View, direction) of the whole embedding, a head or a component; direction: of the component [d_embed], or None.

    explanations: {(layer, head): HeadExplanation}. Raises InputError for a head or component that does not exist.
    """
    place = (EMBEDDING, EMBEDDING) if layer is None else (layer, head)
    if layer is not None:
        check_units([place if component is None else (*place, component)], explanations)
    direction = None if component is None else explanations[place].components[component].astype(np.float64)
    return View(stored, *place, explanations[place].mean), direction


def picture_row(view, query):
    """A picture's row in the view, [width]; query: its z, scalars and embedding as embed_query stores them."""
    if view.layer == EMBEDDING:
        return view.centred(query["embedding"] / np.linalg.norm(query["embedding"]))[0]
    q = np.r_[query["z"][0, view.layer, view.head], query["scalars"][0]]
    return view.centred(q[None].astype(np.float64))[0]


def name_table(names):
    """Texts, or a picture, as a table with the columns of the images' table; class and group are blank."""
    return pd.DataFrame({"name": names, "class": "", "group": ""})


def picture_neighbours(view, direction, row, images, texts, features, *, name, itself, count):
    """Table of the images and the texts nearest to a picture, with their scores.

    By the cosine in the view for images and the projection for texts. With a direction by the scores on it: the images
    nearest to the picture's score, the texts at its end, and first the picture with its score.

    row: of the picture in the view [width]; images, texts: tables, of the scored images and of the pool
    features: of the texts less their mean [text, d_embed]; name: of the picture; itself: bool [image], whether an image
    is the picture; count: of images and of texts
    """
    if direction is None:
        tables, end = [], "nearest"
        closeness = scores = view.cosines(row)[view.stored.scored]
        text_closeness = text_scores = view.coordinates(features) @ row
    else:
        own = row @ view.coordinates(direction)
        end = "top" if own > 0 else "bottom"
        tables = [_rows("picture", "itself", [0], np.array([own]), name_table([name]))]
        scores, text_scores = view.scores(direction)[view.stored.scored], features @ direction
        closeness, text_closeness = -np.abs(scores - own), text_scores * np.sign(own)
    closeness = np.where(itself, -np.inf, closeness)  # a picture is not its own neighbour
    tables.append(_rows("image", "nearest", ends(closeness, count)["top"][: (~itself).sum()], scores, images))
    tables.append(_rows("text", end, ends(text_closeness, count)["top"], text_scores, texts))
    return pd.concat(tables)


def component_ends(view, direction, images, texts, features, *, count):
    """Table of the images and the texts with the highest, spread and lowest scores on a component.

    images, texts: tables, of the scored images and of the pool; features: of the texts less their mean [text, d_embed]
    count: at each end
    """
    kinds = ("image", view.scores(direction)[view.stored.scored], images), ("text", features @ direction, texts)
    return pd.concat(
        [
            _rows(kind, end, order, scores, table)
            for kind, scores, table in kinds
            for end, order in ends(scores, count).items()
        ]
    )


def _rows(kind, end, order, scores, table):
    """The rows of a table of images or texts in this order, with their scores."""
    rows = table.iloc[order].assign(kind=kind, end=end, place=np.arange(len(order)), score=scores[order])
    return rows[["kind", "end", "place", "name", "class", "group", "score"]]
