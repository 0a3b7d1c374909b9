"""Scores of maps against masks: pixel accuracy, mean IoU and mean AP, pooled as in the reference code."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score

VOID = 255  # mask value of unlabelled pixels, which do not count


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
    visible: pixels with a value in the map, bool, by default all; the others must be unlabelled.
    """
    maps, masks = np.asarray(maps), np.asarray(masks)
    if maps.shape != masks.shape:
        raise ValueError(f"maps have shape {maps.shape}, masks {masks.shape}; they must be equal")
    rows = []
    for values, prediction, mask in zip(maps, predictions(maps, visible), masks):
        labelled = mask != VOID
        values, prediction, mask = values[labelled], prediction[labelled], mask[labelled] == 1
        # Both channels in the maps' precision: 1 - x in float32 makes ties, which change average precision.
        channels = np.r_[~mask, mask], np.r_[1 - values, values]
        rows.append(
            {
                "flat": int(len(values) == 0 or values.min() == values.max()),
                "correct_pixels": (prediction == mask).sum(),
                "labelled_pixels": mask.size,
                "intersection_background": (~prediction & ~mask).sum(),
                "intersection_foreground": (prediction & mask).sum(),
                "union_background": (~prediction | ~mask).sum(),
                "union_foreground": (prediction | mask).sum(),
                "average_precision": average_precision_score(*channels) if mask.size else float("nan"),
            }
        )
    return Scores.from_table(pd.DataFrame(rows))
