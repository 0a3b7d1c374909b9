"""The demo's images, masks and manifest, from the training, validation and test worlds."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from clipspectra.arrays import save_table
from clipspectra.demo.world import FACTORS, World, describe
from clipspectra.jobs import job, progress


def draw(folder, manifest, *, images, validation, agreement, seed):
    """Write pictures, masks and manifest. agreement: share of training rows whose digit class matches their place."""
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
            picture, mask = world.render(row, rng)
            name = f"{split}-{number:05d}"
            Image.fromarray(picture).save(folder / f"{name}.png")
            Image.fromarray(mask.astype(np.uint8)).save(folder / f"{name}-mask.png")
            files = {"image": f"{folder.name}/{name}.png", "mask": f"{folder.name}/{name}-mask.png", "split": split}
            rows.append(files | describe(row, agreement is not None))
    columns = ["image", "label", "class", "group", "split", "mask", *FACTORS]
    save_table(manifest, pd.DataFrame(rows)[columns])


if __name__ == "__main__":
    with job(snakemake.log[0]):
        draw(Path(snakemake.output.images), snakemake.output.manifest, **snakemake.params.options)
