"""Time of scoring segmentations: against scikit-learn map by map, and as a share of the forward passes.

Maps of random evidence on 14 × 14 patches, half of it negative, against masks with 5 % unlabelled pixels: average
precision alone by scikit-learn, all scores by the batch, in turn. The share: scores of a batch at the model's and the
pictures' own resolution, in units of the methods' evidence, by a full-size model with random weights.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from clipspectra.data.geometry import model_view_box
from clipspectra.segmentation.baselines import BASELINES
from clipspectra.segmentation.images import method_evidence, score_batch
from clipspectra.segmentation.maps import VARIANTS, upsample
from clipspectra.segmentation.scoring import VOID, scores
from clipspectra.towers import models
from clipspectra.towers.families import adapt

PICTURE = (375, 500)  # height, width
GRID = (14, 14)
CASES = {"14 × 14": (2000, GRID), "224 × 224": (32, (224, 224)), "375 × 500": (13, PICTURE)}  # number and size of maps


def random_masks(shape, rng):
    """Masks [image, height, width] with 35 % foreground and 5 % unlabelled pixels."""
    return rng.choice(np.array([0, 1, VOID], np.uint8), shape, p=[0.6, 0.35, 0.05])


def one_by_one(maps, masks):
    """Average precision of each map by scikit-learn."""
    for values, mask in zip(maps, masks):
        labelled = mask != VOID
        values, mask = values[labelled], mask[labelled] == 1
        average_precision_score(np.r_[~mask, mask], np.r_[1 - values, values])


def seconds(calls, repeats):
    """{name: median seconds of a call}, over `repeats` rounds of all calls in turn."""
    times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(measured) for name, measured in times.items()}


def compare_with_scikit_learn(repeats, rng):
    print("| maps | scikit-learn, ms per map | batch, ms per map | times as fast |\n|---|---|---|---|")
    for name, (count, size) in CASES.items():
        maps = upsample(torch.from_numpy(rng.normal(size=(count, GRID[0] * GRID[1]))), GRID, size).float().numpy()
        masks = random_masks(maps.shape, rng)
        calls = {"one": lambda x=maps, y=masks: one_by_one(x, y), "batch": lambda x=maps, y=masks: scores(x, y)}
        one, batch = (1000 * value / count for value in seconds(calls, repeats).values())
        print(f"| {count:,} of {name} | {one:.3f} | {batch:.3f} | {one / batch:.1f} |")


def compare_with_forward_passes(loaded, batch, repeats, rng):
    print("\n| methods | evidence, s | scores, s | scores, % of the evidence |\n|---|---|---|---|")
    tower, shape = adapt(loaded.model.visual), (batch, *loaded.image_size)
    images = torch.randn(batch, 3, *loaded.image_size)
    with torch.no_grad():
        width = loaded.model.encode_image(images[:1].to(loaded.device)).shape[1]
    classifier = torch.randn(width, 1000, device=loaded.device)
    masks, own = random_masks(shape, rng), random_masks((batch, *PICTURE), rng)
    own = [(mask, model_view_box(PICTURE, loaded.preprocess)) for mask in own]
    options = {"classes": None, "tower": tower, "log": print}
    for methods in (["decomposition"], ["decomposition", *VARIANTS, *BASELINES]):
        evidence = method_evidence(loaded.model, images, classifier, methods, **options)
        calls = {
            "evidence": lambda m=methods: method_evidence(loaded.model, images, classifier, m, **options),
            "scores": lambda e=evidence: score_batch(e, tower.grid, masks, list(range(batch)), own),
        }
        forward, scoring = seconds(calls, repeats).values()
        name = methods[0] if len(methods) == 1 else f"all {len(evidence)}"
        print(f"| {name} | {forward:.2f} | {scoring:.3f} | {100 * scoring / forward:.1f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="ViT-B-16")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    compare_with_scikit_learn(options.repeats, rng)
    loaded = models.load(options.architecture, None, device=options.device)
    compare_with_forward_passes(loaded, options.batch, options.repeats, rng)


if __name__ == "__main__":
    main()
