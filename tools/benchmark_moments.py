"""Memory and disk of extractions that keep moments, beside those that keep all images.

A tiny tower with random weights and 16 pictures, referenced again and again. Each row is a process of its own: its peak
memory beyond imports and model, what is left on disk, and what lay there for a while. --tables measures what reads
the tables of images, without pictures: names are made up, and digests are theirs. --work-out prints what full-size
towers and datasets come to by formulas instead: nothing of that is measured.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHARD = 10_000  # images of a shard
ROLES = {role: {"split": split, "per_class": "all"} for role, split in (("fit", "train"), ("eval", "test"))}
VISION = {"image_size": 16, "layers": 4, "width": 96, "head_width": 32, "patch_size": 8}
TINY = {"embed_dim": 64, "vision_cfg": VISION, "text_cfg": {"context_length": 8, "width": 16, "heads": 1, "layers": 1}}
DATASETS = {"ImageNet train": 1_281_167, "CC12M": 12_423_374, "LAION-400M": 413_000_000}
# layers, heads, d_head, d_embed, GFLOP of a forward pass of one image (two for each multiplication and addition)
TOWERS = {
    "ViT-B-16": (12, 12, 64, 512, 35),
    "ViT-L-14": (24, 16, 64, 768, 162),
    "ViT-H-14": (32, 16, 80, 1024, 335),
}


def sizes(layers, heads, d_head, d_embed):
    """Bytes of one seed's moments, of its poles with directions, and of an image that is kept whole, by formulas."""
    k, units = d_head + 3, layers * heads
    parts = (2 * layers + 1) * d_embed
    moments = 8 * (units * (k + k * k + k * d_embed) + d_embed + d_embed**2 + parts)
    poles = 2 * 8 * (units * (k * k + k + k * d_embed)) + 8 * (2 * d_embed**2 + d_embed)
    directions = 2 * 8 * units * k * k + 8 * d_embed**2
    image = 4 * (units * d_head + parts + d_embed + 3 + 3) + 16
    return moments, poles + directions, image


def work_out(options):
    """Print disk and hours of full-size towers on large datasets: formulas, not measurements."""
    print(
        "| tower | moments | poles, directions | sample of 2 × 10,000 | one image whole | images/s of a GPU, assumed |"
    )
    print("|---|---|---|---|---|---|")
    for name, (*shape, gigaflop) in TOWERS.items():
        moments, poles, image = sizes(*shape)
        rate = 1e12 * options.teraflops / (1e9 * gigaflop)
        print(
            f"| {name} | {moments / 1e9:.2f} GB | {poles / 1e9:.2f} GB | {20_000 * image / 1e9:.1f} GB "
            f"| {image / 1024:.0f} KiB | {rate:.0f} |"
        )
    print("\n| dataset | tower | kept whole, all images | kept as moments | 1 GPU, two passes | 64 GPUs |")
    print("|---|---|---|---|---|---|")
    for dataset, images in DATASETS.items():
        for name, (*shape, gigaflop) in TOWERS.items():
            moments, poles, image = sizes(*shape)
            kept = moments + poles + 20_000 * image
            hours = 2 * images * 1e9 * gigaflop / (1e12 * options.teraflops) / 3600
            print(
                f"| {dataset} | {name} | {images * image / 1e12:.2f} TB | {kept / 1e9:.1f} GB "
                f"| {duration(hours)} | {duration(hours / 64)} |"
            )


def duration(hours):
    if hours >= 48:
        return f"{hours / 24:,.0f} days"
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"


def prepare(folder, count, sample):
    """Pictures, a seed's table of `count` images written piece by piece, its sample, and the model's files."""
    import numpy as np
    import pandas as pd
    from PIL import Image

    from clipspectra.arrays import save_table, table_chunks
    from clipspectra.data.samples import sample_images

    for number in range(16):
        Image.effect_noise((16, 16), 50 + number).convert("RGB").save(folder / f"{number}.png")
    digests = [hashlib.sha256((folder / f"{number}.png").read_bytes()).hexdigest() for number in range(16)]
    for start in range(0, count, 50_000):
        rows = np.arange(start, min(start + 50_000, count))
        images = {"row": rows, "image": [f"{row % 16}.png" for row in rows], "label": 0, "class": "", "group": ""}
        images |= {"split": "", "role": np.where(rows % 10 == 9, "eval", "fit")}
        table = pd.DataFrame(images | {"image_sha256": [digests[row % 16] for row in rows]})
        table.to_csv(folder / "images.csv", mode="a", header=not start, index=False)
    save_table(folder / "sample.csv", sample_images(table_chunks(folder / "images.csv"), "0", sample))


