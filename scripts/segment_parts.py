"""Which heads' and components' evidence lies on the object: each alone, and the best few together."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipspectra.arrays import load_arrays, load_table, save_table
from clipspectra.data.datasets import class_indices, masked_rows
from clipspectra.jobs import job, model_arguments, progress

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

IMAGES = 200  # spread evenly over the eval images: every other one to choose the best heads, the rest to score them
COMPONENTS = 3  # first ones of each head


def alone(of_parts, grid, coarse, kind):
    """Average precision of the map that each part gives alone, [part, image]. of_parts: [image, part, patch]."""
    from clipspectra.segmentation.maps import stretch
    from clipspectra.segmentation.scoring import scores

    return np.stack(
        [
            scores(stretch(of_part.reshape(-1, *grid).clamp(min=0)).numpy(), coarse)
            .table["average_precision"]
            .to_numpy()
            for of_part in progress(of_parts.transpose(0, 1), kind, unit="part")
        ]
    )


def together(of_parts, average_precision, grid, masks, kind):
    """Scores of the best 1, 2, 4 … parts together and of all, one row a number of parts.

    of_parts: evidence on the images that are scored, [image, part, patch]; average_precision: of each part on the
    images that they are chosen from, [part]; masks: [image, height, width]
    """
    from clipspectra.segmentation.maps import upsample
    from clipspectra.segmentation.scoring import scores

    order, every = np.argsort(-average_precision, kind="stable"), of_parts.shape[1]
    counts = [2**power for power in range(every.bit_length()) if 2**power < every]
    rows = []
    for count in [*counts, every]:
        combined = scores(upsample(of_parts[:, order[:count]].sum(1), grid, masks.shape[-2:]).numpy(), masks)
        percent = {name: 100 * getattr(combined, name) for name in ("pixel_accuracy", "mean_iou", "mean_ap")}
        rows.append({"of": kind, "number": count, "images": len(masks)} | percent)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        import torch

        from clipspectra.data.geometry import mask_transform
        from clipspectra.data.pictures import ImageFiles, batches
        from clipspectra.explanations.methods import load_explanations
        from clipspectra.segmentation.maps import component_evidence, patch_evidence
        from clipspectra.segmentation.scoring import on_the_grid
        from clipspectra.towers import models
        from clipspectra.towers.devices import enough_memory
        from clipspectra.towers.families import adapt

        wildcards, resources, params = snakemake.wildcards, snakemake.resources, snakemake.params
        table = masked_rows(load_table(snakemake.input.images))
        chosen = np.linspace(0, len(table) - 1, min(IMAGES, len(table))).round().astype(int)
        table = table.iloc[chosen].reset_index(drop=True)
        arrays, metadata = load_arrays(snakemake.input.classes, "class")
        loaded = models.load(**model_arguments(snakemake), device=resources.device)
        classifier, tower = torch.from_numpy(arrays["class"]).to(loaded.device), adapt(loaded.model.visual)
        labels = None
        if params.target == "label":
            values = json.loads(metadata["values"])["class"]
            labels = torch.from_numpy(class_indices(table, "class", values, wildcards.dataset)).to(loaded.device)
        way = mask_transform(loaded.preprocess, loaded.image_size, params.geometry == "squashed")
        root = Path(snakemake.input.manifest).parent
        files = ImageFiles(table, root, loaded.preprocess, way, params.mask_pixels)
        options = {"workers": snakemake.threads - 1, "on_bad_image": params.on_bad_image, "skipped": []}
        components = {}
        if "components" in snakemake.input.keys():
            told = load_explanations(snakemake.input.components)
            components = {
                place: torch.from_numpy(of_head.components[:COMPONENTS])
                for place, of_head in told.items()
                if place[0] >= 0 and len(of_head.components)
            }
        of_heads, of_components, masks = [], [], []
        with enough_memory(resources.batch_size):
            for places, (images, of_batch) in batches(files, resources.batch_size, **options):
                images, chosen = images.to(loaded.device), {"classes": None if labels is None else labels[places]}
                evidence, _ = patch_evidence(loaded.model, images, classifier, **chosen, by_head=True, tower=tower)
                of_heads.append(evidence.flatten(1, 2).float().cpu())
                if components:
                    parts = component_evidence(loaded.model, images, classifier, components, **chosen, tower=tower)
                    of_components.append(torch.cat([part.float().cpu() for part in parts.values()], dim=1))
                masks.append(of_batch.numpy())
        masks, heads = np.concatenate(masks), tower.layers[0].heads
        coarse = on_the_grid(masks, tower.grid)
        places = {"heads": [(layer, head, -1) for layer in range(len(tower.layers)) for head in range(heads)]}
        evidence = {"heads": torch.cat(of_heads)}
        if components:
            places["components"] = [
                (*place, number) for place, vectors in components.items() for number in range(len(vectors))
            ]
            evidence["components"] = torch.cat(of_components)
        about, parts, best = {key: wildcards[key] for key in ("model", "dataset", "seed")}, [], []
        for kind, values in evidence.items():
            precision = alone(values, tower.grid, coarse, kind)
            table = pd.DataFrame(places[kind], columns=["layer", "head", "component"])
            parts.append(table.assign(mean_ap=100 * precision.mean(1), images=len(masks)))
            best.append(together(values[1::2], precision[:, ::2].mean(1), tower.grid, masks[1::2], kind))
        for path, tables in ((snakemake.output.parts, parts), (snakemake.output.together, best)):
            table = pd.concat(tables, ignore_index=True)
            save_table(path, pd.DataFrame(about, index=table.index).join(table))
