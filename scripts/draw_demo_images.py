"""The demo's images, their masks and their manifest: half from the training world, half from the test world."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from clipspectra import demo
from clipspectra.arrays import save_table
from clipspectra.jobs import job, progress

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def draw(folder, manifest, images, agreement, seed):
    """Write pictures, masks and manifest. agreement: share of training rows whose digit class matches their place."""
    folder.mkdir(parents=True)
    rows = []
    for split, count in (("train", images - images // 2), ("test", images // 2)):
        rng = np.random.default_rng([seed, split == "test"])
        world = demo.World(split)
        # The groups of the test rows are balanced: half of them agree.
        factors = world.draw_factors(rng, count, agreement=agreement if split == "train" or agreement is None else 0.5)
        for number, row in enumerate(progress(factors, f"drawing {split}", unit="image")):
            picture, mask = world.render(row, rng)
            name = f"{split}-{number:05d}"
            Image.fromarray(picture).save(folder / f"{name}.png")
            Image.fromarray(mask.astype(np.uint8)).save(folder / f"{name}-mask.png")
            files = {"image": f"{folder.name}/{name}.png", "mask": f"{folder.name}/{name}-mask.png", "split": split}
            rows.append(files | demo.describe(row, agreement is not None))
    columns = ["image", "label", "class", "group", "split", "mask", *demo.FACTORS]
    save_table(manifest, pd.DataFrame(rows)[columns])


if __name__ == "__main__":
    with job(snakemake.log[0]):
        options = snakemake.params.options
        draw(
            Path(snakemake.output.images),
            snakemake.output.manifest,
            options["images"],
            options["agreement"],
            options["seed"],
        )
