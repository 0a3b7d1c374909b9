"""A small tower's activations of random images, stored as an extraction stores them, with all its components."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from towers_small import pictures, small

from clipspectra.arrays import save_arrays, save_table
from clipspectra.contributions.exact import activations, contributions, head_basis, heads_sum, value_grams
from clipspectra.contributions.stored import EMBEDDING, StoredActivations
from clipspectra.data.store import picture_ids
from clipspectra.explanations.head import HeadExplanation
from clipspectra.explanations.spectral import principal_components
from clipspectra.towers.families import adapt

IMAGES = 40
ROLES = {"fit": np.arange(IMAGES) % 2, "eval": np.arange(IMAGES) % 4 == 0}  # the rest is for validation


def save_images(path, roles):
    """Write the table of a seed's images with these roles [image], in rows 0, 1, 2 …; return their picture_id."""
    rows = np.arange(len(roles))
    digests = [hashlib.sha256(str(row).encode()).hexdigest() for row in rows]
    table = pd.DataFrame({"row": rows, "image": [f"{row}.png" for row in rows], "label": 0, "class": "", "split": ""})
    save_table(path, table.assign(role=np.asarray(roles), image_sha256=digests))
    return picture_ids(digests)


def stored_small(folder, *, dtype=torch.float64, first=0, roles=ROLES, store=None):
    """stored: StoredActivations of two shards (z as the type `store`), heads of layers from `first` on

    exact: their dense Contributions; explanations: {(layer, head): HeadExplanation} with all components, in float64;
    model; images
    """
    model = small("ViT", dtype)
    images = pictures(model, IMAGES, dtype)
    batch, tower, paths = activations(model, images), adapt(model.visual), []
    basis, names = head_basis(tower), np.full(IMAGES, "validation")
    for role, has_role in roles.items():
        names[np.asarray(has_role, bool)] = role
    ids = save_images(folder / "images.csv", names)
    for shard, rows in enumerate((slice(0, 23), slice(23, IMAGES))):
        arrays = {name: getattr(batch, name)[rows] for name in ("scalars", "mlps", "embedding")}
        arrays |= {"z": batch.z[rows, first:], "class_self": batch.class_self[rows, first:]}
        if first:
            arrays["early"] = heads_sum(batch.z[rows, :first], batch.scalars[rows], basis[:first])
        arrays = {name: tensor.numpy() for name, tensor in arrays.items()}
        arrays["z"] = arrays["z"].astype(store or arrays["z"].dtype)
        arrays |= {"row": np.arange(IMAGES)[rows], "picture_id": ids[rows]}
        paths.append(folder / f"{shard}.safetensors")
        save_arrays(paths[-1], arrays, {"first_layer": first})
    bases = {"basis": basis.numpy(), "value_gram": value_grams(tower).numpy()}
    save_arrays(folder / "basis.safetensors", bases, {})
    stored = StoredActivations(paths, folder / "basis.safetensors", folder / "images.csv")
    explanations = {}
    for layer in [*stored.layers, EMBEDDING]:
        for number, moments in enumerate(stored.fit_moments(layer)):
            head = EMBEDDING if layer == EMBEDDING else number
            components, mean = principal_components(moments)[1], moments.embedded_mean()
            texts = np.arange(len(components))
            explanations[layer, head] = HeadExplanation(mean, len(components), components, texts, None, components)
    exact = contributions(model, images)
    return SimpleNamespace(stored=stored, exact=exact, explanations=explanations, model=model, images=images)
