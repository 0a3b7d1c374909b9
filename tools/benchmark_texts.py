"""CPU time of embedding texts without their padding, against all padded to the context (`make benchmark`).

Random weights; common words, and descriptions of 8 to 14 of them, from the vocabulary of CLIP's tokenizer. Padded texts
are timed on a sample and scaled to all.
"""

import argparse
import time

import numpy as np
import torch

from clipspectra.data.texts import embed_texts
from clipspectra.towers import models


def common_words(tokenizer, count):
    """Whole words of CLIP's vocabulary; it is sorted by frequency."""
    words = [token.removesuffix("</w>") for token in tokenizer.encoder if token.endswith("</w>")]
    return [word for word in words if len(word) > 2 and word.isascii() and word.isalpha()][:count]


def descriptions(words, count, rng):
    return [" ".join(rng.choice(words, rng.integers(8, 15))) for _ in range(count)]


@torch.no_grad()
def embed_padded(loaded, texts):
    return loaded.model.encode_text(loaded.tokenizer(texts).to(loaded.device), normalize=True)


def cpu_seconds(function, *arguments):
    """(result, CPU seconds of all threads) of a call."""
    start = time.process_time()
    return function(*arguments), time.process_time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViT-B-32", help="a model of open_clip with CLIP's own tokenizer")
    parser.add_argument("--texts", type=int, default=3498)
    parser.add_argument("--sample", type=int, default=256, help="texts that are also embedded with padding")
    options = parser.parse_args()
    loaded = models.load(options.model)
    words = common_words(loaded.tokenizer, options.texts)
    pools = {
        "words": words,
        "descriptions of 8 to 14 words": descriptions(words, options.texts, np.random.default_rng(0)),
    }
    embed_padded(loaded, words[:8])  # the first call is slower
    print(f"{options.model}; padded: measured on {options.sample} texts and scaled to all\n")
    print("| texts | CPU padded / without padding | CPU s without padding | largest difference |")
    print("|---|---|---|---|")
    for name, texts in pools.items():
        rows = np.linspace(0, len(texts) - 1, min(options.sample, len(texts)), dtype=int)
        padded, padded_seconds = cpu_seconds(embed_padded, loaded, [texts[row] for row in rows])
        embeddings, seconds = cpu_seconds(embed_texts, loaded, texts)
        ratio = padded_seconds * len(texts) / len(rows) / seconds
        difference = float((embeddings[rows] - padded).abs().max())
        print(f"| {len(texts):,} {name} | {ratio:.1f} | {seconds:.1f} | {difference:.1e} |", flush=True)


if __name__ == "__main__":
    main()