def run_moments(loaded, folder, count, options):
    """Both passes as the workflow's scripts make them; bytes that lay on disk for a while."""
    import numpy as np

    from clipspectra.contributions.joint import NUMBERS, load_sums, merge_sums, save_sums
    from clipspectra.contributions.kept import open_stored
    from clipspectra.contributions.shards import file_digest, images_to_stream, shard_numbers
    from clipspectra.contributions.stored import EMBEDDING
    from clipspectra.contributions.streaming import extract_moments, extract_poles, on_cpu, run_identity
    from clipspectra.explanations.spectral import principal_components
    from fix_components import directions_of

    shards, table, sample = -(-count // SHARD), folder / "images.csv", folder / "sample.csv"
    batches, passing = {"batch_size": options.batch, "workers": options.workers}, 0
    identity = run_identity(loaded, "held_out", shards) | {"model": "tiny", "dataset": "noise", "first_layer": 0}
    of_seed = {"seed": "0", "images": file_digest(table)}

    def save(kind, shard, sums, images, further=None):
        numbers = shard_numbers(images, [], "0", shard)
        path = folder / f"{kind}-{shard}.safetensors"
        save_sums(path, on_cpu(sums), identity | of_seed | {"kind": kind} | (further or {}), numbers)
        return path

    def merge(kind, paths):
        sums, metadata = merge_sums(paths)
        numbers = {key: metadata.pop(key) for key in NUMBERS}
        del metadata["count"]
        save_sums(folder / f"{kind}.safetensors", sums, metadata, numbers)
        size = sum(path.stat().st_size for path in paths)
        for path in paths:
            path.unlink()
        return size

    def streamed(shard):
        return images_to_stream({"0": table}, {"0": sample}, shard, shards, "held_out")

    paths, samples = [], []
    for shard in range(shards):
        images, fits = streamed(shard)
        stream, moments, proof = extract_moments(loaded, images, folder, folder, fits, **batches)
        samples.append(folder / f"sample-{shard}-of-{shards}.safetensors")
        stream.append({name: images[name].to_numpy()[:0] for name in ("row", "picture_id")})
        of_sample = {"images": {"0": of_seed["images"]}, "samples": {"0": file_digest(sample)}}
        stream.save(samples[-1], identity | proof | of_sample, order_by="row")
        paths.append(save("moments", shard, moments["0"], images))
    passing = merge("moments", paths)
    files = {"shards": samples, "basis": folder / "basis.safetensors", "images": sample}
    stored = open_stored(files | {"moments": folder / "moments.safetensors"}, "held_out")
    directions = {"embedding": principal_components(*stored.fit_moments(EMBEDDING))[1]}
    for kind, of in (("components", stored.fit_moments), ("weights", stored.weight_moments)):
        directions[kind] = np.stack([directions_of(stored, layer, of(layer)) for layer in stored.layers])
    centres, paths = {"0": load_sums(folder / "moments.safetensors")[0]}, []
    for shard in range(shards):
        images, fits = streamed(shard)
        sums, _ = extract_poles(loaded, images, folder, fits, {"0": directions}, centres, **batches)
        paths.append(save("poles", shard, sums["0"], images))
    return passing + merge("poles", paths)


def run_images(loaded, folder, count, options):
    """An extraction that keeps all images, shard by shard."""
    from clipspectra.contributions.extraction import extract
    from clipspectra.contributions.shards import images_of_shard

    shards = -(-count // SHARD)
    for shard in range(shards):
        images = images_of_shard([folder / "images.csv"], shard, shards)
        stream, proof = extract(loaded, images, folder, folder, batch_size=options.batch, workers=options.workers)
        stream.save(folder / f"shard-{shard}.safetensors", proof)
    return 0


def make_manifest(path, count):
    """Write a manifest of `count` pictures that are not there, as one of tar files without classes, in no order."""
    with open(path, "w") as file:
        file.write("image,label,class,group,split,mask\n")
        for row in range(count):
            split = "test" if row % 10 == 9 else "train"
            file.write(f"tars/{row // SHARD:05d}.tar/{row * 7919 % count:012d}.jpg,0,,,{split},\n")


def choose(folder):
    """As choose_images does: the images of a seed, with digests of their names in place of their files'."""
    from clipspectra.arrays import save_pieces, table_chunks
    from clipspectra.data.choosing import ChosenRows, check_requirements, shared_images
    from clipspectra.data.datasets import Manifest

    def with_digests(piece):
        return piece.assign(image_sha256=[hashlib.sha256(name.encode()).hexdigest() for name in piece["image"]])

    chosen = ChosenRows(Manifest(folder / "manifest.csv"), ROLES, 0)
    check_requirements(chosen, [], False, "noise")
    save_pieces(folder / "images.csv", map(with_digests, chosen))
    save_pieces(folder / "shared.csv", shared_images(table_chunks(folder / "images.csv")))


def draw_sample(folder):
    from clipspectra.arrays import save_table, table_chunks
    from clipspectra.data.samples import sample_images

    save_table(folder / "sample.csv", sample_images(table_chunks(folder / "images.csv"), "0", 500))


def read_shard(folder):
    from clipspectra.contributions.shards import images_to_stream

    shards = -(-(folder / "manifest.csv").stat().st_size // (50 * SHARD))
    images_to_stream({"0": folder / "images.csv"}, {"0": folder / "sample.csv"}, 0, shards, "held_out")


def describe(folder):
    from clipspectra.paper.study import describe_dataset

    describe_dataset({}, [folder / "images.csv"])


def compare_seeds(folder):
    """What the tables of shared images and of stability ask of two seeds, here the same one."""
    from clipspectra.arrays import table_chunks
    from clipspectra.on_disk import common

    def digests():
        for chunk in table_chunks(folder / "images.csv"):
            yield from chunk["image_sha256"]

    common([digests(), digests()])


TABLE_JOBS = {
    "choose_images": choose,
    "sample_images": draw_sample,
    "a shard of extract_moments": read_shard,
    "describe_study": describe,
    "seeds compared": compare_seeds,
}


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def run_on_table(name, folder):
    """Do one job on the tables of a folder in this process and print its numbers as JSON."""
    sys.path.append(str(Path(__file__).parents[1] / "scripts"))
    import clipspectra.contributions.shards
    import clipspectra.data.choosing  # noqa: F401

    before, start = peak(), time.process_time()
    TABLE_JOBS[name](folder)
    print(json.dumps({"seconds": time.process_time() - start, "peak": peak() - before}))


def measure_tables(options):
    """Print what each job takes that reads a table of images."""
    print("| images | table, MB | " + " | ".join(f"{name}, MiB (s)" for name in TABLE_JOBS) + " |")
    print("|---|---|" + "---|" * len(TABLE_JOBS))
    for count in options.images:
        with tempfile.TemporaryDirectory() as folder:
            folder, cells = Path(folder), []
            make_manifest(folder / "manifest.csv", count)
            for name in TABLE_JOBS:
                command = [sys.executable, __file__, "--of", name, str(folder)]
                output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
                numbers = json.loads(output.splitlines()[-1])
                cells.append(f"{numbers['peak']:.0f} ({numbers['seconds']:.1f})")
            table = (folder / "images.csv").stat().st_size / 1e6
            print(f"| {count:,} | {table:.1f} | {' | '.join(cells)} |", flush=True)


def run(keep, count, options):
    """Do one row's work in this process and print its numbers as JSON."""
    root = Path(__file__).parents[1]
    sys.path.append(str(root / "scripts"))
    from clipspectra.arrays import save_arrays
    from clipspectra.contributions.exact import head_basis, value_grams
    from clipspectra.towers import models
    from clipspectra.towers.families import adapt
    from clipspectra.towers.tower import weights_digest

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "tiny.json").write_text(json.dumps(TINY))
        loaded = models.load(folder / "tiny.json")
        tower = adapt(loaded.model.visual)
        bases = {"basis": head_basis(tower).numpy(), "value_gram": value_grams(tower).numpy()}
        save_arrays(folder / "basis.safetensors", bases, {"weights": weights_digest(loaded.model.visual)})
        before = peak()
        prepare(folder, count, options.sample)
        start = time.process_time()
        passing = {"moments": run_moments, "images": run_images}[keep](loaded, folder, count, options)
        seconds = time.process_time() - start
        kept = (
            sum(path.stat().st_size for path in folder.glob("*.safetensors"))
            - (folder / "basis.safetensors").stat().st_size
        )
        table = (folder / "images.csv").stat().st_size
        numbers = {"seconds": seconds, "peak": peak() - before, "kept": kept, "passing": passing, "table": table}
        print(json.dumps(numbers))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--sample", type=int, default=500)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--keep", nargs="+", default=["images", "moments"], choices=["images", "moments"])
    parser.add_argument("--tables", action="store_true", help="only what reads tables of images")
    parser.add_argument("--work-out", action="store_true")
    parser.add_argument("--teraflops", type=float, default=12, help="of a GPU, for --work-out")
    parser.add_argument("--of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work_out:
        return work_out(options)
    if options.of and options.of[0] in TABLE_JOBS:
        return run_on_table(options.of[0], Path(options.of[1]))
    if options.tables:
        return measure_tables(options)
    if options.of:
        return run(options.of[0], int(options.of[1]), options)
    print("| images | keep | CPU seconds | peak beyond the model, MiB | on disk, MB | for a while, MB | table, MB |")
    print("|---|---|---|---|---|---|---|")
    for count in options.images:
        for keep in options.keep:
            command = [sys.executable, __file__, *sys.argv[1:], "--of", keep, str(count)]
            threads = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
            output = subprocess.run(command, env=threads, stdout=subprocess.PIPE, text=True, check=True).stdout
            numbers = json.loads(output.splitlines()[-1])
            megabytes = [f"{numbers[name] / 1e6:.1f}" for name in ("kept", "passing", "table")]
            row = [f"{count:,}", keep, f"{numbers['seconds']:.0f}", f"{numbers['peak']:.0f}", *megabytes]
            print(f"| {' | '.join(row)} |", flush=True)
    return None


if __name__ == "__main__":
    main()
