"""Zero-shot segmentation of the eval images: every method's scores by image and over all, and a few examples."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipspectra.arrays import load_arrays, load_table, save_arrays, save_table, versions
from clipspectra.data.datasets import class_indices, masked_rows
from clipspectra.jobs import job, model_arguments, progress

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

SHOWN = 3  # examples of each kind: best, worst, random
GRADIENT_BATCH = 8  # images whose attention of all layers is held at a time


def evidence(model, images, classifier, classes, methods, tower, log):
    """{method: values of the patches [image, patch]} of the decomposition, its variants and the rivals."""
    import torch

    from clipspectra.segmentation.baselines import BASELINES
    from clipspectra.segmentation.maps import VARIANTS, patch_evidence, variants
    from clipspectra.towers.families import Unsupported

    whole, classes = patch_evidence(model, images, classifier, classes=classes, tower=tower)
    values = {"decomposition": whole}
    if set(methods) & set(VARIANTS):
        of_heads, _ = patch_evidence(model, images, classifier, classes=classes, by_head=True, tower=tower)
        values |= {name: of for name, of in variants(of_heads).items() if name in methods}
    texts = torch.nn.functional.normalize(classifier.T[classes], dim=-1)
    for name in (name for name in methods if name in BASELINES):
        try:
            parts = zip(images.split(GRADIENT_BATCH), texts.split(GRADIENT_BATCH))
            values[name] = torch.cat([BASELINES[name](model, some, text, tower) for some, text in parts])
        except Unsupported as error:
            log(f"{name}: {error}")
    return {name: values[name].float() for name in methods if name in values}


def scored(values, grid, masks, own):
    """Scores of one method on one batch: a row an image and resolution.

    own: for each image (mask at its own resolution, box that the model saw), or None where that is what was seen.
    """
    from clipspectra.segmentation.maps import at_own_resolution, upsample
    from clipspectra.segmentation.scoring import VOID, scores

    maps = upsample(values, grid, masks.shape[-2:]).cpu().numpy()
    tables = [scores(maps, masks).table.assign(resolution="model", place=range(len(masks)))]
    for place, of_image in enumerate(own):
        if of_image is not None:
            mask, box = of_image
            values_map = at_own_resolution(values[place], grid, box, mask.shape).numpy()
            unseen = np.isnan(values_map)
            table = scores(np.where(unseen, 0, values_map)[None], np.where(unseen, VOID, mask)[None], ~unseen[None]).table
            tables.append(table.assign(resolution="own", place=place))
    return pd.concat(tables, ignore_index=True)


def own_masks(files, places, preprocess, shape):
    """For each place (the mask as it is, the box seen of it), None where the model sees the picture as it is."""
    from clipspectra.data.geometry import model_view_box

    masks = [np.array(files.mask(place)) for place in places]
    return [None if mask.shape == shape else (mask, model_view_box(mask.shape, preprocess)) for mask in masks]


def save_pictures(folder, names, pictures, masks, maps):
    """Write each image as the model sees it, its mask, map and prediction, and the map laid over it, as PNG."""
    from matplotlib import colormaps
    from PIL import Image

    from clipspectra.segmentation.scoring import predictions

    for name, picture, mask, heat, prediction in zip(names, pictures, masks, maps, predictions(maps)):
        coloured = (255 * colormaps["cividis"](heat)[..., :3]).astype(np.uint8)
        kinds = {"image": picture, "mask": mask.astype(np.uint8) * 255, "map": coloured}
        kinds |= {"prediction": prediction.astype(np.uint8) * 255, "overlay": picture // 2 + coloured // 2}
        for kind, pixels in kinds.items():
            Image.fromarray(pixels).save(folder / f"{name}-{kind}.png")


def chosen_examples(table, seed):
    """Places of the images to show: best and worst by the first method's average precision, and random ones."""
    table = table.sort_values("place")
    order = table["place"].to_numpy()[np.argsort(-table["average_precision"].to_numpy(), kind="stable")]
    random = np.random.default_rng(seed).permutation(order)
    kinds = {"best": order[:SHOWN], "worst": order[::-1][:SHOWN], "random": random[:SHOWN]}
    return [(kind, int(place)) for kind, places in kinds.items() for place in places]


