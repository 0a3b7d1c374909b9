"""What the work costs on a GPU, in sections (docs/gpu.md): each prints its rows and adds them to a JSON file.

Full-size architectures with random weights: speed and exactness do not depend on them. Kinds of work that are compared
take turns in one run, and each ends with a synchronisation.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from benchmark_extraction import measure
from benchmark_texts import common_words, descriptions, embed_padded
from PIL import Image
from torch.nn import functional as F

from clipspectra.contributions.exact import activations, sum_errors
from clipspectra.contributions.extraction import DecomposedImages, extract
from clipspectra.data.pictures import ImageFiles, batches
from clipspectra.data.store import picture_ids
from clipspectra.data.texts import embed_texts
from clipspectra.towers import devices, models

SECONDS = 1.0  # that the rounds of one measurement take, three rounds at least
PICTURES = 50  # files, each read many times


def synchronise(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


@cache
def _loaded(architecture, device):
    return models.load(architecture, None, device=device)


def load(architecture, precision, options):
    """A model with random weights, made once for all precisions."""
    return replace(_loaded(architecture, options.device), precision=precision)


def take_turns(work, device):
    """{name: (median seconds, peak MiB above what was there before)} of calls that take turns, after one to warm up."""
    seconds, peaks = {name: [] for name in work}, dict.fromkeys(work, 0)
    rounds, done = 3, -1
    while done < rounds:
        for name, call in work.items():
            synchronise(device)
            if device.type == "cuda":
                before = torch.cuda.memory_allocated()
                torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            call()
            synchronise(device)
            seconds[name].append(time.perf_counter() - start)
            if device.type == "cuda":
                peaks[name] = (torch.cuda.max_memory_allocated() - before) / 2**20
        done += 1
        if done == 1:
            rounds = max(3, min(30, int(SECONDS / sum(times[-1] for times in seconds.values()))))
    return {name: (statistics.median(times[1:]), peaks[name]) for name, times in seconds.items()}


@torch.no_grad()
def passes(options):
    """A plain pass, extraction with its proof, the proof alone, and what it takes to bring the arrays to the CPU."""
    for architecture in options.architectures:
        for precision in options.precisions:
            loaded = load(architecture, precision, options)
            images_of = DecomposedImages(loaded)
            tower, basis, too_slow = images_of.tower, images_of.basis, False
            for size in options.batches:
                if too_slow:
                    continue
                images = torch.randn(size, 3, *loaded.image_size, device=loaded.device)
                with loaded.autocast():
                    batch = activations(loaded.model, images, tower=tower)

                def decompose(images=images, loaded=loaded, tower=tower, basis=basis):
                    with loaded.autocast():
                        decomposed = activations(loaded.model, images, tower=tower)
                    return sum_errors(decomposed, basis)

                def plain(images=images, loaded=loaded):
                    with loaded.autocast():
                        return loaded.model.encode_image(images, normalize=True)

                work = {"plain": plain, "extraction": decompose}
                work["proof"] = lambda batch=batch, basis=basis: sum_errors(batch, basis)
                work["arrays"] = lambda batch=batch, images_of=images_of: images_of.stored_arrays(batch, {})
                turns = take_turns(work, loaded.device)
                whole = whole_rate(images_of, images)
                (plain_s, plain_peak), (own_s, own_peak) = turns["plain"], turns["extraction"]
                yield {
                    "architecture": architecture,
                    "precision": precision,
                    "batch": size,
                    "plain, images/s": size / plain_s,
                    "extraction, images/s": size / own_s,
                    "ratio": plain_s / own_s,
                    "with all copies, images/s": whole,
                    "its ratio": whole * plain_s / size,
                    "proof, ms": 1000 * turns["proof"][0],
                    "of the batch, both sums": 2 * turns["proof"][0] / own_s,
                    "arrays to the CPU, ms": 1000 * turns["arrays"][0],
                    "plain, MiB": plain_peak,
                    "extraction, MiB": own_peak,
                    "sum error": sum_errors(batch, basis).max().item(),
                }
                too_slow = 4 * (plain_s + own_s) > 3 * SECONDS  # a larger batch takes as long an image
                del batch, images, work


def whole_rate(images_of, images, count=8):
    """Images a second as the workflow runs them, to arrays in the CPU's memory, without reading and writing files."""

    def in_memory(files, size, **_):
        for start in range(0, len(files), size):
            yield list(range(start, start + size)), (images,)

    size = len(images)
    table = table_of(size * count).assign(checked=False)
    with patch("clipspectra.contributions.extraction.batches", in_memory):
        for done, (_, batch, errors) in enumerate(images_of.batches(table, ".", batch_size=size, workers=0)):
            images_of.stored_arrays(batch, errors)
            if done == 1:  # two batches to warm up
                start = time.perf_counter()
    return size * (count - 2) / (time.perf_counter() - start)


