"""Time of explanations, compared with the dense formulation of the reference (`make benchmark`).

Heads of ViT-L-14's size with random weights and activations: z of 64 numbers and 3 scalars, a joint space of 768. The
dense formulation holds every head's contributions [image, d_embed]; of its 80 TextSpan steps a few are timed and the
time is extrapolated, as all steps cost the same.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from clipspectra.contributions.moments import Moments, Reduced
from clipspectra.evaluation.recovery import Frame, rebuild
from clipspectra.explanations.methods import explain
from clipspectra.explanations.naming import ActivitySums, TextPool, name_components
from clipspectra.explanations.textspan import text_span

D_HEAD, D_EMBED = 64, 768
STEPS, DENSE_STEPS = 80, 2


def random_head(images, rng):
    """Reduced of one head: q [image, coordinate] with a decaying spectrum, and basis [d_embed, coordinate]."""
    z = rng.normal(size=(images, D_HEAD)) * 0.93 ** np.arange(D_HEAD)
    scalars = 1 + 0.1 * rng.normal(size=(images, 3))
    return Reduced(np.concatenate([z, scalars], axis=1), rng.normal(size=(D_EMBED, D_HEAD + 3)) / np.sqrt(D_EMBED))


def dense_text_span(data, texts, steps):
    """Seconds of the greedy algorithm on the images themselves, float32, as in the reference."""
    data, texts = data - data.mean(0), texts - texts.mean(0)
    components = np.linalg.svd(data, full_matrices=False)[2][:STEPS]
    texts = texts @ components.T @ components
    start = time.perf_counter()
    for _ in range(steps):
        best = (data @ texts.T).std(0).argmax()
        direction = texts[best] / np.linalg.norm(texts[best])
        data = data - np.outer(data @ direction, direction)
        texts = texts - np.outer(texts @ direction, direction)
    return time.perf_counter() - start


def dense_components(data, texts):
    """SVD of the contributions, and all texts sorted along each component."""
    components = np.linalg.svd(data - data.mean(0), full_matrices=False)[2][:67]
    return np.argsort((texts - texts.mean(0)) @ components.T, axis=0)


def random_names(images, text_count, rng):
    """(components, scores [image, component], embeddings [image, d_embed], TextPool) of one head."""
    embeddings = rng.normal(size=(images, D_EMBED)) * 0.99 ** np.arange(D_EMBED)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    texts, components = rng.normal(size=(text_count, D_EMBED)), np.linalg.qr(rng.normal(size=(D_EMBED, D_HEAD)))[0].T
    scores = embeddings @ components.T
    pool = TextPool(texts / np.linalg.norm(texts, axis=1, keepdims=True), Moments.from_data(embeddings))
    return components, scores - scores.mean(0), embeddings, pool


def dense_names(scores, similarities):
    """What one head fires on from the similarities of all images and texts, standardised before [image, text]."""
    return [(np.maximum(sign * scores, 0).T @ similarities).argmax(1) for sign in (1, -1)]


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def print_row(work, ours, dense, note=""):
    dense = f"{dense:.1f}" if dense else ""
    ratio = f"{float(dense) / ours:.0f}" if dense else ""
    print("|", " | ".join([work, f"{ours:.2f}", dense, ratio, note]), "|", flush=True)


def explanation_memory(head_count, text_count):
    """Explain many heads by components with many texts, one after another; print the peak memory in MiB."""
    rng = np.random.default_rng(0)
    texts, head = rng.normal(size=(text_count, D_EMBED)).astype(np.float32), random_head(1000, rng)
    moments = Moments.from_data(head)
    explanations = [explain("components", moments, texts, rng=rng) for _ in range(head_count)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps({"heads": len(explanations), "MiB": peak}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--texts", type=int, default=8000)
    parser.add_argument("--heads", type=int, default=64)
    parser.add_argument("--memory", nargs=2, type=int, default=[512, 15000], help="heads and texts")
    parser.add_argument("--memory-of", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        return explanation_memory(*arguments.memory_of)
    command = [sys.executable, __file__, "--memory-of", *map(str, arguments.memory)]
    peak = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(f"peak memory, components of {peak['heads']} heads with {arguments.memory[1]:,} texts: {peak['MiB']:.0f} MiB")
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(arguments.texts, D_EMBED)).astype(np.float32)
    head = random_head(arguments.images, rng)
    moments, dense = Moments.from_data(head), head.dense().astype(np.float32)
    print(f"\n{arguments.images:,} images, {arguments.texts:,} texts, d_head {D_HEAD}, d_embed {D_EMBED}; seconds\n")
    print("| work | ours | dense | times faster | |\n|---|---|---|---|---|")
    with threadpool_limits(1):
        ours = timed(lambda: text_span(moments, texts, iterations=STEPS))
        reference = dense_text_span(dense, texts, DENSE_STEPS) * STEPS / DENSE_STEPS
    note = f"dense: extrapolated from {DENSE_STEPS} of {STEPS} steps"
    print_row("TextSpan of one head, 80 texts, one core", ours, reference, note)
    reference = timed(lambda: dense_components(dense, texts)) * arguments.heads
    explanations, seconds = {}, {}
    for method in ("components", "textspan", "sparse", "sparse_coherent"):
        start = time.perf_counter()
        for number in tqdm(range(arguments.heads), desc=method, leave=False):
            explanations[method, number] = explain(method, Moments.from_data(head), texts)
        seconds[method] = time.perf_counter() - start
    prefix, note = f"{arguments.heads} heads: ", "dense: extrapolated from one head"
    print_row(prefix + "components with texts", seconds["components"], reference, note)
    print_row(prefix + "TextSpan to its end", seconds["textspan"], None)
    print_row(prefix + "sparse sums of 5 texts", seconds["sparse"], None)
    print_row(prefix + "sparse coherent sums", seconds["sparse_coherent"], None)
    components, scores, embeddings, pool = random_names(arguments.images, arguments.memory[1], rng)
    sums = ActivitySums()
    sums.add(scores, embeddings)
    activity, similarities = sums.activity(), (embeddings @ pool.features.T).astype(np.float32)
    name_components(components, activity, pool, texts_per_pole=5)  # what is computed once
    rounds = range(arguments.heads)
    ours = timed(lambda: [name_components(components, activity, pool, texts_per_pole=5) for _ in rounds])
    reference = timed(lambda: dense_names(scores.astype(np.float32), similarities)) * arguments.heads
    print_row(prefix + f"both names from {arguments.memory[1]:,} texts", ours, reference, note + ", one naming")
    rebuilt_heads = {number: explanations["textspan", number] for number in range(arguments.heads)}
    frames = {number: Frame(head.basis, head.dense().mean(0)) for number in rebuilt_heads}
    coordinates = {number: frame.coordinates(head.q[:1000]) for number, frame in frames.items()}
    seconds = timed(lambda: rebuild(rebuilt_heads, frames, coordinates, [0, 5, *range(10, 81, 10)]))
    print_row(f"{arguments.heads} heads rebuilt at 10 budgets, 1,000 images", seconds, None)
    return None


if __name__ == "__main__":
    main()
