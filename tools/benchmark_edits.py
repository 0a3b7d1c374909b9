"""Exactness and cost of edits in the running model (`make benchmark`).

Full-size architectures with random weights: neither depends on them. Edits and plain forward passes take turns in one
run, on the same batch; on a CPU in CPU time. Exactness: the largest difference from the edit of the model's own sum of
contributions in float64, in normalised embeddings, with the same components and means.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from clipspectra.concepts.interventions import Intervention
from clipspectra.concepts.references import Reference
from clipspectra.contributions.exact import activations, head_basis
from clipspectra.editing import edited
from clipspectra.towers import models
from clipspectra.towers.families import adapt
from clipspectra.towers.tower import float64, weights_digest


def interventions(tower):
    """{name: Intervention} of a tower: a few components, all heads but those of one layer, and the MLPs."""
    last = len(tower.layers) - 1
    heads = [(layer, head) for layer in range(len(tower.layers)) for head in range(tower.layers[0].heads)]
    return {
        "9 components of the last 3 layers": Intervention().scale(
            0.0, [(layer, head, 0) for layer in range(last - 2, last + 1) for head in range(3)]
        ),
        "all heads of all layers but the last": Intervention().scale(0.0, [head for head in heads if head[0] < last]),
        "all MLPs": Intervention().scale_mlps(0.0),
    }


@torch.no_grad()
def reference_of(tower, batch, intervention, weights):
    """A Reference with means over a batch and random orthonormal components."""
    q, rng = batch.reduced().double(), np.random.default_rng(0)
    means = {head: q[:, head[0], head[1]].mean(0).cpu().numpy() for head in intervention.heads}
    components = {}
    for head, factors in intervention.heads.items():
        if factors.components:
            directions = np.linalg.qr(rng.normal(size=(batch.embedding.shape[1], len(factors.components))))[0].T
            components |= {(*head, number): row for number, row in zip(factors.components, directions)}
    mlps = float64(batch.mlps).sum(1).mean(0).cpu().numpy()
    return Reference(weights, 0, means, components, mlps=mlps)


@torch.no_grad()
def by_hand(tower, batch, intervention, reference):
    """The normalised embeddings of the edited sum of contributions, in float64, head by head."""
    embedding = F.normalize(batch.embedding.double(), dim=-1).cpu()
    q = batch.reduced().double().cpu()
    for (layer, head), factors in intervention.heads.items():
        basis = float64(head_basis(tower, [layer])[0, head]).cpu()
        centred = (q[:, layer, head] - torch.from_numpy(reference.means[layer, head])) @ basis.T
        embedding = embedding + (factors.rest - 1) * centred
        for number, factor in factors.components.items():
            direction = torch.from_numpy(reference.components[layer, head, number])
            embedding = embedding + (factor - factors.rest) * torch.outer(centred @ direction, direction)
    mlps = batch.mlps.double().sum(1).cpu()
    embedding = embedding + (intervention.mlps - 1) * (mlps - torch.from_numpy(reference.mlps))
    return F.normalize(embedding, dim=-1)


def timed(call, device):
    """Seconds that a call takes: of CPU time on a CPU, which others may use at the same time."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


@torch.no_grad()
def measure(loaded, batch_size, repeats):
    """Yield (work, seconds per image, ratio to a plain pass, largest difference) of a model's edits."""
    model, tower = loaded.model, adapt(loaded.model.visual)
    images = torch.randn(batch_size, 3, *loaded.image_size, device=loaded.device)
    start = time.perf_counter()
    weights = weights_digest(model.visual)
    hashing = time.perf_counter() - start
    batch = activations(model, images, tower=tower)
    for name, intervention in interventions(tower).items():
        reference = reference_of(tower, batch, intervention, weights)
        with edited(model, intervention, reference):
            embedding = model.encode_image(images, normalize=True).double().cpu()
        error = (embedding - by_hand(tower, batch, intervention, reference)).abs().max().item()
        plain, live = [], []
        for repeat in tqdm(range(repeats + 1), desc=name, leave=False):
            times = [timed(lambda: model.encode_image(images, normalize=True), loaded.device)]
            with edited(model, intervention, reference):
                times.append(timed(lambda: model.encode_image(images, normalize=True), loaded.device))
            if repeat:  # the first one warms up
                plain.append(times[0])
                live.append(times[1])
        yield name, statistics.median(live) / batch_size, statistics.median(live) / statistics.median(plain), error
    yield "weights checked on entry, once", hashing, np.nan, np.nan


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="*", default=["ViT-B-16", "ViT-B-16-SigLIP", "RN50"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batches of {arguments.batch}\n")
    print("| architecture | edit | ms per image | ratio to a plain pass | largest difference |\n|---|---|---|---|---|")
    for architecture in arguments.architectures:
        loaded = models.load(architecture, None, device=arguments.device, towers="image")
        for name, seconds, ratio, error in measure(loaded, arguments.batch, arguments.repeats):
            numbers = f"{1000 * seconds:.1f} | " + (" | " if np.isnan(ratio) else f"{ratio:.2f} | {error:.1e}")
            print(f"| {architecture} | {name} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