@torch.no_grad()
def agreement(options):
    """The same images on the CPU in float32 and on the device in each precision; and how far the bits are the same."""
    for architecture in options.architectures[:2]:
        loaded = load(architecture, "fp32", options)
        images = torch.randn(8, 3, *loaded.image_size, generator=torch.Generator().manual_seed(0))
        expected = activations(deepcopy(loaded.model).cpu(), images)
        for precision in options.precisions:
            loaded = load(architecture, precision, options)
            tower = DecomposedImages(loaded).tower

            def on_device(order, loaded=loaded, tower=tower, images=images):
                with loaded.autocast():
                    return activations(loaded.model, images[order].to(loaded.device), tower=tower)

            of_gpu, order = on_device(list(range(8))), [3, 1, 0, 2, 7, 6, 5, 4]
            again, moved, filled = on_device(list(range(8))), on_device(order), on_device([0, 1, 2, 2, 2, 2, 2, 2])
            row = {"architecture": architecture, "precision": precision}
            for name in ("z", "mlps", "class_self"):
                right = getattr(expected, name)
                row[name] = ((getattr(of_gpu, name).cpu() - right).abs().max() / right.abs().max()).item()
            row["e/n"] = (F.normalize(of_gpu.embedding).cpu() - F.normalize(expected.embedding)).abs().max().item()
            row["same bits again"] = torch.equal(of_gpu.z, again.z)
            row["at another place"] = torch.equal(of_gpu.z[order], moved.z)
            row["beside others"] = torch.equal(of_gpu.z[:3], filled.z[:3])
            yield row


def profile(options):
    """The kernels whose time differs most between a plain pass and an extraction, and the time of all."""
    from torch.profiler import ProfilerActivity

    for precision in options.precisions:
        architecture, size = options.profiled, options.batches[1 if len(options.batches) > 1 else 0]
        loaded = load(architecture, precision, options)
        images_of = DecomposedImages(loaded)
        images = torch.randn(size, 3, *loaded.image_size, device=loaded.device)
        times = {}
        for name in ("plain", "extraction", "arrays"):
            with torch.no_grad(), loaded.autocast():
                batch = activations(loaded.model, images, tower=images_of.tower)
            calls = {
                "plain": lambda loaded=loaded, images=images: loaded.model.encode_image(images, normalize=True),
                "extraction": lambda loaded=loaded, images=images, images_of=images_of: sum_errors(
                    activations(loaded.model, images, tower=images_of.tower), images_of.basis
                ),
                "arrays": lambda images_of=images_of, batch=batch: images_of.stored_arrays(batch, {}),
            }
            with torch.no_grad(), loaded.autocast():
                calls[name]()
                synchronise(loaded.device)
                activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (loaded.device.type == "cuda")]
                start = time.perf_counter()
                with torch.profiler.profile(activities=activities) as profiler:
                    calls[name]()
                    synchronise(loaded.device)
                wall = time.perf_counter() - start
            kernels = Counter()
            for event in profiler.events():
                if event.device_type == torch.autograd.DeviceType.CUDA:
                    kernels[event.name[:90]] += event.time_range.elapsed_us() / 1000
            times[name] = kernels
            yield {"precision": precision, "work": name, "all kernels, ms": sum(kernels.values()), "wall": 1000 * wall}
        names = sorted({*times["plain"], *times["extraction"]}, key=lambda name: -times["extraction"][name])
        names.sort(key=lambda name: -abs(times["extraction"][name] - times["plain"][name]))
        for name in names[:12]:
            row = {"precision": precision, "kernel": name}
            yield row | {f"{work}, ms": times[work][name] for work in ("plain", "extraction")}


