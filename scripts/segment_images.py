"""Zero-shot segmentation of the eval images: scores by image, over all images, and a few examples to look at."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.arrays import load_arrays, load_table, save_arrays, save_table, versions
from clipspectra.jobs import job, model_arguments, progress

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def segment(loaded, table, root, classifier, *, batch_size, workers, **bad_images):
    """Yield (rows of the table, masks, {method: maps}) batch by batch, masks and maps [image, height, width]."""
    import torch

    from clipspectra.datasets import ImageFiles, batches, mask_transform
    from clipspectra.devices import enough_memory
    from clipspectra.families import tower
    from clipspectra.segment import last_attention_maps, patch_maps

    found = tower(loaded.model.visual)
    classifier = torch.from_numpy(classifier).to(loaded.device)
    files = ImageFiles(table, root, loaded.preprocess, mask_transform(loaded.image_size))
    with progress(None, "segmentation", total=len(table), unit="image") as bar, enough_memory(batch_size):
        for rows, (images, masks) in batches(files, batch_size, workers=workers, **bad_images):
            images = images.to(loaded.device)
            maps = {
                "decomposition": patch_maps(loaded.model, images, classifier, found=found),
                "last-layer attention": last_attention_maps(loaded.model, images, found=found),
                "all background": torch.zeros(masks.shape),
            }
            yield rows, masks.numpy(), {method: values.cpu().numpy() for method, values in maps.items()}
            bar.update(len(images))


if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        from clipspectra import models
        from clipspectra.datasets import seen_picture
        from clipspectra.segment import Scores, predictions, scores

        wildcards, resources = snakemake.wildcards, snakemake.resources
        table = load_table(snakemake.input.images)
        table = table[table["role"] == "eval"].reset_index(drop=True)
        bare = table["image"][table["mask"] == ""]
        if len(bare):
            raise InputError(
                f"{len(bare)} eval images of {wildcards.dataset} have no mask in the manifest, the first "
                f"{bare.iloc[0]}; add their masks, or set masks: false in the config."
            )
        classifier = load_arrays(snakemake.input.classes, "class")[0]["class"]
        loaded = models.load(**model_arguments(snakemake), device=resources.device)
        root = Path(snakemake.input.manifest).parent
        # The examples are spread evenly over the eval images, chosen before any score is known.
        shown = np.linspace(0, len(table) - 1, snakemake.params.examples).round().astype(int)
        rows, examples, skipped = [], {"pictures": [], "masks": [], "maps": [], "predictions": []}, []
        batches = segment(
            loaded,
            table,
            root,
            classifier,
            batch_size=resources.batch_size,
            workers=snakemake.threads - 1,
            on_bad_image=snakemake.params.on_bad_image,
            skipped=skipped,
        )
        for places, masks, maps in batches:
            names = table["image"].to_numpy()[places]
            for method, values in maps.items():
                found = scores(values, masks).table
                found.insert(0, "image", names)
                found.insert(0, "method", method)
                rows.append(found)
            here = np.isin(places, shown)
            chosen = maps["decomposition"][here]
            examples["masks"].append(masks[here].astype(np.uint8))
            examples["maps"].append(chosen)
            examples["predictions"].append(predictions(chosen).astype(np.uint8))
            examples["pictures"] += [seen_picture(root / name, loaded.image_size)[None] for name in names[here]]
        about = {key: wildcards[key] for key in ("model", "dataset", "seed")}
        about["split"] = "+".join(sorted(set(table["split"])))
        by_image = pd.concat(rows, ignore_index=True)
        over_all = []
        for method, members in by_image.groupby("method", sort=False):
            pooled = Scores.of(members.drop(columns=["method", "image"]))
            percent = {name: 100 * getattr(pooled, name) for name in ("pixel_accuracy", "mean_iou", "mean_ap")}
            over_all.append(about | {"method": method, "images": len(members)} | percent)
        save_table(snakemake.output.images, by_image)
        save_table(snakemake.output.scores, pd.DataFrame(over_all))
        for bad in skipped:
            log(f"skipped {table['image'].iloc[bad['image']]}: {bad['reason']}")
        metadata = about | {"sha256": loaded.sha256 or "", "code": snakemake.params.code}
        arrays = {name: np.concatenate(parts) for name, parts in examples.items()}
        save_arrays(snakemake.output.examples, arrays, metadata | versions("torch", "open_clip_torch"))
