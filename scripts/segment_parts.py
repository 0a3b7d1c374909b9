"""Which heads' evidence lies on the object: each head alone, and the best few together."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipspectra.arrays import load_arrays, load_table, save_table
from clipspectra.datasets import masked_rows
from clipspectra.jobs import job, model_arguments, progress

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

IMAGES = 200  # spread evenly over the eval images: every other one to choose the best heads, the rest to score them


def best_heads(of_heads, average_precision, grid, masks):
    """Scores of the best 1, 2, 4 … heads together and of all, one row a number of heads.

    of_heads: evidence on the images that are scored, [image, layer * head, patch]; average_precision: of each head on
    the images that they are chosen from; masks: [image, height, width]
    """
    from clipspectra.segment import scores, upsample

    order, heads = np.argsort(-average_precision, kind="stable"), of_heads.shape[1]
    counts = [2**power for power in range(heads.bit_length()) if 2**power < heads]
    rows = []
    for count in [*counts, heads]:
        found = scores(upsample(of_heads[:, order[:count]].sum(1), grid, masks.shape[-2:]).numpy(), masks)
        percent = {name: 100 * getattr(found, name) for name in ("pixel_accuracy", "mean_iou", "mean_ap")}
        rows.append({"heads": count, "images": len(masks)} | percent)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        import torch

        from clipspectra import models
        from clipspectra.datasets import ImageFiles, batches
        from clipspectra.devices import enough_memory
        from clipspectra.families import tower
        from clipspectra.geometry import mask_transform
        from clipspectra.segment import on_the_grid, patch_evidence, scores, stretch

        wildcards, resources, params = snakemake.wildcards, snakemake.resources, snakemake.params
        table = masked_rows(load_table(snakemake.input.images), wildcards.dataset)
        chosen = np.linspace(0, len(table) - 1, min(IMAGES, len(table))).round().astype(int)
        table = table.iloc[chosen].reset_index(drop=True)
        arrays, _ = load_arrays(snakemake.input.classes, "class")
        loaded = models.load(**model_arguments(snakemake), device=resources.device)
        classifier, found = torch.from_numpy(arrays["class"]).to(loaded.device), tower(loaded.model.visual)
        labels = torch.from_numpy(table["label"].to_numpy()).to(loaded.device) if params.target == "label" else None
        way = mask_transform(loaded.preprocess, loaded.image_size, params.geometry == "squashed")
        files = ImageFiles(table, Path(snakemake.input.manifest).parent, loaded.preprocess, way)
        options = {"workers": snakemake.threads - 1, "on_bad_image": params.on_bad_image, "skipped": []}
        of_heads, masks = [], []
        with enough_memory(resources.batch_size):
            for places, (images, of_batch) in batches(files, resources.batch_size, **options):
                classes = None if labels is None else labels[places]
                evidence, _ = patch_evidence(
                    loaded.model, images.to(loaded.device), classifier, classes=classes, by_head=True, found=found
                )
                of_heads.append(evidence.flatten(1, 2).float().cpu())
                masks.append(of_batch.numpy())
        of_heads, masks = torch.cat(of_heads), np.concatenate(masks)
        coarse = on_the_grid(masks, found.grid)
        precision = []
        for head in progress(range(of_heads.shape[1]), "heads", unit="head"):
            maps = stretch(of_heads[:, head].reshape(-1, *found.grid).clamp(min=0)).numpy()
            precision.append(scores(maps, coarse).table["average_precision"].to_numpy())
        precision = np.stack(precision)  # [layer * head, image]
        layers, heads = len(found.layers), found.layers[0].heads
        about = {key: wildcards[key] for key in ("model", "dataset", "seed")}
        place = {"layer": np.repeat(np.arange(layers), heads), "head": np.tile(np.arange(heads), layers)}
        parts = pd.DataFrame(about | place | {"mean_ap": 100 * precision.mean(1), "images": len(masks)})
        save_table(snakemake.output.heads, parts)
        together = best_heads(of_heads[1::2], precision[:, ::2].mean(1), found.grid, masks[1::2])
        save_table(snakemake.output.together, pd.DataFrame(about, index=together.index).join(together))
