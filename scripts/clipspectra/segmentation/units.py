"""Units of a tower as segmenters: the evidence of each head or component alone, and of the best few together."""

import warnings

import numpy as np
import pandas as pd
import torch

from clipspectra import InputError
from clipspectra.jobs import progress
from clipspectra.segmentation.maps import component_evidence, min_max_normalise, patch_evidence, upsample
from clipspectra.segmentation.scoring import PRECISIONS, on_the_grid, scores

COMPONENTS = 3  # the first of each head
UNITS = 32  # scored alone at a time


def leading_components(explanations):
    """{(layer, head): components [component, d_embed]}: the first components of all heads that have any.

    explanations: {(layer, head): HeadExplanation}; that of the whole embedding, layer -1, is left out
    """
    return {
        (layer, head): torch.from_numpy(explanation.components[:COMPONENTS])
        for (layer, head), explanation in explanations.items()
        if layer >= 0 and len(explanation.components)
    }


def unit_evidence(model, images, classifier, components, *, classes, tower, minus_mean=True):
    """{"heads": [image, unit, patch], "components": the same} on the CPU in float32; components only if there are any.

    images: [image, 3, height, width]; classifier: [d_embed, class]; components: as leading_components
    classes: of the images, [image], or None for their top-1 class; minus_mean: see maps.class_direction
    """
    images, classes = images.to(classifier.device), None if classes is None else classes.to(classifier.device)
    options = {"classes": classes, "minus_mean": minus_mean, "tower": tower}
    evidence = {"heads": patch_evidence(model, images, classifier, by_head=True, **options)[0].flatten(1, 2)}
    if components:
        by_head = component_evidence(model, images, classifier, components, **options)
        evidence["components"] = torch.cat(list(by_head.values()), dim=1)
    return {unit: values.float().cpu() for unit, values in evidence.items()}


def unit_tables(tower, components):
    """{"heads", "components": table of layer, head and component (-1 for a head) of each unit of unit_evidence}."""
    heads = [(layer, head, -1) for layer in range(len(tower.layers)) for head in range(tower.layers[0].heads)]
    parts = [(*place, number) for place, vectors in components.items() for number in range(len(vectors))]
    columns = ["layer", "head", "component"]
    return {"heads": pd.DataFrame(heads, columns=columns), "components": pd.DataFrame(parts, columns=columns)}


def score_units(evidence, tables, masks, grid):
    """(table of each unit alone, table of the best 1, 2, 4 … units together and of all).

    evidence, tables: of all images, as unit_evidence and unit_tables; masks: [image, height, width]. The best units, by
    the average precision of the foreground, are chosen on every other image and scored on the rest, images with a
    foreground shared out first. Raises InputError for a single image.
    """
    if len(masks) < 2:
        raise InputError("Only one image has a mask, but the best heads are chosen on one and scored on another.")
    order = np.argsort(~(masks == 1).any((1, 2)), kind="stable")
    evidence, masks = {unit: values[order] for unit, values in evidence.items()}, masks[order]
    coarse, alone, together = on_the_grid(masks, grid), [], []
    for unit, values in evidence.items():
        both, foreground = score_alone(values, grid, coarse, unit)
        with warnings.catch_warnings():  # images without foreground have no such precision
            warnings.simplefilter("ignore", RuntimeWarning)
            means = {"mean_ap": np.nanmean(both, 1), "foreground_ap": np.nanmean(foreground, 1)}
            chosen_by = np.nan_to_num(np.nanmean(foreground[:, ::2], 1))
        alone.append(tables[unit].assign(**{name: 100 * mean for name, mean in means.items()}, images=len(masks)))
        together.append(score_together(values[1::2], chosen_by, grid, masks[1::2], unit))
    return pd.concat(alone, ignore_index=True), pd.concat(together, ignore_index=True)


def score_alone(evidence, grid, masks, unit):
    """Average precisions of the map of each unit alone, at the resolution of the patches, a pair of [unit, image].

    evidence: [image, unit, patch]; masks: [image, row, column] of the grid; unit: "heads" or "components". The pair:
    over both channels, and of the foreground alone (NaN for images without any)
    """
    precisions = []
    with progress(None, unit, unit="unit", total=evidence.shape[1]) as bar:
        for values in evidence.transpose(0, 1).split(UNITS):  # [unit, image, patch]
            maps = min_max_normalise(values.reshape(-1, *grid).clamp(min=0)).numpy()
            table = scores(maps, np.tile(masks, (len(values), 1, 1))).table
            precisions.append(table[PRECISIONS].to_numpy().reshape(len(values), -1, 2))
            bar.update(len(values))
    return tuple(np.moveaxis(np.concatenate(precisions), -1, 0))


def score_together(evidence, precision, grid, masks, unit):
    """Scores of the best 1, 2, 4 … units together and of all, with 95 % intervals, one row per number of units.

    evidence: on the images that are scored, [image, unit, patch]; precision: of each unit on the images that the best
    are chosen on, [unit]; masks: [image, height, width]; unit: "heads" or "components"
    """
    order, total = np.argsort(-precision, kind="stable"), evidence.shape[1]
    numbers = [2**power for power in range(total.bit_length()) if 2**power < total]
    rows = []
    for number in [*numbers, total]:
        combined = scores(upsample(evidence[:, order[:number]].sum(1), grid, masks.shape[-2:]).numpy(), masks)
        row = {"unit": unit, "number": number, "images": len(masks)}
        for name, (low, high) in combined.intervals(np.random.default_rng(0)).items():
            row |= {name: 100 * getattr(combined, name), f"{name}_low": 100 * low, f"{name}_high": 100 * high}
        rows.append(row)
    return pd.DataFrame(rows)
