"""Scores of maps against masks: those of the reference's protocol, and two that depend less on how maps are cut."""

from itertools import chain
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

VOID = 255  # mask value of unlabelled pixels, which do not count
PIXELS = 2**18  # scored at a time: their arrays take about 20 MB
LEVELS = 20  # thresholds that a method's own is chosen from: 0, 0.05, … 0.95
ABOVE = {side: [f"{side}_above_{level}" for level in range(LEVELS)] for side in ("background", "foreground")}
OVERLAPS = [f"{kind}_{side}" for kind in ("intersection", "union") for side in ("background", "foreground")]
# Columns of a table of scores by image: numbers of pixels, and average precisions.
COUNTS = ["flat", "correct_pixels", "labelled_pixels", "foreground_pixels", *OVERLAPS, *chain(*ABOVE.values())]
PRECISIONS = ["average_precision", "foreground_precision"]
COLUMNS = [*COUNTS, *PRECISIONS]


class Scores(NamedTuple):
    """Segmentation scores over a dataset, in [0, 1]; `table` has one row per image.

    pixel_accuracy, mean_iou, mean_ap: the reference's protocol. foreground_ap: average precision of the foreground
    alone; chosen_iou: mean IoU at a threshold that suits the method, see the function; NaN for a single image
    """

    pixel_accuracy: float
    mean_iou: float
    mean_ap: float
    table: pd.DataFrame
    foreground_ap: float
    chosen_iou: float

    @classmethod
    def from_table(cls, table):
        """Scores over the images of a table: pixels and overlaps are pooled, average precisions are averaged."""
        values = _measures(table, np.ones((1, len(table))))
        return cls(table=table, **{name: float(value[0]) for name, value in values.items()})

    def intervals(self, rng, draws=1000):
        """95 % bootstrap intervals of the scores over images, thresholds chosen each time: {score: (low, high)}.

        NaN for a single image.
        """
        count = len(self.table)
        if count < 2:
            return dict.fromkeys(_measures(self.table, np.ones((1, count))), (np.nan, np.nan))
        times = rng.multinomial(count, np.full(count, 1 / count), size=draws)  # how often each image is drawn
        return {
            name: tuple(np.quantile(values, (0.025, 0.975))) for name, values in _measures(self.table, times).items()
        }


def _measures(table, times):
    """{score: [draw]} of the images of a table, each taken so many times, [draw, image]."""

    def total(values):
        return times @ np.asarray(values, float)

    def mean(values):
        known = ~np.isnan(values)
        return total(np.where(known, values, 0)) / np.where(total(known) > 0, total(known), np.nan)

    return {
        "pixel_accuracy": total(table["correct_pixels"]) / np.maximum(total(table["labelled_pixels"]), 1),
        "mean_iou": mean_iou({name: total(table[name]) for name in OVERLAPS}),
        "mean_ap": mean(table["average_precision"].to_numpy()),
        "foreground_ap": mean(table["foreground_precision"].to_numpy()),
        "chosen_iou": chosen_iou(table, times)[0],
    }


def mean_iou(counts):
    """Mean over background and foreground of intersection over union, from {name in OVERLAPS: numbers of pixels}."""
    sides = ("background", "foreground")
    return np.mean([counts[f"intersection_{side}"] / np.maximum(counts[f"union_{side}"], 1) for side in sides], axis=0)


def chosen_iou(table, times):
    """(mean IoU with the foreground above a threshold chosen for the method [draw], the thresholds [draw, half]).

    The threshold of every other image is the one of the best mean IoU on the images between, so that no image is scored
    at a threshold that it had a part in. times: how often each image counts, [draw, image]. NaN for a single image.
    """
    background, foreground = (table[ABOVE[side]].to_numpy(float) for side in ABOVE)  # predicted ones, [image, level]
    labelled, positive = (table[[name]].to_numpy(float) for name in ("labelled_pixels", "foreground_pixels"))
    counts = {
        "intersection_background": labelled - positive - background,
        "intersection_foreground": foreground,
        "union_background": labelled - foreground,
        "union_foreground": positive + background,
    }
    if len(table) < 2:
        return np.full(len(times), np.nan), np.full((len(times), 2), np.nan)
    halves = [np.arange(len(table)) % 2 == half for half in (0, 1)]
    # Of either half, {name in OVERLAPS: [draw, level]}.
    sums = [{name: times[:, half] @ values[half] for name, values in counts.items()} for half in halves]
    levels = np.stack([mean_iou(of_half).argmax(1) for of_half in sums[::-1]], axis=1)  # on the other half
    chosen = {
        name: sum(
            np.take_along_axis(of_half[name], level[:, None], axis=1)[:, 0] for of_half, level in zip(sums, levels.T)
        )
        for name in OVERLAPS
    }
    return mean_iou(chosen), levels / LEVELS


def on_the_grid(masks, grid):
    """Masks [image, height, width] at the resolution of the patches [image, row, column], by the majority of pixels."""
    labelled = torch.from_numpy((masks != VOID).astype(np.float32))[:, None]
    share, known = (
        F.adaptive_avg_pool2d(pixels, grid)[:, 0]
        for pixels in (labelled * torch.from_numpy(masks)[:, None].eq(1), labelled)
    )
    return torch.where(known > 0, (2 * share > known).int(), VOID).numpy().astype(np.uint8)


