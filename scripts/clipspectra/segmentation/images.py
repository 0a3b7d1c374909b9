"""Zero-shot segmentation of a dataset's images by several methods: evidence, scores, summary and pictures."""

import os

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from PIL import Image

from clipspectra import InputError
from clipspectra.data.geometry import model_view, model_view_box
from clipspectra.segmentation.baselines import BASELINES, TEXT_FREE, TRACES
from clipspectra.segmentation.maps import (
    at_own_resolution,
    both_directions,
    class_direction,
    last_layer_maps,
    upsample,
)
from clipspectra.segmentation.scoring import VOID, Scores, chosen_iou, predictions, scores
from clipspectra.towers.families import Unsupported

# What methods are given of a class, in the order of maps.both_directions; and those that ask for no text.
GIVEN = MINUS_MEAN, TEXT = "text minus mean", "text"
NO_TEXT = "no text"
PICTURES = ("image", "mask", "map", "prediction", "overlay")  # that save_pictures writes of an image
EXAMPLES = 3  # of each kind: best, worst, random
OWN_PIXELS = 2**22  # of a picture's maps at its own resolution that are held at a time
GRADIENT_BATCH = 4  # images whose attention of all layers is held at a time; more as long as these are so many numbers:
ATTENTION_NUMBERS = 2**25


