"""Scores of maps against masks: pixel accuracy, mean IoU and mean AP, pooled as in the reference code."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

VOID = 255  # mask value of unlabelled pixels, which do not count
PIXELS = 2**18  # scored at a time: their arrays take about 20 MB


class Scores(NamedTuple):
    """Segmentation scores over a dataset, in [0, 1]; `table` has one row per image."""

    pixel_accuracy: float
    mean_iou: float
    mean_ap: float
    table: pd.DataFrame

    @classmethod
    def from_table(cls, table):
        """Scores over the images of a table: pixels and overlaps are pooled, average precision is averaged."""
        pixels = table.sum()
        iou = [
            pixels[f"intersection_{side}"] / max(pixels[f"union_{side}"], 1) for side in ("background", "foreground")
        ]
        accuracy = pixels["correct_pixels"] / max(pixels["labelled_pixels"], 1)
        return cls(float(accuracy), float(np.mean(iou)), float(table["average_precision"].mean()), table)

    def intervals(self, rng, draws=1000):
        """95 % bootstrap intervals of the three scores over images: {score: (low, high)}."""
        count = len(self.table)
        times = rng.multinomial(count, np.full(count, 1 / count), size=draws)  # how often each image is drawn
        pixels = {name: times @ self.table[name].to_numpy(float) for name in self.table.columns[:-1]}
        iou = [
            pixels[f"intersection_{side}"] / np.maximum(pixels[f"union_{side}"], 1)
            for side in ("background", "foreground")
        ]
        precision = self.table["average_precision"].to_numpy()
        defined = ~np.isnan(precision)
        resampled = {
            "pixel_accuracy": pixels["correct_pixels"] / np.maximum(pixels["labelled_pixels"], 1),
            "mean_iou": np.mean(iou, axis=0),
            "mean_ap": times[:, defined] @ precision[defined] / np.maximum(times[:, defined].sum(1), 1),
        }
        return {name: tuple(np.quantile(values, (0.025, 0.975))) for name, values in resampled.items()}


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
    and foreground) are pooled over the dataset; average precision is per image, over the scores of both channels.
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
    return pd.DataFrame(
        {
            "flat": (low >= high).astype(np.int64),
            "correct_pixels": intersection + pixels - union,
            "labelled_pixels": pixels,
            "intersection_background": pixels - union,
            "intersection_foreground": intersection,
            "union_background": pixels - intersection,
            "union_foreground": union,
            "average_precision": average_precision(maps, foreground, labelled),
        }
    )


def average_precision(maps, foreground, labelled):
    """Average precision of each map over both channels, [image]; NaN without labelled pixels.

    maps, foreground, labelled: [image, pixel], the last two bool. Every labelled pixel is a positive of one channel and
    a negative of the other. The mean over positives of the share of positives among all scores as high or higher is
    scikit-learn's average_precision_score.
    """
    # Both channels in the maps' precision: 1 - x in float32 makes ties, which change average precision.
    inverse = 1 - maps
    positives = np.sort(np.where(labelled, np.where(foreground, maps, inverse), -np.inf))
    negatives = np.sort(np.where(labelled, np.where(foreground, inverse, maps), -np.inf))
    pixels = maps.shape[1]
    first = np.ones(positives.shape, bool)  # of equal scores
    first[:, 1:] = positives[:, 1:] != positives[:, :-1]
    true = pixels - np.maximum.accumulate(np.where(first, np.arange(pixels), 0), axis=1)
    false = pixels - np.stack([row.searchsorted(values) for row, values in zip(negatives, positives)])
    precision = np.where(positives > -np.inf, true / (true + false), 0)
    with np.errstate(invalid="ignore"):
        return precision.sum(1) / labelled.sum(1)