def predictions(maps, visible=None):
    """Foreground: where a map exceeds its mean over the `visible` pixels (a bool array, by default all)."""
    maps = np.asarray(maps)
    if visible is None:
        return maps > maps.mean((1, 2), keepdims=True, dtype=np.float64)
    return visible & (maps > maps.mean((1, 2), keepdims=True, dtype=np.float64, where=visible))


def scores(maps, masks, visible=None):
    """Score maps [image, height, width] in [0, 1] against masks of 0, 1 and 255 (not labelled).

    The reference's protocol: foreground is where a map exceeds its mean; pixel accuracy and IoU (mean over background
    and foreground) are pooled over the dataset; average precision is per image, over the scores of both channels. That
    rewards any map of a small object, so the average precision of the foreground alone is beside it, and the IoU at a
    threshold chosen on other images, because the mean of the map suits some methods and not others.
    visible: pixels with a value in the map, bool, by default all; the others must be unlabelled. Raises ValueError if
    shapes differ, or a map is not finite at a labelled pixel.
    """
    maps, masks = np.asarray(maps), np.asarray(masks)
    if maps.shape != masks.shape:
        raise ValueError(f"maps have shape {maps.shape}, masks {masks.shape}; they must be equal")
    step = max(1, PIXELS // maps[0].size)
    blocks = [slice(start, start + step) for start in range(0, len(maps), step)]
    tables = [_block_table(maps[block], masks[block], None if visible is None else visible[block]) for block in blocks]
    return Scores.from_table(pd.concat(tables, ignore_index=True))


def _block_table(maps, masks, visible):
    """Table of scores of some maps, one row per image; as `scores`."""
    arrays = maps, masks, predictions(maps, visible)
    maps, masks, predicted = (array.reshape(len(maps), -1) for array in arrays)  # [image, pixel]
    labelled, foreground = masks != VOID, masks == 1
    if not (np.isfinite(maps) | ~labelled).all():
        raise ValueError("maps must be finite numbers where masks are labelled")
    low, high = np.where(labelled, maps, np.inf).min(1), np.where(labelled, maps, -np.inf).max(1)
    pixels, intersection = labelled.sum(1), (predicted & foreground).sum(1)
    union = (labelled & (predicted | foreground)).sum(1)
    counts = {
        "flat": (low >= high).astype(np.int64),
        "correct_pixels": intersection + pixels - union,
        "labelled_pixels": pixels,
        "foreground_pixels": foreground.sum(1),
        "intersection_background": pixels - union,
        "intersection_foreground": intersection,
        "union_background": pixels - intersection,
        "union_foreground": union,
    }
    sides = {"background": labelled & ~foreground, "foreground": foreground}
    by_side = {side: np.sort(np.where(inside, maps, -np.inf)) for side, inside in sides.items()}
    for side, values in by_side.items():
        counts |= dict(zip(ABOVE[side], _pixels_above(values).T))
    # Both channels in the maps' precision: 1 - x in float32 makes ties, which change average precision.
    inverse = 1 - maps
    positives = np.where(labelled, np.where(foreground, maps, inverse), -np.inf)
    negatives = np.where(labelled, np.where(foreground, inverse, maps), -np.inf)
    both = average_precision(np.sort(positives), np.sort(negatives))
    of_foreground = average_precision(by_side["foreground"], by_side["background"])
    return pd.DataFrame(counts | dict(zip(PRECISIONS, (both, of_foreground))))[COLUMNS]


def _pixels_above(values):
    """How many of each image's scores [image, place], sorted, exceed each of the LEVELS, [image, level]."""
    thresholds = np.arange(LEVELS).astype(values.dtype) / LEVELS
    return values.shape[1] - np.stack([row.searchsorted(thresholds, side="right") for row in values])


def average_precision(positives, negatives):
    """Average precision of each image, [image], from its positives' and negatives' scores, sorted, [image, place].

    Places without a score are -inf; NaN without positives. The mean over positives of the share of positives among all
    scores as high or higher is scikit-learn's average_precision_score. Over both channels of a map, every labelled
    pixel is a positive of one and a negative of the other.
    """
    counts = (positives > -np.inf).sum(1)
    most, places = max(counts.max(), 1), negatives.shape[1]
    positives = positives[:, positives.shape[1] - most :]
    first = np.ones(positives.shape, bool)  # of equal scores
    first[:, 1:] = positives[:, 1:] != positives[:, :-1]
    true = most - np.maximum.accumulate(np.where(first, np.arange(most), 0), axis=1)
    false = places - np.stack([row.searchsorted(values) for row, values in zip(negatives, positives)])
    precision = np.zeros((len(counts), places))  # of one width, so that sums are rounded alike beside any other image
    precision[:, places - most :] = np.where(positives > -np.inf, true / (true + false), 0)
    with np.errstate(invalid="ignore"):
        return precision.sum(1) / counts
