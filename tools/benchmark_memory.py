"""Peak memory of loading a model and of an extraction, in MiB and beyond the imports in units of the image tower.

Random weights, saved as safetensors. Each peak is of a separate process. All import the same packages, which take more
memory than most models and a different amount on each installation.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import open_clip
import pandas as pd
from PIL import Image
from safetensors.torch import load_file, save_file

from clipspectra.contributions.extraction import extract
from clipspectra.data.datasets import with_digests
from clipspectra.data.store import picture_ids
from clipspectra.towers import models

WORK = {"imports": None, "load both towers": "both", "load the image tower": "image", "extraction": "image"}


def save_model(architecture, folder):
    """Write an architecture's config and random weights into a folder."""
    (folder / "model.json").write_text(json.dumps(open_clip.get_model_config(architecture)))
    weights = models.load(architecture).model.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")


def run_extraction(loaded, folder, count, batch):
    """Extract `count` images (16, repeated)."""
    for number in range(16):
        Image.effect_noise((300, 260), 50 + number).convert("RGB").save(folder / f"{number}.png")
    table = pd.DataFrame({"image": [f"{number % 16}.png" for number in range(count)], "row": range(count)})
    ids = picture_ids(with_digests(table, folder)["image_sha256"])
    table = table.assign(picture_id=ids, checked=table["row"] < 8)
    stream, _ = extract(loaded, table, folder, folder, batch_size=batch, workers=1)
    stream.save(folder / "shard.safetensors", {})


def peak_of(work, folder, options):
    """Do a kind of work in this process and print its seconds and the process's peak memory in MiB."""
    start = time.perf_counter()
    if work == "save":
        return save_model(options.architecture, folder)
    if WORK[work]:
        loaded = models.load(folder / "model.json", folder / "model.safetensors", towers=WORK[work])
    if work == "extraction":
        run_extraction(loaded, folder, options.images, options.batch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return print(json.dumps({"seconds": time.perf_counter() - start, "peak": peak}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="ViT-B-32")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.of:
        return peak_of(options.of[0], Path(options.of[1]), options)
    with tempfile.TemporaryDirectory() as folder:

        def run(work):
            command = [sys.executable, __file__, *sys.argv[1:], "--of", work, folder]
            return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout

        run("save")
        weights = load_file(Path(folder) / "model.safetensors")
        model = sum(tensor.nbytes for name, tensor in weights.items() if name.startswith("visual.")) / 2**20
        print(
            f"{options.architecture}, batches of {options.batch}; the image tower's float32 weights: {model:.0f} MiB\n"
        )
        print("| work | seconds | peak, MiB | beyond the imports, MiB | beyond imports and image tower, MiB |")
        print("|---|---|---|---|---|")
        imports = None
        for work in WORK:
            result = json.loads(run(work))
            imports = imports or result["peak"]
            beyond = result["peak"] - imports
            print(f"| {work} | {result['seconds']:.1f} | {result['peak']:.0f} | {beyond:.0f} | {beyond - model:.0f} |")
    return None


if __name__ == "__main__":
    main()
