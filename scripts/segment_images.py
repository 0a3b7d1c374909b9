"""Zero-shot segmentation of the eval images of all seeds: every method's scores by image and over all, and examples."""

import hashlib
import json
from pathlib import Path

from clipspectra.arrays import load_arrays, load_table, save_arrays, save_table, split_names, versions, with_source
from clipspectra.data.datasets import class_labels, masked_rows, with_digests
from clipspectra.data.store import ImageStore, images_of_seeds, locked
from clipspectra.jobs import job, model_arguments, model_identity

if __name__ == "__main__":
    with job(snakemake.log[0]) as log, locked(snakemake.output.store, log):
        import torch

        from clipspectra.data.pictures import check_readable
        from clipspectra.segmentation.images import summarise
        from clipspectra.segmentation.segmenter import Segmenter
        from clipspectra.segmentation.tables import scores_table
        from clipspectra.towers import models

        inputs, outputs, params, wildcards = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards
        root, by_label = Path(inputs.manifest).parent, params.target == "label"
        tables = [with_digests(masked_rows(load_table(path)), root, "mask") for path in inputs.images]
        images = images_of_seeds(tables, ["image_sha256", "mask_sha256", *["class"] * by_label])
        classifier, metadata = load_arrays(inputs.classes, "class")
        classifier = classifier["class"]
        loaded = models.load(**model_arguments(snakemake), device=snakemake.resources.device, towers="image")
        options = {"squashed": params.geometry == "squashed", "mask_pixels": params.mask_pixels, "log": log}
        options |= {"batch_size": snakemake.resources.batch_size}
        segmenter = Segmenter(loaded, classifier, params.methods, root, **options)

        def classes_of(table):
            """The class of each image of a table, [image]; None for the model's top-1 classes."""
            return torch.from_numpy(class_labels(inputs.classes, table, wildcards.dataset)[1]) if by_label else None

        identity = model_identity(snakemake) | {"sha256": loaded.sha256 or "", "values": metadata["values"]}
        identity |= {"classifier": hashlib.sha256(classifier.tobytes()).hexdigest()[:12], "code": params.code}
        identity |= {key: params[key] for key in ("methods", "target", "geometry", "mask_pixels", "save_images")}
        identity |= versions("torch", "open_clip_torch", "pillow")
        store = ImageStore(outputs.store, identity)
        pictures_folder = Path(outputs.pictures) if params.save_images else None
        are_gone = pictures_folder is not None and not pictures_folder.is_dir()
        absent = images if are_gone else images[~store.has(images)].reset_index(drop=True)
        if len(absent):
            stream, skipped = segmenter.score(
                absent,
                Path(outputs.store).parent,
                classes=classes_of(absent),
                workers=snakemake.threads - 1,
                on_bad_image=params.on_bad_image,
                pictures_folder=pictures_folder,
            )
            check_readable(skipped, images)
            store.save(stream, images, identity | {"supported": segmenter.methods, "skipped": skipped})
            for picture in skipped:
                log(f"skipped {picture['image']}: {picture['reason']}")
        arrays, metadata = load_arrays(outputs.store, "scores", "row")
        segmenter.methods = json.loads(metadata["supported"])
        for seed, table, *paths in zip(params.seeds, tables, outputs.scores, outputs.images, outputs.examples):
            table = table[table["row"].isin(arrays["row"])].reset_index(drop=True)
            scores = arrays["scores"][arrays["row"].searchsorted(table["row"])]
            by_image = scores_table(scores, segmenter.methods, range(len(table)))
            source = {"model": wildcards.model, "dataset": wildcards.dataset, "seed": seed}
            source |= {"split": split_names(table), "target": params.target, "geometry": params.geometry}
            save_table(paths[0], with_source(summarise(by_image, seed), source))
            names = {"image": table["image"].to_numpy()[by_image["row"]]}
            save_table(paths[1], with_source(by_image.drop(columns="row"), names))
            examples, kinds, method = segmenter.examples(by_image, table, seed, classes=classes_of(table))
            source |= {"kinds": kinds, "method": method, "sha256": loaded.sha256 or "", "code": params.code}
            save_arrays(paths[2], examples, source | versions("torch", "open_clip_torch"))
