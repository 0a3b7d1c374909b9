"""The pictures of a dataset in the explorer: which ones, their thumbnails in sheets, what each is like."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from clipspectra.data.pictures import BadPicture, open_rgb
from clipspectra.explanations.spectral import highest
from clipspectra.explorer.parts import rounded
from clipspectra.jobs import progress

SIDE = 96  # pixels of a thumbnail
ACROSS = 10  # thumbnails of a sheet, in a row and in a column
ON_A_SHEET = ACROSS**2
SMALL = 40  # pixels of a thumbnail on a run's own sheets, which the map shows
NEIGHBOURS = 12


def shown_pictures(tables, protocol, count):
    """(rows of the pictures that are shown, by their row in the manifest, at most `count`, evenly spread; how many of).

    tables: of the images of each seed; of them the scored ones, and with protocol "same" the fit images too
    """
    table = pd.concat(tables)
    table = table[table["role"].isin(["eval", "fit"] if protocol == "same" else ["eval"])]
    table = table.drop_duplicates("row").sort_values("row", ignore_index=True)
    total = len(table)
    if total > count:
        table = table.iloc[np.arange(count) * total // count].reset_index(drop=True)
    return table, total


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


def save_webp(path, picture, quality=80):
    """Write a picture as WebP; the same picture gives the same bytes."""
    picture.save(path, "WEBP", quality=quality, method=4)


def save_sheets(folder, paths, threads=1, side=SIDE):
    """Write thumbnails, a hundred on a sheet, into a new folder; whether each could be read, bool [picture]."""
    folder.mkdir(parents=True)
    readable, starts = [], range(0, len(paths), ON_A_SHEET)
    with ThreadPoolExecutor(threads) as pool:
        for number, start in enumerate(progress(starts, "thumbnails", unit="sheet")):
            batch = list(pool.map(partial(thumbnail, side=side), paths[start : start + ON_A_SHEET]))
            sheet = Image.new("RGB", (ACROSS * side, -(-len(batch) // ACROSS) * side), "#888888")
            for place, picture in enumerate(batch):
                if picture is not None:
                    sheet.paste(picture, (side * (place % ACROSS), side * (place // ACROSS)))
            save_webp(folder / f"sheet-{number}.webp", sheet)
            readable += [picture is not None for picture in batch]
    return np.array(readable, bool)


def picture_list(table, factors, readable, total, *, sheets, common):
    """The list of pictures for the page: names, and the values of class, group and factors by number.

    readable: bool [picture]; total: number of all scored images, of which these may be a part
    sheets: folder of their thumbnails, as the page finds it; common: common_folder, left out of the names
    """
    columns = {}
    for column in dict.fromkeys(["class", "group", *factors]):
        values = table[column].fillna("").astype(str)
        if (values != "").any():
            names, codes = np.unique(values, return_inverse=True)
            columns[column] = {"values": names, "codes": codes}
    return {
        "names": [short_name(name, common) for name in table["image"]],
        "folder": sheets,
        "total": total,
        "side": SIDE,
        "across": ACROSS,
        "factors": columns,
        "unreadable": np.flatnonzero(~readable),
    }


class Strongest:
    """The components with the largest |score| of each picture, kept while heads stream by.

    numbers (unit × LARGEST + component), scores, ranks: [picture, place], in no order; ranks are in per cent of the
    pictures
    """

    LARGEST = 1 << 20  # more than any head's components

    def __init__(self, pictures, count=12):
        self.count = count
        self.numbers = np.empty((pictures, 0), int)
        self.scores = self.ranks = np.empty((pictures, 0))

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
        nearest = highest(cosines, min(count, len(others) - same))
        lists += [[[int(numbers[n]), rounded(row[n])] for n in places] for row, places in zip(cosines, nearest)]
    return lists
