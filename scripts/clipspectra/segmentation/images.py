"""Zero-shot segmentation of a dataset's images by several methods: evidence, scores, summary and pictures."""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from PIL import Image

from clipspectra import InputError
from clipspectra.data.geometry import model_view, model_view_box
from clipspectra.segmentation.baselines import BASELINES, TRACES, traced_forward
from clipspectra.segmentation.maps import VARIANTS, at_own_resolution, last_layer_maps, patch_evidence, upsample
from clipspectra.segmentation.scoring import VOID, Scores, predictions, scores
from clipspectra.towers.families import Unsupported

PICTURES = ("image", "mask", "map", "prediction", "overlay")  # that save_pictures writes of an image
EXAMPLES = 3  # of each kind: best, worst, random
OWN_PIXELS = 2**22  # of a picture's maps at its own resolution that are held at a time
GRADIENT_BATCH = 4  # images whose attention of all layers is held at a time; more as long as these are so many numbers:
ATTENTION_NUMBERS = 2**25


def method_evidence(model, images, classifier, methods, *, classes, tower, log):
    """{method: patch values [image, patch]} of the decomposition, its variants and the baselines, in float32.

    images: [image, 3, height, width]; classifier: [d_embed, class]; classes: of the images, [image], or None for their
    top-1 class. A baseline that cannot be computed for the tower is left out, with a line in the log; the others keep
    the order of `methods`. Raises InputError if none can be computed.
    """
    images, classes = images.to(classifier.device), None if classes is None else classes.to(classifier.device)
    evidence, classes = patch_evidence(model, images, classifier, classes=classes, tower=tower)
    values = {"decomposition": evidence}
    if set(methods) & set(VARIANTS):
        head_evidence, _ = patch_evidence(model, images, classifier, classes=classes, by_head=True, tower=tower)
        values |= last_layer_maps(head_evidence)
    texts = F.normalize(classifier.T[classes], dim=-1)
    heads, tokens = sum(layer.heads for layer in tower.layers), tower.prefix + tower.grid[0] * tower.grid[1]
    size = max(ATTENTION_NUMBERS // (heads * tokens**2), GRADIENT_BATCH)
    by_batch, unsupported = {}, {}
    for batch in zip(images.split(size), texts.split(size)):
        traces = {}  # of this batch, shared by all methods
        for name in (name for name in methods if name in BASELINES and name not in unsupported):
            try:
                if name in TRACES and TRACES[name] not in traces:
                    traces[TRACES[name]] = traced_forward(model, batch[0], tower, linear=TRACES[name])
                trace = {"trace": traces[TRACES[name]]} if name in TRACES else {}
                evidence_of_batch = BASELINES[name](model, *batch, tower, **trace)
                by_batch.setdefault(name, []).append(evidence_of_batch)
            except Unsupported as error:
                unsupported[name] = error.reason
    values |= {name: torch.cat(batches) for name, batches in by_batch.items()}
    for name, reason in unsupported.items():
        log(f"{name} is left out: {reason}")
    if not values.keys() & set(methods):
        names = ", ".join(methods)
        raise InputError(f"This model supports none of the segmentation.methods ({names}); add decomposition.")
    return {name: values[name].float() for name in methods if name in values}


def own_masks(files, rows, shape):
    """(mask at the picture's resolution, box of the model's view in it) of each of these rows of ImageFiles.

    None for a picture of the shape (height, width) that the model sees.
    """
    masks = [np.array(files.mask(row)) for row in rows]
    return [None if mask.shape == shape else (mask, model_view_box(mask.shape, files.preprocess)) for mask in masks]


def score_batch(evidence, grid, masks, rows, masks_and_boxes):
    """Table of every method's scores on a batch, one row per image and resolution ("model" or the picture's "own").

    evidence: {method: [image, patch]}; masks: [image, height, width] as the model sees them; rows: of the images, for
    the column `row`; masks_and_boxes: their own_masks, or None for no scores at the pictures' resolution
    """
    tables = []
    for method, values in evidence.items():
        maps = upsample(values, grid, masks.shape[-2:]).cpu().numpy()
        tables.append(scores(maps, masks).table.assign(resolution="model", method=method, row=rows))
    by_picture = torch.stack(list(evidence.values()), dim=1).cpu()  # [image, method, patch]
    for values, mask_and_box, row in zip(by_picture, masks_and_boxes or (), rows):
        if mask_and_box is not None:
            table = _scores_at_own_resolution(values, grid, *mask_and_box)
            tables.append(table.assign(resolution="own", method=list(evidence), row=row))
    table = pd.concat(tables, ignore_index=True)
    by_method = table["method"].map(list(evidence).index).argsort(kind="stable")
    return table.iloc[by_method].reset_index(drop=True)


def _scores_at_own_resolution(values, grid, mask, box):
    """Table of scores of the maps of one picture, [map, patch], against its mask, one row per map."""
    tables = []
    for part in values.split(max(1, OWN_PIXELS // mask.size)):
        maps = at_own_resolution(part, grid, box, mask.shape).numpy()
        visible = ~np.isnan(maps)
        tables.append(scores(np.where(visible, maps, 0), np.where(visible, mask, VOID), visible).table)
    return pd.concat(tables, ignore_index=True)


def summarise(by_image, seed):
    """Scores in per cent with their 95 % intervals over all images, one row per method and resolution.

    by_image: tables of score_batch, concatenated; seed: of the bootstrap
    """
    rows = []
    for (method, resolution), members in by_image.groupby(["method", "resolution"], sort=False):
        pooled = Scores.from_table(members.drop(columns=["row", "method", "resolution"]))
        row = {"method": method, "resolution": resolution, "images": len(members)}
        row["flat_maps"] = int(members["flat"].sum())
        for name, (low, high) in pooled.intervals(np.random.default_rng(seed)).items():
            row |= {name: 100 * getattr(pooled, name), f"{name}_low": 100 * low, f"{name}_high": 100 * high}
        rows.append(row)
    return pd.DataFrame(rows)


def choose_examples(by_image, method, seed):
    """[(kind, row)] of the images to show: best and worst by a method's average precision, and random ones."""
    table = by_image[(by_image["method"] == method) & (by_image["resolution"] == "model")].sort_values("row")
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


def have_pictures(folder, numbers):
    """Whether each of these numbers has its pictures in the folder, bool [image]; removes those of other numbers."""
    kinds = {number: {path.name[7:-4] for path in folder.glob(f"{number:06d}-*.png")} for number in numbers}
    for path in folder.glob("*.png"):
        if int(path.name.split("-")[0]) not in kinds:
            path.unlink()  # a row of the manifest may mean another picture now
    return np.array([kinds[number] == set(PICTURES) for number in numbers], bool)


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
