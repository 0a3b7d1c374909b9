"""Which images of a seed are kept whole where of all others only moments are."""

import hashlib

import pandas as pd


def sample_images(chunks, seed, size):
    """The images that a seed keeps whole, in the order of its table, with of_role, how many have their role.

    chunks: the seed's table, piece by piece, of which no more is held than the piece and the sample; size: most images
    of each role

    Of each role those whose seed and content have the lowest hashes: the same however the images are split or ordered,
    and wherever they lie; pictures that cannot be read come last. The two images of a pair are kept together.
    """
    samples, counts = None, {}
    for chunk in chunks:
        chunk = chunk.reset_index(drop=True)
        for role, count in chunk["role"].value_counts().items():
            counts[role] = counts.get(role, 0) + count
        known = chunk["image_sha256"]
        if "pair" in chunk:
            known = chunk["pair"].where(chunk["role"] == "pair", known)
        place = [hashlib.sha256(f"{seed}\0{content}".encode()).hexdigest() if content else "~" for content in known]
        chunk = chunk.assign(place=place)
        samples = chunk if samples is None else pd.concat([samples, chunk], ignore_index=True)
        samples = _lowest(samples, size)
    return samples.drop(columns="place").assign(of_role=samples["role"].map(counts))


def _lowest(images, size):
    """The images of each role with the lowest places, `size` or, of pairs, an even number, in their order.

    The two images of a pair have one place.
    """
    number = images.sort_values(["place", "row"]).groupby("role").cumcount().sort_index()
    return images[number < size - (images["role"] == "pair") * (size % 2)].reset_index(drop=True)