def maps(options):
    """Patch maps and baselines, in units of a plain pass."""
    for precision in ("fp32", "bf16"):
        loaded = load(options.architectures[0], precision, options)
        timing = measure(loaded, options.batches[0], 5, with_baselines=True)
        for name, seconds in timing.items():
            row = {"architecture": options.architectures[0], "precision": precision, "batch": options.batches[0]}
            ratio = seconds / timing["plain forward"]
            yield row | {"work": name, "ms per image": 1000 * seconds, "of a plain pass": ratio}


def make_pictures(folder):
    """JPEGs of ImageNet's usual size, with as much detail as photographs have."""
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        noise = Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8))
        noise.resize((500, 375), Image.Resampling.BICUBIC).save(Path(folder) / f"{number}.jpg", quality=92)


def table_of(count, folder=None):
    """A table of images that are these pictures over and over; without a folder they are in memory."""
    rows, digests = np.arange(count), [""] * PICTURES
    if folder:
        files = (Path(folder) / f"{number}.jpg" for number in range(PICTURES))
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    columns = {"row": rows, "picture_id": picture_ids(digests)[rows % PICTURES], "checked": rows < 8}
    return pd.DataFrame({"image": [f"{row % PICTURES}.jpg" for row in rows], **columns})


def extraction_seconds(loaded, folder, count, batch_size, workers):
    """(seconds to decode, decompose and store, seconds to write them as one file at the end)."""
    table, start = table_of(count, folder), time.perf_counter()
    stream, _ = extract(loaded, table, folder, folder, batch_size=batch_size, workers=workers)
    middle = time.perf_counter()
    stream.save(Path(folder) / f"shard-{workers}.safetensors", {})
    return middle - start, time.perf_counter() - middle


def pipeline(options):
    """From files to stored arrays, by number of processes that decode."""
    with tempfile.TemporaryDirectory() as folder:
        make_pictures(folder)
        for architecture in options.architectures[:2]:
            loaded, size, count = load(architecture, "bf16", options), options.extraction_batch, options.images
            extraction_seconds(loaded, folder, 2 * size, size, 2)  # to warm up
            for workers in options.workers:
                files = ImageFiles(table_of(count, folder), folder, loaded.preprocess)
                start = time.perf_counter()
                for _, (images,) in batches(files, size, workers=workers, device=loaded.device):
                    del images
                synchronise(loaded.device)
                decoding = time.perf_counter() - start
                seconds, saving = extraction_seconds(loaded, folder, count, size, workers)
                row = {"architecture": architecture, "precision": "bf16", "batch": size, "workers": workers}
                row |= {"decoding alone, images/s": count / decoding, "extraction, images/s": count / seconds}
                yield row | {"its file at the end, s": saving}


