"""Scores by image as one array, which is stored once for all seeds, and as the table of a seed's images."""

import numpy as np
import pandas as pd

from clipspectra.segmentation.scoring import COLUMNS, COUNTS

RESOLUTIONS = ("model", "own")


def scores_array(table, maps, rows):
    """The table of images.score_batch as an array [image, map, resolution, column], nan where there is no score.

    maps: (method, given) of each; rows: of the images, in the order of the array
    """
    array = np.full((len(rows), len(maps), len(RESOLUTIONS), len(COLUMNS)), np.nan)
    places = (
        pd.Index(list(rows)).get_indexer(table["row"]),
        pd.MultiIndex.from_tuples(maps).get_indexer(pd.MultiIndex.from_frame(table[["method", "given"]])),
        pd.Index(RESOLUTIONS).get_indexer(table["resolution"]),
    )
    array[places] = table[COLUMNS].to_numpy(float)
    return array


def scores_table(array, maps, rows):
    """The array of scores_array as a table again, by map and resolution."""
    index = pd.MultiIndex.from_product([range(len(maps)), RESOLUTIONS, rows], names=["map", "resolution", "row"])
    table = pd.DataFrame(array.transpose(1, 2, 0, 3).reshape(-1, len(COLUMNS)), index, COLUMNS)
    table = table[table["flat"].notna()].astype(dict.fromkeys(COUNTS, int)).reset_index()
    names = pd.DataFrame(list(maps), columns=["method", "given"]).iloc[table["map"]].reset_index(drop=True)
    return pd.concat([table[[*COLUMNS, "resolution"]], names, table["row"]], axis=1)
