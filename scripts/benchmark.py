"""How fast: our work on an image in units of a plain open_clip forward pass, measured in one run (`make benchmark`).

Full-size architectures with random weights: speed and exactness do not depend on them.
"""

import argparse
import statistics
import time

import torch
from tqdm import tqdm

from clipspectra import models
from clipspectra.contributions import activations, contributions, head_basis, sum_error
from clipspectra.segment import patch_maps


@torch.no_grad()
def measure(architecture, batch, repeats, with_dense):
    """{what: median seconds an image over `repeats` rounds, the candidates in turn}, bytes stored, sum error."""
    model = models.load(architecture, None).model
    size = model.visual.image_size
    images = torch.randn(batch, 3, *((size, size) if isinstance(size, int) else size))
    classifier = torch.randn(model.visual.output_dim, 1000)
    work = {
        "plain forward": lambda: model.encode_image(images, normalize=True),
        "extraction": lambda: activations(model, images),
        "patch maps, 1,000 classes": lambda: patch_maps(model, images, classifier),
    }
    if with_dense:
        work["dense, by token and head"] = lambda: contributions(model, images, per_token=True)
    seconds = {name: [] for name in work}
    for round_number in tqdm(range(repeats + 1), desc=f"{architecture}, batch {batch}", leave=False):
        for name, call in work.items():
            start = time.perf_counter()
            call()
            if round_number:  # the first round warms up
                seconds[name].append((time.perf_counter() - start) / batch)
    found = activations(model, images)
    stored = 4 * (found.z[0].numel() + found.scalars.shape[1])
    dense = 4 * found.z.shape[1] * found.z.shape[2] * found.embedding.shape[1]
    error = sum_error(found, head_basis(model.visual))
    return {name: statistics.median(times) for name, times in seconds.items()}, dense / stored, error


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="+", default=["ViT-B-16", "ViT-L-14"])
    parser.add_argument("--batches", nargs="+", type=int, default=[8])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; ratios to the plain forward of the same row\n"
    )
    print("| architecture | batch | work | ms an image | ratio |\n|---|---|---|---|---|")
    notes = []
    for architecture in arguments.architectures:
        for batch in arguments.batches:
            seconds, smaller, error = measure(architecture, batch, arguments.repeats, batch == min(arguments.batches))
            for name, value in seconds.items():
                ratio = value / seconds["plain forward"]
                print(f"| {architecture} | {batch} | {name} | {1000 * value:.1f} | {ratio:.2f} |", flush=True)
        notes.append(f"{architecture}: heads stored {smaller:.1f} times smaller than dense, sum error {error:.1e}")
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
