"""Names of files and folders that try to break out of a shell line, a wildcard or a table."""

import numpy as np
import pandas as pd
from PIL import Image

FOLDER = "p $(touch escaped); `touch escaped` 'q' \"d\" {x} %s <b>"
NAMES = [
    "$(touch escaped)",
    "; touch escaped &",
    "'",
    '"',
    "=1+1",
    "-rf",
    "{0}",
    "a,b",
    "<script>",
    "\\",
    "%",
    "#1",
    "ü",
]


def test_names_are_no_commands(clone):
    """Of a dataset's folder, its classes and its pictures, from the files to the images of a seed."""
    for label in ("cat", *NAMES):
        folder = clone.directory / FOLDER / label
        folder.mkdir(parents=True)
        for number, name in enumerate([*NAMES, "plain"]):
            pixels = np.full((8, 8, 3), number * 9, np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}.png")
    roles = {"fit": {"per_class": 4}, "eval": {"per_class": 4}}
    clone.configure(datasets=clone.config["datasets"] | {"hostile": {"folder": FOLDER, "roles": roles}})
    result = clone.snakemake("results/data/hostile/seed-0/images.csv")
    assert result.returncode == 0, result.stdout
    table = pd.read_csv(clone.directory / "results/data/hostile/seed-0/images.csv", keep_default_na=False)
    assert set(table["class"]) == {"cat", *NAMES}
    assert not list(clone.directory.glob("**/escaped"))
