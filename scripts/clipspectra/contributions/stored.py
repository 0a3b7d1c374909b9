"""Stored activations of one model, dataset and seed, read layer by layer, a thousand images at a time."""

import json

import numpy as np
from safetensors import safe_open

from clipspectra import InputError
from clipspectra.arrays import load_arrays
from clipspectra.contributions.moments import Moments

ROWS = 1000  # images in memory at a time
EMBEDDING = -1  # in place of a layer's or head's number: the whole normalised embedding


class StoredActivations:
    """The shards of one extraction, in order, with the model's basis [layer, head, d_embed, coordinate + scalar].

    Each shard holds z [image, layer, head, coordinate], scalars [image, scalar], mlps [image, layer + 1, d_embed],
    embedding [image, d_embed], label and row [image], and fit and eval [image], 1 for the images with that role. If
    only the last layers were kept, it also holds `early`, the sum of the other layers' heads [image, d_embed].

    layers: numbers of the layers in z; heads: their number in a layer; scalars: their number
    rows: row numbers of the images in the manifest; sha256: of the model's weights
    names: (kind, layer) of each of `parts`, the kinds being early, heads, self (the class token's attention to itself),
    x_0 and mlp
    fit, scored, validation: bool [image], the images that means and explanations come from, those that are scored, and
    those that choices are checked on; with protocol "held_out" the images of these roles, with "same" all images but
    the validation images are both fitted and scored, as in the reference implementation
    Raises InputError where no image has the role fit, or none has the role eval.
    """

    def __init__(self, shards, basis, protocol="held_out"):
        self.paths = list(shards)
        arrays, metadata = load_arrays(basis, "basis")
        self.basis_path, self.basis, self.sha256 = basis, arrays["basis"], metadata.get("sha256", "")
        loaded = [load_arrays(path, "fit", "eval", "row") for path in self.paths]  # (arrays, metadata) of each shard
        self.layers = range(int(json.loads(loaded[0][1].get("first_layer", "0"))), len(self.basis))
        self.heads = self.basis.shape[1]
        with safe_open(self.paths[0], "np") as file:
            mlps, self.scalars = (file.get_slice(name).get_shape()[1] for name in ("mlps", "scalars"))
            has_class_self = "class_self" in file.keys()
        self.names = [("early", self.layers.start - 1)] if self.layers.start else []
        self.names += [(kind, layer) for kind in ("heads", *["self"] * has_class_self) for layer in self.layers]
        self.names += [("x_0", -1), *(("mlp", layer) for layer in range(mlps - 1))]
        self.fit, self.scored, self.rows = (
            np.concatenate([arrays[name] for arrays, _ in loaded]) for name in ("fit", "eval", "row")
        )
        self.fit, self.scored = self.fit.astype(bool), self.scored.astype(bool)
        self.validation = ~(self.fit | self.scored)
        self.chunks = [
            (path, slice(start, min(start + ROWS, len(arrays["fit"]))))
            for path, (arrays, _) in zip(self.paths, loaded)
            for start in range(0, len(arrays["fit"]), ROWS)
        ]
        if not self.fit.any() or not self.scored.any():
            raise InputError(
                "The chosen images have no fit rows or no eval rows; check 'roles' of the dataset in the config."
            )
        if protocol == "same":
            self.fit = self.scored = ~self.validation

    def extracted_rows(self, table):
        """The rows of the table of chosen images that were extracted, in their order: all but the unreadable images."""
        return table.set_index("row").loc[self.rows].reset_index()

    def reduced(self, layer, head=None):
        """q of a layer chunk by chunk, float64 [image, head, coordinate + scalar], or of one head without that axis."""
        index = self.layers.index(layer)
        for path, rows in self.chunks:
            with safe_open(path, "np") as file:
                z = file.get_slice("z")[rows, index] if head is None else file.get_slice("z")[rows, index, head]
                scalars = file.get_slice("scalars")[rows].astype(np.float64)
            scalars = scalars if head is not None else np.repeat(scalars[:, None], z.shape[1], axis=1)
            yield np.concatenate([z, scalars], axis=-1)

    def fit_moments(self, layer):
        """Moments of every head of a layer over the fit images, merged over chunks: list [head].

        With EMBEDDING as layer: those of the normalised embedding, a list of one.
        """
        if layer == EMBEDDING:
            chunks, bases = (embeddings[:, None] for embeddings in self.embeddings()), [None]
        else:
            chunks, bases = self.reduced(layer), self.basis[layer].astype(np.float64)
        merged = [None] * len(bases)
        for q, fit in zip(chunks, self.by_chunk(self.fit)):
            for head in range(len(bases) if fit.any() else 0):
                moments = Moments.from_data(q[fit, head])
                merged[head] = moments if merged[head] is None else merged[head].merge(moments)
        for moments, basis in zip(merged, bases):
            moments.basis = basis
        return merged

    def weight_moments(self, layer):
        """Moments of a layer's heads over tokens of isotropic covariance, from the weights alone: list [head].

        Their components are the left singular vectors of the head's value-output map into the joint space, with its
        singular values (LayerNorm statistics held constant).
        """
        width = self.basis.shape[-1]
        with safe_open(self.basis_path, "np") as file:
            gram = file.get_slice("value_gram")[layer].astype(np.float64)
        covariance = np.zeros((len(gram), width, width))
        block = gram.shape[-1]
        for start in range(0, width - self.scalars, block):  # one for each group of the readout; scalars do not vary
            covariance[:, start : start + block, start : start + block] = gram
        return [
            Moments(1, np.zeros(width), head_covariance, basis.astype(np.float64))
            for head_covariance, basis in zip(covariance, self.basis[layer])
        ]

    def embeddings(self):
        """The normalised embeddings chunk by chunk, float64 [image, d_embed]."""
        for path, rows in self.chunks:
            with safe_open(path, "np") as file:
                embedding = file.get_slice("embedding")[rows].astype(np.float64)
            yield embedding / np.linalg.norm(embedding, axis=1, keepdims=True)

    def rows_and_basis(self, layer, head):
        """(rows [image, coordinate], basis [d_embed, coordinate]) of one head: basis @ row is an image's contribution.

        With EMBEDDING as layer: the normalised embeddings and the identity.
        """
        if layer == EMBEDDING:
            embeddings = np.concatenate(list(self.embeddings()))
            return embeddings, np.eye(embeddings.shape[1])
        return np.concatenate(list(self.reduced(layer, head))), self.basis[layer, head].astype(np.float64)

    def parts(self):
        """The parts that add up to each normalised embedding, chunk by chunk, [image, part, d_embed], as in `names`.

        The heads of a layer are without the class token's attention to itself where that is a part of its own.
        """
        basis = self.basis[self.layers.start :]
        for path, rows in self.chunks:
            with safe_open(path, "np") as file:
                stored = [name for name in ("z", "scalars", "mlps", "early", "class_self") if name in file.keys()]
                arrays = {name: file.get_slice(name)[rows] for name in stored}
            arrays = {name: array.astype(np.promote_types(array.dtype, np.float32)) for name, array in arrays.items()}
            heads = layer_sums(arrays["z"], arrays["scalars"], basis)
            early = [arrays["early"][:, None]] if "early" in arrays else []
            class_self = [arrays["class_self"]] if "class_self" in arrays else []
            yield np.concatenate([*early, heads - sum(class_self), *class_self, arrays["mlps"]], axis=1)

    def fit_means(self):
        """Mean of each of `parts` over the fit images, float64 [part, d_embed]."""
        sums = [parts[fit].sum(0, dtype=np.float64) for parts, fit in zip(self.parts(), self.by_chunk(self.fit))]
        return np.sum(sums, axis=0) / self.fit.sum()

    def by_chunk(self, array):
        """An array [image] split as the chunks are."""
        return np.split(array, np.cumsum([rows.stop - rows.start for _, rows in self.chunks])[:-1])


def layer_sums(z, scalars, basis):
    """Sum of the contributions of each layer's heads, [image, layer, d_embed], without forming them one by one.

    z: [image, layer, head, coordinate]; scalars: [image, scalar]; basis: [layer, head, d_embed, coordinate + scalar]
    """
    k = z.shape[-1]
    flat = z.reshape(*z.shape[:2], -1)  # [image, layer, head * coordinate]
    sums = [
        flat[:, layer] @ heads[..., :k].transpose(1, 0, 2).reshape(heads.shape[1], -1).T
        + scalars @ heads[..., k:].sum(0).T
        for layer, heads in enumerate(basis)
    ]
    return np.stack(sums, axis=1)
