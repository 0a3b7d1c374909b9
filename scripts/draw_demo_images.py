"""The demo's images, masks and manifest, from the training, validation and test worlds."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from clipspectra.arrays import save_table
from clipspectra.demo.world import FACTORS, World, describe
from clipspectra.jobs import job, progress


def draw_pairs(world, count, seed):
    """(factors, rng, background_rng, {pair, changed}) of the two images of `count` pairs for each factor."""
    for index, changed in enumerate(FACTORS):
        rng = np.random.default_rng([seed, index])
        for number, first in enumerate(world.draw_factors(rng, count)):
            for factors in (first, world.draw_pair(first, changed, rng)):
                rngs = (np.random.default_rng([seed, index, number, part]) for part in (0, 1))
                yield factors, *rngs, {"pair": f"{changed}-{number}", "changed": changed}


def draw(folder, manifest, *, images, validation, agreement, pairs, seed):
    """Write pictures, masks and manifest.

    agreement: share of training rows whose digit class matches their place; pairs: of images for each factor, which
    differ in it alone, in a split of their own, of the test images' handwriting and textures
    """
    folder.mkdir(parents=True)
    rows = []
    splits = {"train": ("train", images - images // 2), "test": ("test", images // 2)}
    splits["val"] = "validation", validation
    for index, (split, (part, count)) in enumerate(splits.items()):
        rng = np.random.default_rng([seed, index])
        world = World(part)
        # Validation and test images have balanced groups: half of them agree.
        factors = world.draw_factors(rng, count, agreement=agreement if split == "train" or agreement is None else 0.5)
        for number, row in enumerate(progress(factors, f"drawing {split}", unit="image")):
            files = write(folder, f"{split}-{number:05d}", *world.render(row, rng))
            rows.append(files | {"split": split} | describe(row, agreement is not None))
    world = World("test")
    drawn = draw_pairs(world, pairs, seed)
    total = 2 * pairs * len(FACTORS)
    for number, (row, *rngs, pair) in enumerate(progress(drawn, "drawing pairs", total=total, unit="image")):
        picture, _ = world.render(row, *rngs)
        files = write(folder, f"pairs-{number:05d}", picture)
        rows.append(files | {"split": "pairs"} | describe(row, agreement is not None) | pair)
    columns = ["image", "label", "class", "group", "split", "mask", *FACTORS, *(["pair", "changed"] if pairs else [])]
    save_table(manifest, pd.DataFrame(rows)[columns].fillna(""))


def write(folder, name, picture, mask=None):
    """Write a picture, and its mask if it has one; return their columns of the manifest."""
    Image.fromarray(picture).save(folder / f"{name}.png")
    if mask is not None:
        Image.fromarray(mask.astype(np.uint8)).save(folder / f"{name}-mask.png")
    mask_name = f"{folder.name}/{name}-mask.png" if mask is not None else ""
    return {"image": f"{folder.name}/{name}.png", "mask": mask_name}


if __name__ == "__main__":
    with job(snakemake.log[0]):
        draw(Path(snakemake.output.images), snakemake.output.manifest, **snakemake.params.options)
