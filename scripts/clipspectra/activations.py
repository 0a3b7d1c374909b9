"""Stored activations of one model, dataset and seed, read shard by shard and layer by layer."""

import numpy as np
from safetensors import safe_open

from clipspectra import InputError
from clipspectra.arrays import load_arrays
from clipspectra.spectral import Moments


def layer_sums(z, scalars, basis):
    """Sum of the contributions of each layer's heads, [image, layer, d_embed].

    z: [image, layer, head, d_head]; scalars: [image, 3]; basis: [layer, head, d_embed, d_head + 3]. Nothing of shape
    [image, layer, head, d_embed] is formed: q lies flat over the heads, beside the heads' bases.
    """
    scaled = (z * scalars[:, None, None, :1]).reshape(*z.shape[:2], -1)  # [image, layer, head * d_head]
    d_head = z.shape[-1]
    result = np.empty((z.shape[0], z.shape[1], basis.shape[2]), np.float32)
    for layer, heads in enumerate(basis):
        write = heads[..., :d_head].transpose(1, 0, 2).reshape(heads.shape[1], -1)  # [d_embed, head * d_head]
        result[:, layer] = scaled[:, layer] @ write.T + scalars @ heads[..., d_head:].sum(0).T
    return result


class StoredActivations:
    """The shards of one extraction, in order, with the model's basis [layer, head, d_embed, d_head + 3].

    Each shard holds z [image, layer, head, d_head], scalars [image, 3], mlps [image, layer + 1, d_embed], embedding
    [image, d_embed], label [image] and fit [image], 1 for the rows that means and bases come from.
    """

    def __init__(self, shards, basis):
        self.paths = list(shards)
        self.basis = load_arrays(basis, "basis")[0]["basis"]
        self.layers, self.heads = self.basis.shape[:2]
        fit = [load_arrays(path, "fit")[0]["fit"].astype(bool) for path in self.paths]
        self.sizes, self.fit = [len(part) for part in fit], np.concatenate(fit)
        if not self.fit.any() or self.fit.all():
            raise InputError(
                "The chosen images have no fit rows or no eval rows; check 'roles' of the dataset in the config."
            )

    def reduced(self, layer, head=None):
        """q of a layer shard by shard, float64 [image, head, d_head + 3], or of one head, [image, d_head + 3]."""
        for path in self.paths:
            with safe_open(path, "np") as file:
                z = file.get_slice("z")[:, layer] if head is None else file.get_slice("z")[:, layer, head]
                scalars = file.get_tensor("scalars").astype(np.float64)
            scalars = scalars if head is not None else np.repeat(scalars[:, None], z.shape[1], axis=1)
            yield np.concatenate([z * scalars[..., :1], scalars], axis=-1)

    def fit_moments(self, layer):
        """Moments of every head of a layer over the fit rows, merged over shards: list [head]."""
        merged = [None] * self.heads
        for q, fit in zip(self.reduced(layer), self.by_shard(self.fit)):
            for head in range(self.heads if fit.any() else 0):
                found = Moments.of(q[fit, head])
                merged[head] = found if merged[head] is None else merged[head].merge(found)
        for head, moments in enumerate(merged):
            moments.basis = self.basis[layer, head].astype(np.float64)
        return merged

    def parts(self):
        """Contributions of each layer's heads, of x_0 and of each MLP, by shard: [image, 2 * layer + 1, d_embed]."""
        for path in self.paths:
            arrays, _ = load_arrays(path, "z", "scalars", "mlps")
            heads = layer_sums(arrays["z"], arrays["scalars"], self.basis)
            yield np.concatenate([heads, arrays["mlps"]], axis=1)

    def fit_means(self):
        """Mean of each of `parts` over the fit rows, float64 [2 * layer + 1, d_embed]."""
        sums = [parts[fit].sum(0, dtype=np.float64) for parts, fit in zip(self.parts(), self.by_shard(self.fit))]
        return np.sum(sums, axis=0) / self.fit.sum()

    def by_shard(self, values):
        """An array [image] cut as the shards are."""
        return np.split(values, np.cumsum(self.sizes)[:-1])