def method_evidence(model, images, classifier, methods, *, classes, tower, log):
    """{(method, given): patch values [image, patch]} of the decomposition, its variants and the baselines, in float32.

    images: [image, 3, height, width]; classifier: [d_embed, class]; classes: of the images, [image], or None for their
    top-1 class. Every method is given the same: the class's text minus the mean over classes, and the text alone; those
    without a text come once. A baseline that cannot be computed for the tower is left out, with a line in the log; the
    others keep the order of `methods`. Raises InputError if none can be computed.
    """
    images, classes = images.to(classifier.device), None if classes is None else classes.to(classifier.device)
    evidence, last_heads, classes = both_directions(model, images, classifier, classes=classes, tower=tower)
    by_method = {"decomposition": evidence} | last_layer_maps(last_heads)  # [image, direction, patch]
    values = {(name, given): maps[:, number] for name, maps in by_method.items() for number, given in enumerate(GIVEN)}
    texts = [F.normalize(class_direction(classifier, classes, given == MINUS_MEAN), dim=-1) for given in GIVEN]
    heads, tokens = sum(layer.heads for layer in tower.layers), tower.prefix + tower.grid[0] * tower.grid[1]
    size = max(ATTENTION_NUMBERS // (heads * tokens**2), GRADIENT_BATCH)
    by_batch, unsupported = {}, {}
    for batch, *batch_texts in zip(images.split(size), *(directions.split(size) for directions in texts)):
        traces = {}  # of this batch, shared by all methods
        for name in (name for name in methods if name in BASELINES and name not in unsupported):
            try:
                trace_images = TRACES.get(name)
                if trace_images and trace_images not in traces:
                    traces[trace_images] = trace_images(model, batch, tower)
                trace = {"trace": traces[trace_images]} if trace_images else {}
                for given, directions in dict(zip(given_to(name), batch_texts)).items():
                    maps = BASELINES[name](model, batch, directions, tower, **trace)
                    by_batch.setdefault((name, given), []).append(maps)
            except Unsupported as error:
                unsupported[name] = error.reason
    values |= {key: torch.cat(batches) for key, batches in by_batch.items()}
    for name, reason in unsupported.items():
        log(f"{name} is left out: {reason}")
    keys = [(name, given) for name in methods for given in given_to(name) if (name, given) in values]
    if not keys:
        names = ", ".join(methods)
        raise InputError(f"This model supports none of the segmentation.methods ({names}); add decomposition.")
    return {key: values[key].float() for key in keys}


def given_to(method, direction="minus_mean"):
    """What a method is given of a class, that of the config's segmentation.direction first."""
    if method in TEXT_FREE:
        return [NO_TEXT]
    return list(GIVEN if direction == "minus_mean" else reversed(GIVEN))


def own_masks(files, rows, shape):
    """(mask at the picture's resolution, box of the model's view in it) of each of these rows of ImageFiles.

    None for a picture of the shape (height, width) that the model sees.
    """
    masks = [np.array(files.mask(row)) for row in rows]
    return [None if mask.shape == shape else (mask, model_view_box(mask.shape, files.preprocess)) for mask in masks]


def score_batch(evidence, grid, masks, rows, masks_and_boxes):
    """Table of every map's scores on a batch, one row per image and resolution ("model" or the picture's "own").

    evidence: {(method, given): [image, patch]}; masks: [image, height, width] as the model sees them; rows: of the
    images, for the column `row`; masks_and_boxes: their own_masks, or None for no scores at the pictures' resolution
    """
    tables = []
    for number, values in enumerate(evidence.values()):
        maps = upsample(values, grid, masks.shape[-2:]).cpu().numpy()
        tables.append(scores(maps, masks).table.assign(resolution="model", map=number, row=rows))
    by_picture = torch.stack(list(evidence.values()), dim=1).cpu()  # [image, map, patch]
    for values, mask_and_box, row in zip(by_picture, masks_and_boxes or (), rows):
        if mask_and_box is not None:
            table = _scores_at_own_resolution(values, grid, *mask_and_box)
            tables.append(table.assign(resolution="own", map=range(len(evidence)), row=row))
    table = pd.concat(tables, ignore_index=True).sort_values("map", kind="stable", ignore_index=True)
    names = pd.DataFrame(list(evidence), columns=["method", "given"]).iloc[table["map"]].reset_index(drop=True)
    return pd.concat([table.drop(columns=["map", "row"]), names, table["row"]], axis=1)


def _scores_at_own_resolution(values, grid, mask, box):
    """Table of scores of the maps of one picture, [map, patch], against its mask, one row per map."""
    tables = []
    for part in values.split(max(1, OWN_PIXELS // mask.size)):
        maps = at_own_resolution(part, grid, box, mask.shape).numpy()
        visible = ~np.isnan(maps)
        tables.append(scores(np.where(visible, maps, 0), np.where(visible, mask, VOID), visible).table)
    return pd.concat(tables, ignore_index=True)


def summarise(by_image, seed):
    """Scores in per cent with their 95 % intervals over all images, one row per method, what it is given, resolution.

    by_image: tables of score_batch, concatenated; seed: of the bootstrap. first_threshold, second_threshold: those of
    chosen_iou for either half of the images, in terms of a map from 0 to 1
    """
    rows = []
    for (method, given, resolution), members in by_image.groupby(["method", "given", "resolution"], sort=False):
        pooled = Scores.from_table(members.sort_values("row", kind="stable"))
        row = {"method": method, "given": given, "resolution": resolution, "images": len(members)}
        row["flat_maps"] = int(members["flat"].sum())
        for name, (low, high) in pooled.intervals(np.random.default_rng(seed)).items():
            row |= {name: 100 * getattr(pooled, name), f"{name}_low": 100 * low, f"{name}_high": 100 * high}
        thresholds = chosen_iou(pooled.table, np.ones((1, len(members))))[1][0]
        rows.append(row | dict(zip(("first_threshold", "second_threshold"), thresholds)))
    return pd.DataFrame(rows)


def choose_examples(by_image, method, given, seed):
    """[(kind, row)] of the images to show: best and worst by a map's average precision, and random ones."""
    is_map = (by_image["method"] == method) & (by_image["given"] == given)
    table = by_image[is_map & (by_image["resolution"] == "model")].sort_values("row")
    order = table["row"].to_numpy()[np.argsort(-table["average_precision"].to_numpy(), kind="stable")]
    shuffled = np.random.default_rng(seed).permutation(order)
    kinds = {"best": order[:EXAMPLES], "worst": order[::-1][:EXAMPLES], "random": shuffled[:EXAMPLES]}
    return [(kind, int(row)) for kind, rows in kinds.items() for row in rows]


def example_arrays(files, rows, masks, values, grid):
    """Arrays of these rows of ImageFiles as the model sees them: pictures, masks, maps in [0, 1] and predictions.

    masks: [image, height, width]; values: patch values of the maps, [image, patch]
    """
    pictures = np.stack([model_view(files.images[row], files.preprocess) for row in rows])
    maps = upsample(values, grid, masks.shape[-2:]).cpu().numpy()
    arrays = {"pictures": pictures, "masks": masks, "maps": maps, "predictions": predictions(maps)}
    return arrays | {name: arrays[name].astype(np.uint8) for name in ("masks", "predictions")}


PNG_END = b"IEND\xaeB`\x82"  # a killed job may have left a part


def have_pictures(folder, numbers):
    """Whether each of these numbers has its pictures in the folder, bool [image]; removes those of other numbers."""
    kinds = {number: set() for number in numbers}
    for path in folder.glob("*.png"):
        number = int(path.name.split("-")[0])
        if number not in kinds:
            path.unlink()  # a row of the manifest may mean another picture now
        elif _is_whole(path):
            kinds[number].add(path.name[7:-4])
    return np.array([kinds[number] == set(PICTURES) for number in numbers], bool)


def _is_whole(path):
    with open(path, "rb") as file:
        file.seek(-min(len(PNG_END), path.stat().st_size), os.SEEK_END)
        return file.read() == PNG_END


def save_pictures(folder, numbers, examples):
    """Write each picture of example_arrays, its mask, map and prediction, and the map laid over it, as PNG.

    numbers: of the pictures, which their files are named after
    """
    folder.mkdir(exist_ok=True)
    arrays = (examples[kind] for kind in ("pictures", "masks", "maps", "predictions"))
    for number, picture, mask, values, prediction in zip(numbers, *arrays):
        heatmap = (255 * colormaps["cividis"](values)[..., :3]).astype(np.uint8)
        pixels = {"image": picture, "mask": (mask == 1).astype(np.uint8) * 255, "map": heatmap}
        pixels |= {"prediction": prediction * 255, "overlay": picture // 2 + heatmap // 2}
        for kind, array in pixels.items():
            Image.fromarray(array).save(folder / f"{number:06d}-{kind}.png")
