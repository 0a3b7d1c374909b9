"""Zero-shot segmentation of the eval images: every method's scores by image and over all, and a few examples."""

from pathlib import Path

import pandas as pd

from clipspectra.arrays import load_arrays, load_table, save_arrays, save_table, versions
from clipspectra.data.datasets import masked_rows
from clipspectra.jobs import job, model_arguments, progress

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        import torch

        from clipspectra.data.geometry import mask_transform
        from clipspectra.data.pictures import ImageFiles, batches
        from clipspectra.segmentation import images as segmentation
        from clipspectra.segmentation.maps import target_classes
        from clipspectra.towers import models
        from clipspectra.towers.devices import enough_memory
        from clipspectra.towers.families import adapt

        wildcards, resources, params = snakemake.wildcards, snakemake.resources, snakemake.params
        first_method, squashed, seed = params.methods[0], params.geometry == "squashed", int(wildcards.seed)
        table, root = masked_rows(load_table(snakemake.input.images)), Path(snakemake.input.manifest).parent
        arrays, metadata = load_arrays(snakemake.input.classes, "class")
        loaded = models.load(**model_arguments(snakemake), device=resources.device)
        classifier, tower = torch.from_numpy(arrays["class"]).to(loaded.device), adapt(loaded.model.visual)
        labels = target_classes(params.target, table, metadata, wildcards.dataset)
        to_mask = mask_transform(loaded.preprocess, loaded.image_size, squashed)
        files = ImageFiles(table, root, loaded.preprocess, to_mask, params.mask_pixels)
        tables, skipped, pictures = [], [], Path(snakemake.output.pictures) if params.save_images else None
        if pictures:
            pictures.mkdir()

        def batch_evidence(images, rows, methods):
            classes = None if labels is None else labels[rows]
            return segmentation.method_evidence(
                loaded.model, images, classifier, methods, classes=classes, tower=tower, log=log
            )

        options = {"workers": snakemake.threads - 1, "on_bad_image": params.on_bad_image, "skipped": skipped}
        with progress(None, "segmentation", total=len(table), unit="image") as bar, enough_memory(resources.batch_size):
            for rows, (images, masks) in batches(files, resources.batch_size, **options):
                masks, evidence = masks.numpy(), batch_evidence(images, rows, params.methods)
                own = None if squashed else segmentation.own_masks(files, rows, masks.shape[-2:])
                tables.append(segmentation.score_batch(evidence, tower.grid, masks, rows, own))
                if pictures:
                    names = [f"{number:06d}" for number in table["row"].iloc[rows]]
                    shown = segmentation.example_arrays(files, rows, masks, evidence[first_method], tower.grid)
                    segmentation.save_pictures(pictures, names, shown)
                bar.update(len(images))
        for bad in skipped:
            log(f"skipped {table['image'].iloc[bad['image']]}: {bad['reason']}")
        by_image = pd.concat(tables, ignore_index=True)
        about = {key: wildcards[key] for key in ("model", "dataset", "seed")}
        about |= {"split": "+".join(sorted(set(table["split"]))), "target": params.target, "geometry": params.geometry}
        summary = segmentation.summarise(by_image, seed)
        save_table(snakemake.output.scores, pd.DataFrame(about, index=summary.index).join(summary))
        by_image.insert(0, "image", table["image"].to_numpy()[by_image["row"]])
        save_table(snakemake.output.images, by_image.drop(columns="row"))
        kinds, rows = map(list, zip(*segmentation.choose_examples(by_image, first_method, seed)))
        images, masks = (torch.stack(tensors) for tensors in zip(*(files[row][1] for row in rows)))
        values = batch_evidence(images, rows, [first_method])[first_method]
        examples = segmentation.example_arrays(files, rows, masks.numpy(), values, tower.grid)
        metadata = about | {"kinds": kinds, "method": first_method, "sha256": loaded.sha256 or "", "code": params.code}
        save_arrays(snakemake.output.examples, examples, metadata | versions("torch", "open_clip_torch"))
