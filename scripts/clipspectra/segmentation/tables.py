"""Scores by image as one array, which is stored once for all seeds, and as the table of a seed's images."""

import numpy as np
import pandas as pd

RESOLUTIONS = ("model", "own")
COUNTS = [
    *("flat", "correct_pixels", "labelled_pixels", "intersection_background", "intersection_foreground"),
    *("union_background", "union_foreground"),
]
MEASURES = [*COUNTS, "average_precision"]


def scores_array(table, methods, rows):
    """The table of images.score_batch as an array [image, method, resolution, measure], nan where there is no score.

    rows: of the images, in the order of the array
    """
    array = np.full((len(rows), len(methods), len(RESOLUTIONS), len(MEASURES)), np.nan)
    places = (pd.Index(names).get_indexer(table[key]) for key, names in _axes(methods, rows).items())
    array[tuple(places)] = table[MEASURES].to_numpy(float)
    return array


def scores_table(array, methods, rows):
    """The array of scores_array as a table again, by method and resolution."""
    keys, axes = ["method", "resolution", "row"], _axes(methods, rows)
    index = pd.MultiIndex.from_product([axes[key] for key in keys], names=keys)
    table = pd.DataFrame(array.transpose(1, 2, 0, 3).reshape(-1, len(MEASURES)), index, MEASURES)
    table = table[table["flat"].notna()].astype(dict.fromkeys(COUNTS, int)).reset_index()
    return table[[*MEASURES, "resolution", "method", "row"]]


def _axes(methods, rows):
    return {"row": list(rows), "method": list(methods), "resolution": list(RESOLUTIONS)}
