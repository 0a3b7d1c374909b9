"""The pictures of a dataset in the explorer: which ones, their thumbnails in sheets, what each is like."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from clipspectra.data.pictures import BadPicture, open_rgb
from clipspectra.explorer.parts import rounded

SIDE = 96  # pixels of a thumbnail
ACROSS = 10  # thumbnails of a sheet, in a row and in a column
ON_A_SHEET = ACROSS**2
SMALL = 40  # pixels of a thumbnail on a run's own sheets, which the map shows
NEIGHBOURS = 12


def shown_pictures(tables, protocol, count):
    """Rows of the pictures that are shown, by their row in the manifest, at most `count`, evenly spread over all.

    tables: of the images of each seed; of them the scored ones, and with protocol "same" the fit images too
    """
    table = pd.concat(tables)
    table = table[table["role"].isin(["eval", "fit"] if protocol == "same" else ["eval"])]
    table = table.drop_duplicates("row").sort_values("row", ignore_index=True)
    if len(table) > count:
        table = table.iloc[np.arange(count) * len(table) // count].reset_index(drop=True)
    return table


def common_folder(tables):
    """The folder that all images of a dataset lie in where they are named by whole paths, else ""; tables: by seed.

    The page leaves it out of names: it is passed on, and a folder of this machine means nothing elsewhere.
    """
    names = {name for table in tables for name in table["image"]}
    return os.path.commonpath(map(os.path.dirname, names)) if all(map(os.path.isabs, names)) else ""


def short_name(name, folder):
    """An image's name without the common folder."""
    return os.path.relpath(name, folder) if folder and os.path.isabs(name) else name


def thumbnail(path, side=SIDE):
    """A picture as a square [side, side, 3], its edges cut off as most models do; None if unreadable."""
    try:
        return ImageOps.fit(open_rgb(path), (side, side), Image.Resampling.BICUBIC)
    except BadPicture:
        return None


def sheets(paths, threads=1, side=SIDE):
    """(sheet of thumbnails, whether each of its pictures could be read) for every hundred paths, in order."""
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(paths), ON_A_SHEET):
            batch = list(pool.map(partial(thumbnail, side=side), paths[start : start + ON_A_SHEET]))
            rows = -(-len(batch) // ACROSS)
            sheet = Image.new("RGB", (ACROSS * side, rows * side), "#888888")
            for number, picture in enumerate(batch):
                if picture is not None:
                    sheet.paste(picture, (side * (number % ACROSS), side * (number // ACROSS)))
            yield sheet, [picture is not None for picture in batch]


def save_webp(path, picture, quality=80):
    """Write a picture as WebP; the same picture gives the same bytes."""
    picture.save(path, "WEBP", quality=quality, method=4)


def picture_list(table, factors, readable, total, folder):
    """The list of a dataset's pictures for the page: names, and the values of class, group and factors by number.

    readable: bool [picture]; total: number of all scored images, of which these may be a part; folder: common_folder
    """
    columns = {}
    for column in dict.fromkeys(["class", "group", *factors]):
        values = table[column].fillna("").astype(str)
        if (values != "").any():
            names, codes = np.unique(values, return_inverse=True)
            columns[column] = {"values": names, "codes": codes}
    return {
        "names": [short_name(name, folder) for name in table["image"]],
        "total": total,
        "side": SIDE,
        "across": ACROSS,
        "factors": columns,
        "unreadable": np.flatnonzero(~np.asarray(readable)),
    }


class Strongest:
    """The components with the largest |score| of each picture, kept while heads stream by.

    units, components, scores, ranks: [picture, place], the strongest first; ranks are in per cent of the pictures
    """

    def __init__(self, pictures, count=12):
        self.count = count
        self.numbers = np.empty((pictures, 0), int)  # unit × LARGEST + component
        self.scores = self.ranks = np.empty((pictures, 0))

    LARGEST = 1 << 20  # more than any head's components

    def add(self, unit, scores, ranks):
        """A head's scores and ranks [picture, component]."""
        numbers = unit * self.LARGEST + np.arange(scores.shape[1])
        numbers = np.concatenate([self.numbers, np.broadcast_to(numbers, scores.shape)], axis=1)
        scores, ranks = np.concatenate([self.scores, scores], axis=1), np.concatenate([self.ranks, ranks], axis=1)
        kept = np.argpartition(-np.abs(scores), min(self.count, scores.shape[1]) - 1, axis=1)[:, : self.count]
        self.numbers, self.scores, self.ranks = (
            np.take_along_axis(array, kept, axis=1) for array in (numbers, scores, ranks)
        )

    def rows(self, texts):
        """For each picture a list of [unit, component, score, rank, text], the largest |score| first.

        texts: {(unit, component, pole): number of its first name}; the pole is the one that the picture leans to
        """
        order = np.argsort(-np.abs(self.scores), axis=1, kind="stable")
        arrays = (np.take_along_axis(array, order, axis=1) for array in (self.numbers, self.scores, self.ranks))
        return [
            [self._row(*divmod(int(number), self.LARGEST), score, rank, texts) for number, score, rank in zip(*row)]
            for row in zip(*arrays)
        ]

    @staticmethod
    def _row(unit, component, score, rank, texts):
        pole = "top" if score >= 0 else "bottom"
        return [unit, component, rounded(score), round(float(rank)), texts.get((unit, component, pole), -1)]


def neighbours(embeddings, others, numbers, *, same, count=NEIGHBOURS):
    """For each embedding the most similar others: lists of [number, cosine], the most similar first.

    embeddings [picture, d_embed] and others, both of unit length; numbers: of the others; same: whether they are the
    same, so that each leaves itself out
    """
    lists = []
    for start in range(0, len(embeddings), 1000):
        cosines = embeddings[start : start + 1000] @ others.T
        if same:
            cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -np.inf
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, : min(count, len(others) - same)]
        lists += [[[int(numbers[n]), rounded(row[n])] for n in places] for row, places in zip(cosines, nearest)]
    return lists
