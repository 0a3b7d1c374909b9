"""Zero-shot segmentation of the eval images of all seeds: every method's scores by image and over all, and examples."""

import hashlib
import json
from pathlib import Path

from clipspectra.arrays import load_arrays, load_table, save_arrays, save_table, split_names, versions, with_source
from clipspectra.data.datasets import masked_rows, with_digests
from clipspectra.data.store import ImageStore, images_of_seeds, locked
from clipspectra.jobs import job, model_arguments, model_identity

if __name__ == "__main__":
    with job(snakemake.log[0]) as log, locked(snakemake.output.store, log):
        from clipspectra.data.pictures import check_readable
        from clipspectra.segmentation.images import have_pictures, summarise
        from clipspectra.segmentation.scoring import ABOVE
        from clipspectra.segmentation.segmenter import Segmenter
        from clipspectra.segmentation.tables import scores_table
        from clipspectra.towers import models

        inputs, outputs, params, wildcards = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards
        root = Path(inputs.manifest).parent
        tables = [with_digests(masked_rows(load_table(path)), root, "mask") for path in inputs.images]
        images = images_of_seeds(tables, ["image_sha256", "mask_sha256", *["class"] * (params.target == "label")])
        loaded = models.load(**model_arguments(snakemake), device=snakemake.config["device"], towers="image")
        settings = {key: params[key] for key in ("target", "geometry", "mask_pixels")}
        options = settings | {"batch_size": snakemake.resources.batch_size, "direction": params.direction, "log": log}
        segmenter = Segmenter(loaded, inputs.classes, wildcards.dataset, root, **options)
        classes, metadata = load_arrays(inputs.classes, "class")
        identity = model_identity(snakemake) | {"sha256": loaded.sha256 or "", "values": metadata["values"]}
        identity |= {"classifier": hashlib.sha256(classes["class"].tobytes()).hexdigest()[:12], "code": params.code}
        identity |= settings | {key: params[key] for key in ("methods", "save_images")}
        identity |= {"direction": params.direction} if params.save_images else {}  # scores are of both
        identity |= versions("torch", "open_clip_torch", "pillow")
        store = ImageStore(outputs.store, identity)
        pictures_folder, is_stored = Path(outputs.pictures) if params.save_images else None, store.has(images)
        if pictures_folder:
            is_stored &= have_pictures(pictures_folder, images["row"])
        absent = images[~is_stored].reset_index(drop=True)
        if len(absent):
            stream, maps, skipped = segmenter.score(
                absent,
                params.methods,
                Path(outputs.store).parent,
                workers=snakemake.threads - 1,
                on_bad_image=params.on_bad_image,
                pictures_folder=pictures_folder,
            )
            check_readable(skipped, images)
            store.save(stream, images, identity | {"maps": maps, "skipped": skipped})
            for picture in skipped:
                log(f"skipped {picture['image']}: {picture['reason']}")
        arrays, metadata = load_arrays(outputs.store, "scores", "row")
        maps = [tuple(pair) for pair in json.loads(metadata["maps"])]
        shown = segmenter.shown_map(maps)
        for seed, table, *paths in zip(params.seeds, tables, outputs.scores, outputs.images, outputs.examples):
            table = table[table["row"].isin(arrays["row"])].reset_index(drop=True)
            scores = arrays["scores"][arrays["row"].searchsorted(table["row"])]
            by_image = scores_table(scores, maps, range(len(table)))
            source = {"model": wildcards.model, "dataset": wildcards.dataset, "seed": seed}
            source |= {"split": split_names(table), "target": params.target, "geometry": params.geometry}
            save_table(paths[0], with_source(summarise(by_image, seed), source))
            names = {"image": table["image"].to_numpy()[by_image["row"]]}
            levels = [name for names in ABOVE.values() for name in names]
            save_table(paths[1], with_source(by_image.drop(columns=["row", *levels]), names))
            examples, kinds, rows = segmenter.examples(by_image, table, shown, seed)
            source |= {
                "kinds": kinds,
                "images": table["image"].iloc[rows].tolist(),
                "method": shown[0],
                "given": shown[1],
                "sha256": loaded.sha256 or "",
                "code": params.code,
            }
            save_arrays(paths[2], examples, source | versions("torch", "open_clip_torch"))
