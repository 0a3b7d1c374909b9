"""Time and memory of the work on an image, in units of a plain open_clip forward pass (`make benchmark`).

Full-size architectures with random weights: speed and exactness do not depend on them. All kinds of work take turns in
one run. --memory shows the peak memory of extractions of more and more images, each in a separate process.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.nn import functional as F
from tqdm import tqdm

from clipspectra.contributions.exact import activations, head_basis, sum_errors
from clipspectra.contributions.extraction import extract
from clipspectra.data.datasets import with_digests
from clipspectra.data.pictures import ImageFiles
from clipspectra.data.store import picture_ids
from clipspectra.segmentation.baselines import BASELINES
from clipspectra.segmentation.maps import patch_maps
from clipspectra.towers import models
from clipspectra.towers.families import adapt


@torch.no_grad()
def brute_force(model, images):
    """Every head's and token's contribution by brute force, [image, layer, pos, head, d_embed], as usual scripts do.

    One forward pass to record each layer's input, then the attention of every pair of tokens, each head's output at
    every token for every source token in the stream [head, pos, source, d_model], LayerNorm and projection.
    """
    visual, states, final = model.visual, [], []
    blocks = visual.transformer.resblocks
    handles = [block.ln_1.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0])) for block in blocks]
    handles.append(visual.ln_post.register_forward_pre_hook(lambda _, inputs: final.append(inputs[0][:, 0])))
    norm = model.encode_image(images).norm(dim=-1)
    for handle in handles:
        handle.remove()
    mean, std = final[0].mean(-1), (final[0].var(-1, unbiased=False) + visual.ln_post.eps).sqrt()
    layers = []
    for block, state in zip(blocks, states):
        attention, part_count = block.attn, 2 * len(blocks) + 1
        projected = F.linear(block.ln_1(state), attention.in_proj_weight, attention.in_proj_bias)
        q, k, v = projected.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) * attention.head_dim**-0.5).softmax(-1)  # [image, head, pos, source]
        share_count, heads = attention.num_heads * weights.shape[-1], []
        for head, write in enumerate(attention.out_proj.weight.chunk(attention.num_heads, dim=1)):
            # of every target token: [image, pos, source, d_model], as in the reference; then of the class token
            read = weights[:, head, :, :, None] * v[:, head, None]
            added = (read @ write.T + attention.out_proj.bias / share_count)[:, 0]
            centred = added - mean[:, None, None] / part_count / share_count
            normed = centred / std[:, None, None] * visual.ln_post.weight
            normed = normed + visual.ln_post.bias / part_count / share_count
            heads.append(normed @ visual.proj / norm[:, None, None])
        layers.append(torch.stack(heads, dim=2))
    return torch.stack(layers, dim=1)


def timed(call, device):
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.no_grad()
def measure(loaded, batch, repeats, with_baselines=False):
    """{work: median seconds per image} over `repeats` rounds of all work in turn, after one round to warm up."""
    model, tower = loaded.model, adapt(loaded.model.visual)
    images = torch.randn(batch, 3, *loaded.image_size, device=loaded.device)
    classifier = torch.randn(model.visual.output_dim, 1000, device=loaded.device)
    basis = head_basis(tower).double()
    work = {
        "plain forward": lambda: model.encode_image(images, normalize=True),
        "extraction, with its proof": lambda: sum_errors(activations(model, images, tower=tower), basis),
        "patch maps, 1,000 classes": lambda: patch_maps(model, images, classifier, tower=tower),
    }
    if with_baselines:
        texts = F.normalize(classifier.T[:batch], dim=-1)
        work |= {
            name: lambda baseline=baseline: baseline(model, images, texts, tower)
            for name, baseline in BASELINES.items()
        }
    seconds = {name: [] for name in work}
    for repeat in tqdm(range(repeats + 1), desc=f"batch {batch}", leave=False):
        for name, call in work.items():
            with loaded.autocast():
                elapsed = timed(call, loaded.device)
            if repeat:
                seconds[name].append(elapsed / batch)
    return {name: statistics.median(times) for name, times in seconds.items()}


@torch.no_grad()
def measure_dense(loaded):
    """{work: seconds} for one image: a plain forward pass, and the brute force, which runs once."""
    model, image = loaded.model, torch.randn(1, 3, *loaded.image_size, device=loaded.device)
    plain = [timed(lambda: model.encode_image(image), loaded.device) for _ in range(5)]
    dense = timed(lambda: brute_force(model, image), loaded.device)
    return {"plain forward": statistics.median(plain), "dense, token by token": dense}


def stored_size(loaded):
    """A sentence on the size of an extraction's arrays and the largest error of their sum."""
    model, tower = loaded.model, adapt(loaded.model.visual)
    with loaded.autocast():
        batch = activations(model, torch.randn(4, 3, *loaded.image_size, device=loaded.device), tower=tower)
    heads = batch.z[0].numel() + batch.scalars[0].numel()
    total = heads + batch.mlps[0].numel() + batch.class_self[0].numel() + batch.embedding[0].numel()
    dense = batch.z.shape[1] * batch.z.shape[2] * batch.embedding.shape[1]
    return (
        f"stored per image, float32 (float16): heads {4 * heads / 1024:.0f} ({2 * heads / 1024:.0f}) KiB, "
        f"1/{dense / heads:.2f} (1/{2 * dense / heads:.2f}) of dense float32 heads; with MLPs, class-to-self terms and "
        f"embedding {4 * total / 1024:.0f} ({2 * total / 1024:.0f}) KiB; "
        f"sum error {sum_errors(batch, head_basis(tower).double()).max():.1e}"
    )


