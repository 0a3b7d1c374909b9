"""Where in the image the evidence for a class is: patch maps from the decomposition by token, and their scores."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score

from clipspectra.contributions import image_scalars, readout, written_bias
from clipspectra.hooks import class_attention, observe

VOID = 255  # mask value of pixels that count neither way


@torch.no_grad()
def patch_maps(model, images, classifier):
    """Evidence for each image's own top-1 class minus the mean over classes, [image, height, width] in [0, 1].

    images: [image, 3, height, width]; classifier: [d_embed, class]. Contributions of all heads and layers by patch,
    upsampled bilinearly, negative evidence set to 0, then stretched to [0, 1] image by image. A flat map is all 0.

    All heads and layers are added up in d_model and projected once, on one direction an image.
    """
    return upsample(patch_evidence(model, images, classifier), model.visual.grid_size, images.shape[-2:])


@torch.no_grad()
def patch_evidence(model, images, classifier):
    """Contribution of each patch to the top-1 class's logit minus the mean logit, [image, patch]."""
    visual = model.visual
    read = readout(visual)
    blocks = visual.transformer.resblocks
    written, state = 0, None

    def on_attention(layer, query, key, value, z):
        nonlocal written
        block = blocks[layer]
        parts = class_attention(query, key)[..., None] * value  # [image, head, pos, d_head]
        parts = parts.transpose(1, 2).flatten(2)  # [image, pos, head * d_head]
        written = written + block.ls_1(F.linear(parts, block.attn.out_proj.weight))  # [image, pos, d_model]

    def on_final(final):
        nonlocal state
        state = final[:, 0] if final.ndim == 3 else final

    with observe(visual, on_attention=on_attention, on_final=on_final):
        embedding = model.encode_image(images)
    top = (embedding @ classifier).argmax(1)
    direction = classifier.T[top] - classifier.mean(1)  # [image, d_embed]
    scalars = image_scalars(state, embedding, visual.ln_post.eps)
    evidence = torch.einsum("ipe,ie->ip", written @ read.project.to(written).T, direction) * scalars[:, :1]
    # What biases, mean and beta say is the same for every token: one number an image.
    biases = read.project @ sum(written_bias(block) for block in blocks)
    constants = torch.stack([biases, len(blocks) * read.mean_share, len(blocks) * read.beta_share])  # [3, d_embed]
    evidence = evidence + (direction @ constants.to(direction).T * scalars).sum(1, keepdim=True) / written.shape[1]
    return evidence[:, 1:]


@torch.no_grad()
def last_attention_maps(model, images):
    """A rival: the class token's attention to each patch in the last layer, mean over heads, as maps in [0, 1]."""
    visual = model.visual
    last = len(visual.transformer.resblocks) - 1
    weights = None

    def on_attention(layer, query, key, value, z):
        nonlocal weights
        if layer == last:
            weights = class_attention(query, key)[:, :, 1:].mean(1)

    with observe(visual, on_attention=on_attention):
        model.encode_image(images)
    return upsample(weights, visual.grid_size, images.shape[-2:])


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