if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        import torch

        from clipspectra.data.geometry import mask_transform, model_view
        from clipspectra.data.pictures import ImageFiles, batches
        from clipspectra.segmentation.maps import upsample
        from clipspectra.segmentation.scoring import Scores, predictions
        from clipspectra.towers import models
        from clipspectra.towers.devices import enough_memory
        from clipspectra.towers.families import adapt

        wildcards, resources, params = snakemake.wildcards, snakemake.resources, snakemake.params
        table = masked_rows(load_table(snakemake.input.images))
        arrays, metadata = load_arrays(snakemake.input.classes, "class")
        loaded = models.load(**model_arguments(snakemake), device=resources.device)
        classifier, tower = torch.from_numpy(arrays["class"]).to(loaded.device), adapt(loaded.model.visual)
        labels = None
        if params.target == "label":
            values = json.loads(metadata["values"])["class"]
            labels = torch.from_numpy(class_indices(table, "class", values, wildcards.dataset)).to(loaded.device)
        root, squashed = Path(snakemake.input.manifest).parent, params.geometry == "squashed"
        way = mask_transform(loaded.preprocess, loaded.image_size, squashed)
        rows, skipped = [], []
        if params.save_images:
            folder = Path(snakemake.output.pictures)
            folder.mkdir()
        files = ImageFiles(table, root, loaded.preprocess, way, params.mask_pixels)
        options = {"workers": snakemake.threads - 1, "on_bad_image": params.on_bad_image, "skipped": skipped}
        with progress(None, "segmentation", total=len(table), unit="image") as bar, enough_memory(resources.batch_size):
            for places, (images, masks) in batches(files, resources.batch_size, **options):
                images, classes = images.to(loaded.device), None if labels is None else labels[places]
                masks = masks.numpy()
                own = [None] * len(places)
                if not squashed:
                    own = own_masks(files, places, loaded.preprocess, masks.shape[-2:])
                values = evidence(loaded.model, images, classifier, classes, params.methods, tower, log)
                if params.save_images:
                    maps = upsample(values[params.methods[0]], tower.grid, masks.shape[-2:]).cpu().numpy()
                    pictures = [model_view(root / table["image"][place], loaded.preprocess) for place in places]
                    names = [f"{table['row'][place]:06d}" for place in places]
                    save_pictures(folder, names, pictures, np.where(masks == 1, 1, 0), maps)
                for method, of_patches in values.items():
                    of_method = scored(of_patches, tower.grid, masks, own).assign(method=method)
                    rows.append(of_method.assign(place=np.array(places)[of_method["place"]]))
                bar.update(len(images))
        by_image = pd.concat(rows, ignore_index=True)
        by_image.insert(0, "image", table["image"].to_numpy()[by_image["place"]])
        about = {key: wildcards[key] for key in ("model", "dataset", "seed")}
        about |= {"split": "+".join(sorted(set(table["split"]))), "target": params.target, "geometry": params.geometry}
        over_all, keys = [], ["method", "resolution"]
        for (method, resolution), members in by_image.groupby(keys, sort=False):
            pooled = Scores.from_table(members.drop(columns=["image", "place", *keys]))
            row = about | {"method": method, "resolution": resolution, "images": len(members)}
            row["flat_maps"] = int(members["flat"].sum())
            for name, (low, high) in pooled.intervals(np.random.default_rng(int(wildcards.seed))).items():
                row |= {name: 100 * getattr(pooled, name), f"{name}_low": 100 * low, f"{name}_high": 100 * high}
            over_all.append(row)
        save_table(snakemake.output.images, by_image.drop(columns="place"))
        save_table(snakemake.output.scores, pd.DataFrame(over_all))
        for bad in skipped:
            log(f"skipped {table['image'].iloc[bad['image']]}: {bad['reason']}")
        first = by_image[(by_image["method"] == params.methods[0]) & (by_image["resolution"] == "model")]
        shown = chosen_examples(first, int(wildcards.seed))
        images, masks = (torch.stack(parts) for parts in zip(*(files[place][1] for _, place in shown)))
        classes = None if labels is None else labels[[place for _, place in shown]]
        values = evidence(loaded.model, images.to(loaded.device), classifier, classes, params.methods[:1], tower, log)
        maps = upsample(values[params.methods[0]], tower.grid, masks.shape[-2:]).cpu().numpy()
        pictures = [model_view(root / table["image"][place], loaded.preprocess) for _, place in shown]
        examples = {"pictures": np.stack(pictures), "masks": masks.numpy().astype(np.uint8), "maps": maps}
        examples["predictions"] = predictions(maps).astype(np.uint8)
        metadata = about | {"kinds": [kind for kind, _ in shown], "method": params.methods[0]}
        metadata |= {"sha256": loaded.sha256 or "", "code": params.code}
        save_arrays(snakemake.output.examples, examples, metadata | versions("torch", "open_clip_torch"))