def decoding_rate(loaded, folder, count=64):
    """Images per second that one process decodes and preprocesses, JPEGs of ImageNet's usual 500 × 375 pixels."""
    rng = np.random.default_rng(0)
    for number in range(8):
        noise = Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8))
        noise.resize((500, 375), Image.Resampling.BICUBIC).save(Path(folder) / f"{number}.jpg", quality=92)
    table = pd.DataFrame({"image": [f"{number % 8}.jpg" for number in range(count)]})
    files = ImageFiles(table, folder, loaded.preprocess)
    start = time.perf_counter()
    for number in range(count):
        files[number]
    return count / (time.perf_counter() - start)


def extraction_memory(count):
    """Extract the demo's model on `count` images (16, repeated) and print the peak memory in MiB."""
    loaded = models.load("config/demo/digits-clip.json", "config/demo/balanced.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(16):
            Image.effect_noise((64, 64), 50 + number).convert("RGB").save(Path(folder) / f"{number}.png")
        table = pd.DataFrame({"image": [f"{number % 16}.png" for number in range(count)], "row": range(count)})
        ids = picture_ids(with_digests(table, folder)["image_sha256"])
        table = table.assign(picture_id=ids, checked=table["row"] < 8)
        stream, _ = extract(loaded, table, folder, folder, batch_size=100, workers=0)
        stream.save(Path(folder) / "shard.safetensors", {})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"images": count, "MiB": peak / (2**20 if sys.platform == "darwin" else 2**10)}))


def show_memory(counts):
    for count in counts:
        command = [sys.executable, __file__, "--memory-of", str(count)]
        peak = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(f"peak memory of an extraction of {peak['images']:,} images: {peak['MiB']:.0f} MiB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="*", default=["ViT-B-16", "ViT-L-14"])
    parser.add_argument("--batches", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precisions", nargs="+", default=["fp32"])
    parser.add_argument("--memory", nargs="*", type=int, default=[1000, 20000], help="numbers of images")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of is not None:
        return extraction_memory(arguments.memory_of)
    show_memory(arguments.memory)  # first: a process's peak counts what its parent held when it started it
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; ratios to the plain forward above\n")
    print("| architecture | precision | batch | work | ms per image | ratio |\n|---|---|---|---|---|---|")
    notes = []
    for architecture in arguments.architectures:
        for precision in arguments.precisions:
            loaded = models.load(architecture, None, device=arguments.device, precision=precision)
            smallest = min(arguments.batches)
            timings = [
                (batch, measure(loaded, batch, arguments.repeats, with_baselines=batch == smallest))
                for batch in arguments.batches
            ]
            if precision == "fp32":
                timings.append((1, measure_dense(loaded)))
                notes.append(f"{architecture}: {stored_size(loaded)}")
            for batch, timing in timings:
                for name, seconds in timing.items():
                    ratio = seconds / timing["plain forward"]
                    row = (architecture, precision, batch, name, f"{1000 * seconds:.1f}", f"{ratio:.2f}")
                    print("|", " | ".join(map(str, row)), "|", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            rate = decoding_rate(loaded, folder)
        notes.append(f"{architecture}: decoding 500 × 375 JPEGs, {rate:.0f} images per second and process")
    print("\n" + "\n".join(notes))
    return None


if __name__ == "__main__":
    main()
