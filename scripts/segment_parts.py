"""Which heads' and components' evidence lies on the object: each alone, and the best few together."""

from pathlib import Path

import numpy as np

from clipspectra.arrays import load_arrays, load_table, save_table, with_source
from clipspectra.data.datasets import class_labels, masked_rows
from clipspectra.jobs import job, model_arguments

IMAGES = 200  # spread evenly over the eval images

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        import torch

        from clipspectra.data.geometry import mask_transform
        from clipspectra.data.pictures import ImageFiles, batches, named_skipped
        from clipspectra.explanations.head import load_explanations
        from clipspectra.segmentation import units
        from clipspectra.towers import models
        from clipspectra.towers.devices import explain_out_of_memory
        from clipspectra.towers.families import adapt

        wildcards, resources, params = snakemake.wildcards, snakemake.resources, snakemake.params
        table, root = masked_rows(load_table(snakemake.input.images)), Path(snakemake.input.manifest).parent
        rows = np.linspace(0, len(table) - 1, min(IMAGES, len(table))).round().astype(int)
        table = table.iloc[rows].reset_index(drop=True)
        arrays, _ = load_arrays(snakemake.input.classes, "class")
        loaded = models.load(**model_arguments(snakemake), device=resources.device, towers="image")
        classifier, tower = torch.from_numpy(arrays["class"]).to(loaded.device), adapt(loaded.model.visual)
        labels = None  # the model's top-1 classes
        if params.target == "label":
            labels = torch.from_numpy(class_labels(snakemake.input.classes, table, wildcards.dataset)[1])
        to_mask = mask_transform(loaded.preprocess, loaded.image_size, params.geometry == "squashed")
        files = ImageFiles(table, root, loaded.preprocess, to_mask, params.mask_pixels)
        components = {}
        if "components" in snakemake.input.keys():
            components = units.leading_components(load_explanations(snakemake.input.components))
        evidence, masks, skipped = [], [], []
        options = {"workers": snakemake.threads - 1, "on_bad_image": params.on_bad_image, "skipped": skipped}
        with explain_out_of_memory(resources.batch_size):
            for rows, (images, batch_masks) in batches(files, resources.batch_size, **options):
                classes = None if labels is None else labels[rows]
                evidence.append(
                    units.unit_evidence(loaded.model, images, classifier, components, classes=classes, tower=tower)
                )
                masks.append(batch_masks.numpy())
        for picture in named_skipped(skipped, table):
            log(f"skipped {picture['image']}: {picture['reason']}")
        evidence = {unit: torch.cat([batch[unit] for batch in evidence]) for unit in evidence[0]}
        tables = units.unit_tables(tower, components)
        alone, together = units.score_units(evidence, tables, np.concatenate(masks), tower.grid)
        source = {key: wildcards[key] for key in ("model", "dataset", "seed")}
        for path, scores in ((snakemake.output.parts, alone), (snakemake.output.together, together)):
            save_table(path, with_source(scores, source))
