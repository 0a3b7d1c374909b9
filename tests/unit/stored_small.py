"""A small tower's activations of random images, stored as an extraction stores them, with all its components."""

from types import SimpleNamespace

import numpy as np
import torch
from towers_small import pictures, small

from clipspectra.arrays import save_arrays
from clipspectra.contributions.exact import activations, contributions, head_basis, heads_sum, value_grams
from clipspectra.contributions.stored import EMBEDDING, StoredActivations
from clipspectra.explanations.methods import HeadExplanation
from clipspectra.explanations.spectral import principal_components
from clipspectra.towers.families import adapt

IMAGES = 40
ROLES = {"fit": np.arange(IMAGES) % 2, "eval": np.arange(IMAGES) % 4 == 0}  # the rest is for validation


def stored_small(folder, *, dtype=torch.float64, first=0, roles=ROLES):
    """stored: StoredActivations of two shards, heads of layers from `first` on; exact: their dense Contributions;
    told: {(layer, head): HeadExplanation} with all components, in float64; model; images"""
    model = small("ViT", dtype)
    images = pictures(model, IMAGES, dtype)
    seen, found, paths = activations(model, images), adapt(model.visual), []
    basis = head_basis(found)
    for shard, rows in enumerate((slice(0, 23), slice(23, IMAGES))):
        arrays = {name: getattr(seen, name)[rows] for name in ("scalars", "mlps", "embedding")}
        arrays |= {"z": seen.z[rows, first:], "class_self": seen.class_self[rows, first:]}
        if first:
            arrays["early"] = heads_sum(seen.z[rows, :first], seen.scalars[rows], basis[:first])
        arrays = {name: part.numpy() for name, part in arrays.items()} | {"row": np.arange(IMAGES)[rows]}
        arrays |= {role: np.asarray(inside, int)[rows] for role, inside in roles.items()}
        paths.append(folder / f"{shard}.safetensors")
        save_arrays(paths[-1], arrays, {"first_layer": first})
    bases = {"basis": basis.numpy(), "value_gram": value_grams(found).numpy()}
    save_arrays(folder / "basis.safetensors", bases, {})
    stored = StoredActivations(paths, folder / "basis.safetensors")
    told = {}
    for layer in [*stored.layers, EMBEDDING]:
        for number, moments in enumerate(stored.fit_moments(layer)):
            head = EMBEDDING if layer == EMBEDDING else number
            components = principal_components(moments)[1]
            mean = moments.embedded_mean()
            told[layer, head] = HeadExplanation(
                mean, len(components), components, np.arange(len(components)), None, components
            )
    return SimpleNamespace(stored=stored, exact=contributions(model, images), told=told, model=model, images=images)
