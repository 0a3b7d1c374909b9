"""All components of a seed, fixed for the second pass over the images: their directions in the heads' coordinates."""

import numpy as np

from clipspectra.arrays import save_arrays
from clipspectra.contributions.kept import open_stored
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.explanations.spectral import principal_components
from clipspectra.jobs import job, progress


def directions_of(stored, layer, moments):
    """Directions of a layer's components [head, component, coordinate], filled up with 0; moments: list [head]."""
    by_head = [principal_components(of_head)[1] for of_head in moments]
    width = stored.basis.shape[-1]
    directions = np.zeros((stored.heads, width, width))
    for head, components in enumerate(by_head):
        directions[head, : len(components)] = components @ stored.basis[layer, head].astype(np.float64)
    return directions


if __name__ == "__main__":
    with job(snakemake.log[0]):
        stored = open_stored(snakemake.input, snakemake.params.protocol)
        directions = {"embedding": principal_components(*stored.fit_moments(EMBEDDING))[1]}
        sources = {"components": stored.fit_moments, "weights": stored.weight_moments}
        for kind, moments_of in sources.items():
            layers = progress(stored.layers, kind, unit="layer")
            directions[kind] = np.stack([directions_of(stored, layer, moments_of(layer)) for layer in layers])
        save_arrays(snakemake.output[0], directions, {"seed": snakemake.wildcards.seed})
