"""Where in the image the evidence for a class is: patch maps from the decomposition by token, and their scores."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score

from clipspectra.contributions import check_images, source_parts
from clipspectra.families import tower
from clipspectra.hooks import observe

VOID = 255  # mask value of pixels that count neither way


@torch.no_grad()
def patch_maps(model, images, classifier, *, found=None):
    """Evidence for each image's own top-1 class minus the mean over classes, [image, height, width] in [0, 1].

    images: [image, 3, height, width]; classifier: [d_embed, class]; found: the model's Tower, where the caller has it.
    Contributions of all heads and layers by patch, upsampled bilinearly, negative evidence set to 0, then stretched to
    [0, 1] image by image. A flat map is all 0.
    """
    found = found or tower(model.visual)
    return upsample(patch_evidence(model, images, classifier, found=found), found.grid, images.shape[-2:])


@torch.no_grad()
def patch_evidence(model, images, classifier, *, found=None):
    """Contribution of each patch to the top-1 class's logit minus the mean logit, [image, patch].

    Every head reads its tokens along one direction an image, the classifier's as the head sees it: nothing of size
    [pos, head, d_model] is formed.
    """
    found = found or tower(model.visual)
    check_images(found, images)
    tokens, of_class, held = found.readout.tokens, found.readout.pool == "class", {}

    def on_layer(number, seen):
        held[number] = seen.read(tokens) if of_class else seen

    with observe(found, on_layer=on_layer, only_read=True) as ends:
        embedding = model.encode_image(images, normalize=False)
    top = (embedding @ classifier).argmax(1)
    direction = classifier.T[top] - classifier.mean(1)  # [image, d_embed]
    weights, scalars, _ = found.readout.weights_and_scalars(ends, embedding.norm(dim=-1))
    project, shared, _ = found.reading
    seen_from = torch.einsum("ie,gem->igm", direction, project)  # the direction in the stream, [image, group, d_model]
    evidence, biases = 0, 0
    for number, (layer, (write, bias)) in enumerate(zip(found.layers, found.writing)):
        read = held.pop(number) if of_class else held.pop(number).read(tokens)
        parts = source_parts(layer, read, weights)  # [image, group, pos, head, coordinate]
        along = (seen_from @ write).unflatten(-1, parts.shape[-2:])  # [image, group, head, coordinate]
        evidence, biases = evidence + torch.einsum("igphk,ighk->ip", parts, along), biases + bias
    # What biases, means and betas say is the same for every token: one number an image.
    layers = len(found.layers)
    constants = torch.cat([project @ biases, shared.T * layers / (2 * layers + 1)])  # [scalar, d_embed]
    evidence = evidence + (direction @ constants.T * scalars).sum(1, keepdim=True) / evidence.shape[1]
    return evidence[:, found.prefix :]


@torch.no_grad()
def last_attention_maps(model, images, *, found=None):
    """A rival: the class token's attention to each patch in the last layer, mean over heads, as maps in [0, 1].

    For towers without a class token, the attention that they pool with, or the mean over the tokens.
    """
    found = found or tower(model.visual)
    last, held = len(found.layers) - 1, {}

    def on_layer(number, seen):
        if number == last:
            held["attention"] = seen.attention(found.readout.tokens).mean((1, 2))

    with observe(found, on_layer=on_layer, only_read=True):
        model.encode_image(images, normalize=False)
    return upsample(held["attention"][:, found.prefix :], found.grid, images.shape[-2:])


def upsample(values, grid, size):
    """Values of patches [image, patch] as maps [image, height, width] in [0, 1]; negative ones count as 0."""
    maps = F.interpolate(values.reshape(-1, 1, *grid), size=size, mode="bilinear", align_corners=False)[:, 0]
    return stretch(maps.clamp(min=0))


def stretch(maps):
    """Each map [image, height, width] scaled linearly to [0, 1]; a flat one becomes 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1)


class Scores(NamedTuple):
    """Segmentation scores over a dataset, in [0, 1], and `table`, one row an image."""

    pixel_accuracy: float
    mean_iou: float
    mean_ap: float
    table: pd.DataFrame

    @classmethod
    def of(cls, table):
        """Scores over the images of such a table: pixels and overlaps are pooled, average precision is averaged."""
        pixels = table.sum()
        iou = [
            pixels[f"intersection_{side}"] / max(pixels[f"union_{side}"], 1) for side in ("background", "foreground")
        ]
        accuracy = pixels["correct_pixels"] / max(pixels["labelled_pixels"], 1)
        return cls(float(accuracy), float(np.mean(iou)), float(table["average_precision"].mean()), table)


def predictions(maps):
    """Foreground, where a map exceeds its own mean: bool [image, height, width]."""
    maps = np.asarray(maps)
    return maps > maps.mean((1, 2), keepdims=True, dtype=np.float64)


def scores(maps, masks):
    """Score maps [image, height, width] in [0, 1] against masks of 0, 1 and 255 (not labelled).

    The reference's protocol: the foreground is where a map exceeds its mean; pixel accuracy and IoU (mean of both
    sides) are pooled over the dataset; average precision is per image, over both channels' scores together.
    """
    maps, masks = np.asarray(maps), np.asarray(masks)
    if maps.shape != masks.shape:
        raise ValueError(f"maps have shape {maps.shape}, masks {masks.shape}; they must be equal")
    rows = []
    for values, found, mask in zip(maps, predictions(maps), masks):
        labelled = mask != VOID
        values, found, mask = values[labelled], found[labelled], mask[labelled] == 1
        # Both channels in the maps' own precision: 1 - x in float32 makes ties, and average precision sees them.
        channels = np.r_[~mask, mask], np.r_[1 - values, values]
        rows.append(
            {
                "correct_pixels": (found == mask).sum(),
                "labelled_pixels": mask.size,
                "intersection_background": (~found & ~mask).sum(),
                "intersection_foreground": (found & mask).sum(),
                "union_background": (~found | ~mask).sum(),
                "union_foreground": (found | mask).sum(),
                "average_precision": average_precision_score(*channels) if mask.size else float("nan"),
            }
        )
    return Scores.of(pd.DataFrame(rows))
