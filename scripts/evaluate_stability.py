"""How stable components and their texts are: on disjoint images, over seeds, and over two halves of the text pool."""

from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd

from clipspectra.arrays import load_arrays, save_table, with_source
from clipspectra.contributions.kept import open_stored
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.evaluation.stability import by_chance, compare_components, compare_halves
from clipspectra.explanations.head import load_explanations
from clipspectra.explanations.spectral import explain_components
from clipspectra.jobs import job, progress
from clipspectra.on_disk import common


def half_components(stored, texts, options, rng):
    """({(layer, head): components of each disjoint half of the fit images}, images of the smaller, overlap in %).

    The halves share no row of the manifest; they overlap where a picture is in it twice.
    """
    halves = np.array_split(rng.permutation(np.flatnonzero(stored.fit)), 2)
    components, numbers = {}, np.arange(len(stored.fit))
    for layer in progress([*stored.layers, EMBEDDING], "halves of the images", unit="layer"):
        moments = zip(*(stored.moments(layer, np.isin(numbers, half)) for half in halves))
        for number, of_halves in enumerate(moments):
            head = EMBEDDING if layer == EMBEDDING else number
            components[layer, head] = [explain_components(half, texts, **options).components for half in of_halves]
    digests = [stored.images["image_sha256"].iloc[half] for half in halves]
    return components, min(map(len, halves)), overlap(common(digests), 0, 1)


def by_seed(inputs):
    """The inputs of `open_stored` for each seed."""
    names = [name for name in ("images", "moments", "all_images") if name in inputs.keys()]
    for files in zip(*(inputs[name] for name in names)):
        yield {"shards": inputs.shards, "basis": inputs.basis} | dict(zip(names, files))


def overlap(numbers, first, second):
    """Share of images, in %, of the smaller of two sets that are in the other too; numbers: see on_disk.common."""
    return 100 * numbers[first, second] / min(numbers[first, first], numbers[second, second])


if __name__ == "__main__":
    with job(snakemake.log[0]):
        inputs, params, wildcards = snakemake.input, snakemake.params, snakemake.wildcards
        texts = load_arrays(inputs.texts, "features")[0]["features"].astype(np.float64)
        texts -= texts.mean(0)
        seeds = params.seeds
        stored = [open_stored(files, params.protocol) for files in by_seed(inputs)]
        fit = common(images.fit_digests() for images in stored)
        components = [
            {unit: explanation.components for unit, explanation in load_explanations(path).items()}
            for path in inputs.components
        ]
        compared = [
            ("seeds", f"{seeds[a]} and {seeds[b]}", min(fit[a, a], fit[b, b]), overlap(fit, a, b), a, b)
            for a, b in combinations(range(len(seeds)), 2)
        ]
        of_seed, first_fit = f"seed {seeds[0]}", stored[0].fit_count
        if stored[0].fit.sum() >= 4:  # two images a half at least
            half_rng = np.random.default_rng(seeds[0])
            halves, half_images, shared = half_components(stored[0], texts, params.options, half_rng)
            first, second = ({unit: pair[half] for unit, pair in halves.items()} for half in (0, 1))
            compared.insert(0, ("halves of the images", of_seed, half_images, shared, len(seeds), len(seeds) + 1))
            components += [first, second]
        rows = []
        for unit in progress(components[0], "stability", unit="head"):
            place = dict(zip(("layer", "head"), unit))
            rng = np.random.default_rng([seeds[0], *(number + 1 for number in unit)])
            for what, which, images, shared, a, b in compared:
                pair = [components[number][unit] for number in (a, b)]
                if min(map(len, pair)):
                    measures = compare_components(*pair, texts)
                    measures |= by_chance(partial(compare_components, pair[0], texts=texts), pair[1], rng)
                    source = {"compared": what, "which": which, "images": images, "overlap": shared}
                    rows.append(place | source | measures)
            if len(own := components[0][unit]) and len(texts) > 1:
                pools = np.array_split(rng.permutation(len(texts)), 2)
                compare = partial(compare_halves, own, texts=texts, halves=pools)
                source = {"compared": "halves of the pool", "which": of_seed, "images": first_fit, "overlap": 100.0}
                rows.append(place | source | compare(own) | by_chance(compare, own, rng))
        source = {key: wildcards[key] for key in ("model", "dataset", "texts")}
        save_table(snakemake.output[0], with_source(pd.DataFrame(rows), source))