@torch.no_grad()
def texts(options):
    """Descriptions through the text tower of the last architecture in float32, without padding, and some with it."""
    loaded = load(options.architectures[-1], "fp32", options)
    pool = descriptions(common_words(loaded.tokenizer, 5000), options.texts, np.random.default_rng(0))
    step = max(1, len(pool) // 256)
    sample = pool[::step]
    embed_texts(loaded, sample)
    embed_padded(loaded, sample)
    start = time.perf_counter()
    embeddings = embed_texts(loaded, pool)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    loaded.tokenizer(pool)
    tokenising = time.perf_counter() - start
    start = time.perf_counter()
    padded = embed_padded(loaded, sample).cpu()
    padded_seconds = (time.perf_counter() - start) * len(pool) / len(sample)
    row = {"architecture": options.architectures[-1], "texts": len(pool), "s": seconds}
    row |= {"of it tokenising, s": tokenising, "padded, s": padded_seconds}
    yield row | {"largest difference": (embeddings[::step] - padded).abs().max().item()}


def shards(options):
    """One extraction, and two at once, on one card; each takes the first card that no other process has locked."""
    with tempfile.TemporaryDirectory() as folder:
        make_pictures(folder)
        own = [sys.executable, __file__, "--shard-in", folder, "--device", options.device]
        own += ["--images", str(options.images), "--extraction-batch", str(options.extraction_batch)]
        own += ["--architectures", options.architectures[min(1, len(options.architectures) - 1)]]
        own += ["--workers", str(options.workers[-1] // 2)]
        for count in (1, 2):
            folders = [tempfile.mkdtemp(dir=folder) for _ in range(count)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            processes = [subprocess.Popen([*own, "--write-in", place], **pipes) for place in folders]
            cards = [process.stdout.readline().strip() for process in processes]
            for process in processes:
                process.stdin.write("go\n")
                process.stdin.flush()
            rates = [float(process.communicate()[0]) for process in processes]
            yield {"processes": count, "card of each": " ".join(cards), "images/s in all": sum(rates)}


def run_shard(options):
    """One process of `shards`: says which of two cards it would have taken, waits for the start, says its rate."""
    loaded = load(options.architectures[0], "bf16", options)
    uuid = torch.cuda.get_device_properties(0).uuid if loaded.device.type == "cuda" else "cpu"
    make_pictures(options.write_in)
    arguments = loaded, options.write_in
    extraction_seconds(*arguments, 2 * options.extraction_batch, options.extraction_batch, 2)
    print(devices.lock_free_gpu([uuid, f"{uuid}-second"]), flush=True)
    input()
    seconds = extraction_seconds(*arguments, options.images, options.extraction_batch, options.workers[0])
    print(options.images / sum(seconds), flush=True)


SECTIONS = {section.__name__: section for section in (passes, agreement, profile, maps, pipeline, texts, shards)}


def run(name, options, results):
    """Print and keep a section's rows until its time is over; an error ends the section alone."""
    start, columns = time.perf_counter(), None
    print(f"\n{name}: {SECTIONS[name].__doc__}\n", flush=True)
    results[name] = []
    try:
        for row in SECTIONS[name](options):
            if columns != list(row):
                columns = list(row)
                print("|", " | ".join(columns), "|\n|" + "---|" * len(columns))
            print("|", " | ".join(map(shown, row.values())), "|", flush=True)
            results[name].append(row)
            Path(options.out).write_text(json.dumps(results, indent=1))
            if time.perf_counter() - start > options.seconds:
                print(f"(the rest is left out after {options.seconds} s)")
                break
    except Exception:
        results[f"{name}, error"] = traceback.format_exc()
        print(results[f"{name}, error"], flush=True)
        Path(options.out).write_text(json.dumps(results, indent=1))
    print(f"({time.perf_counter() - start:.1f} s)", flush=True)


def shown(value):
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", default=[], help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--out", default="benchmark_gpu.json")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=120, help="after which a section begins no further row")
    parser.add_argument("--architectures", nargs="+", default=["ViT-B-16", "ViT-L-14", "ViT-H-14"])
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp32", "tf32"])
    parser.add_argument("--batches", nargs="+", type=int, default=[32, 128, 512])
    parser.add_argument("--profiled", default="ViT-L-14")
    parser.add_argument("--images", type=int, default=4000, help="pictures from files in one extraction")
    parser.add_argument("--extraction-batch", type=int, default=128)
    parser.add_argument("--workers", nargs="+", type=int, default=[4, 8, 15])
    parser.add_argument("--texts", type=int, default=15000)
    parser.add_argument("--shard-in", help=argparse.SUPPRESS)
    parser.add_argument("--write-in", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.shard_in:
        return run_shard(options)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    results = {"card": card, "torch": torch.__version__, "cuda": torch.version.cuda}
    print(f"{card}, torch {torch.__version__}, CUDA {torch.version.cuda}", flush=True)
    for name in options.sections or SECTIONS:
        run(name, options, results)
    return None


if __name__ == "__main__":
    main()
