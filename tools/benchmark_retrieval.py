"""Time and disk space of queries and neighbours, on stored results of random numbers (`make benchmark`).

The query: with the heads, components and texts of ViT-H-14 and a large pool; timed from the files to the answer.
Neighbours: exact, every image compared, by the whole embedding (float32) and by one head (float16).
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from clipspectra.arrays import ArrayStream, load_arrays, save_arrays, save_table
from clipspectra.concepts.retrieval import Components, View, best_texts, centred_queries, ends, trace
from clipspectra.contributions.stored import EMBEDDING, StoredActivations
from clipspectra.data.store import picture_ids
from clipspectra.explanations.head import HeadExplanation, save_explanations

CHUNK = 10000  # images written at a time


def store_components(folder, heads, components, texts, width, rng):
    """Files as explain_heads writes them, and of a text pool; 16 heads per layer, 5 texts at each end."""
    explanations, tables = {}, []
    for number in range(heads):
        frame = np.linalg.qr(rng.normal(size=(width, components)))[0].T
        explanations[number // 16, number % 16] = HeadExplanation(
            np.zeros(width), components, frame, np.arange(components), None, frame
        )
        where = {"layer": number // 16, "head": number % 16, "component": np.repeat(np.arange(components), 10)}
        where |= {
            "pole": np.tile(np.repeat(["top", "bottom"], 5), components),
            "place": np.tile(range(5), 2 * components),
        }
        tables.append(pd.DataFrame(where))
    table = pd.concat(tables, ignore_index=True).assign(strength=0.01, naming="says", named=True)
    table["text"] = np.array([f"a photo of thing {number}" for number in range(texts)])[
        rng.integers(0, texts, len(table))
    ]
    save_table(folder / "components.parquet", table)
    save_explanations(folder / "components.safetensors", explanations, {})
    save_arrays(folder / "texts.safetensors", {"features": rng.normal(size=(texts, width)).astype(np.float32)}, {})


def answer(folder, query, rng):
    """Answer a text query from the stored files: its Trace, and the texts of its components."""
    features = load_arrays(folder / "texts.safetensors", "features")[0]["features"]
    components = Components.load(folder / "components.safetensors")
    traced = trace(centred_queries({"features": query}, features, None)[0], components, rng=rng)
    return traced, best_texts(folder / "components.parquet", "says").loc[
        list(map(tuple, components.units[traced.order]))
    ]


def store_images(folder, images, width, rng):
    """One shard with the activations of one head in float16 and embeddings in float32, and the head's basis."""
    stream, digests = ArrayStream(folder), [f"{row:064x}" for row in range(images)]
    table = pd.DataFrame({"row": range(images), "image": digests, "label": 0, "class": "", "split": ""})
    table = table.assign(role=np.where(table["row"] < 100, "fit", "eval"), image_sha256=digests)
    save_table(folder / "images.csv", table)
    for start in range(0, images, CHUNK):
        count = min(CHUNK, images - start)
        rows = np.arange(start, start + count)
        arrays = {"z": rng.normal(size=(count, 1, 1, 64)).astype(np.float16), "row": rows}
        arrays |= {"embedding": rng.normal(size=(count, width)).astype(np.float32)}
        arrays |= {
            "scalars": np.ones((count, 3), np.float32),
            "picture_id": picture_ids(digests[start : start + count]),
        }
        stream.append(arrays | {"mlps": np.zeros((count, 1, 1), np.float16)})
    stream.save(folder / "shard.safetensors", {})
    save_arrays(folder / "basis.safetensors", {"basis": rng.normal(size=(1, 1, width, 67)).astype(np.float32)}, {})
    return StoredActivations([folder / "shard.safetensors"], folder / "basis.safetensors", folder / "images.csv")


def nearest(stored, place, width):
    """The 12 images nearest to the first."""
    view = View(stored, *place, np.zeros(width))
    return ends(view.cosines(next(view.rows())[0]), 12)["top"]


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=512)
    parser.add_argument("--components", type=int, default=64)
    parser.add_argument("--texts", type=int, default=15000)
    parser.add_argument("--width", type=int, default=1024, help="d_embed")
    parser.add_argument("--images", type=int, default=200000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        store_components(folder, options.heads, options.components, options.texts, options.width, rng)
        query = rng.normal(size=(1, options.width)).astype(np.float32)
        times = [seconds(lambda: answer(folder, query, np.random.default_rng(0))) for _ in range(options.repeats)]
        print(
            f"a query over {options.heads} heads × {options.components} components, from {options.texts:,} texts, "
            f"d_embed {options.width}: {np.median(times):.2f} s from the files to the answer"
        )
        stored = store_images(folder, options.images, options.width, rng)
        for name, place, size in (
            ("the whole embedding", (EMBEDDING, EMBEDDING), 4 * options.width),
            ("one head, float16", (0, 0), 2 * 64 + 12),
        ):
            times = [seconds(lambda at=place: nearest(stored, at, options.width)) for _ in range(options.repeats)]
            scale = 1e6 / options.images
            print(
                f"neighbours among {options.images:,} images by {name}: {np.median(times):.2f} s; a million: "
                f"{scale * np.median(times):.1f} s, {1e6 * size / 2**30:.2f} GiB on disk"
            )


if __name__ == "__main__":
    main()
