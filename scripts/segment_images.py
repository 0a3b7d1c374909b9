"""Zero-shot segmentation of the eval images: every method's scores by image and over all, and a few examples."""

from pathlib import Path

import pandas as pd

from clipspectra.arrays import load_arrays, load_table, save_arrays, save_table, split_names, versions, with_source
from clipspectra.data.datasets import class_labels, masked_rows
from clipspectra.jobs import job, model_arguments, progress

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        import torch

        from clipspectra.data.geometry import mask_transform
        from clipspectra.data.pictures import ImageFiles, batches, named_skipped
        from clipspectra.segmentation import images as segmentation
        from clipspectra.towers import models
        from clipspectra.towers.devices import explain_out_of_memory
        from clipspectra.towers.families import adapt

        wildcards, resources, params = snakemake.wildcards, snakemake.resources, snakemake.params
        squashed, seed = params.geometry == "squashed", int(wildcards.seed)
        table, root = masked_rows(load_table(snakemake.input.images)), Path(snakemake.input.manifest).parent
        arrays, _ = load_arrays(snakemake.input.classes, "class")
        loaded = models.load(**model_arguments(snakemake), device=resources.device)
        classifier, tower = torch.from_numpy(arrays["class"]).to(loaded.device), adapt(loaded.model.visual)
        labels = None  # the model's top-1 classes
        if params.target == "label":
            labels = torch.from_numpy(class_labels(snakemake.input.classes, table, wildcards.dataset)[1])
        to_mask = mask_transform(loaded.preprocess, loaded.image_size, squashed)
        files = ImageFiles(table, root, loaded.preprocess, to_mask, params.mask_pixels)

        def batch_evidence(images, rows, methods):
            options = {"classes": None if labels is None else labels[rows], "tower": tower, "log": log}
            return segmentation.method_evidence(loaded.model, images, classifier, methods, **options)

        tables, skipped = [], []
        options = {"workers": snakemake.threads - 1, "on_bad_image": params.on_bad_image, "skipped": skipped}
        bar = progress(None, "segmentation", total=len(table), unit="image")
        with bar, explain_out_of_memory(resources.batch_size):
            for rows, (images, masks) in batches(files, resources.batch_size, **options):
                masks, evidence = masks.numpy(), batch_evidence(images, rows, params.methods)
                masks_and_boxes = None if squashed else segmentation.own_masks(files, rows, masks.shape[-2:])
                tables.append(segmentation.score_batch(evidence, tower.grid, masks, rows, masks_and_boxes))
                if params.save_images:
                    values = next(iter(evidence.values()))  # of the first method
                    examples = segmentation.example_arrays(files, rows, masks, values, tower.grid)
                    segmentation.save_pictures(Path(snakemake.output.pictures), table["row"].iloc[rows], examples)
                bar.update(len(images))
        for picture in named_skipped(skipped, table):
            log(f"skipped {picture['image']}: {picture['reason']}")
        by_image = pd.concat(tables, ignore_index=True)
        source = {key: wildcards[key] for key in ("model", "dataset", "seed")}
        source |= {"split": split_names(table), "target": params.target, "geometry": params.geometry}
        save_table(snakemake.output.scores, with_source(segmentation.summarise(by_image, seed), source))
        names = {"image": table["image"].to_numpy()[by_image["row"]]}
        save_table(snakemake.output.images, with_source(by_image.drop(columns="row"), names))
        method = by_image["method"].iloc[0]  # the first that the tower supports
        kinds, rows = map(list, zip(*segmentation.choose_examples(by_image, method, seed)))
        images, masks = (torch.stack(tensors) for tensors in zip(*(files[row][1] for row in rows)))
        values = batch_evidence(images, rows, [method])[method]
        examples = segmentation.example_arrays(files, rows, masks.numpy(), values, tower.grid)
        metadata = source | {"kinds": kinds, "method": method, "sha256": loaded.sha256 or "", "code": params.code}
        save_arrays(snakemake.output.examples, examples, metadata | versions("torch", "open_clip_torch"))
