"""Stored activations of one seed's images, read layer by layer, a thousand images at a time."""

import numpy as np
import pandas as pd

from clipspectra import InputError
from clipspectra.arrays import ROWS, load_arrays
from clipspectra.checked import open_arrays
from clipspectra.contributions.chunks import Chunk, check_weights, select_images
from clipspectra.contributions.moments import Moments
from clipspectra.data.store import load_images

EMBEDDING = -1  # in place of a layer's or head's number: the whole normalised embedding


class StoredActivations:
    """The images of one seed in the shards of an extraction, with the model's basis.

    Each shard holds z [image, layer, head, coordinate], scalars [image, scalar], mlps [image, layer + 1, d_embed],
    embedding [image, d_embed], row (in the manifest) and picture_id [image], and the errors of extraction.extract. If
    only the last layers were kept, it also holds `early`, the sum of the other layers' heads [image, d_embed].

    images: path of the seed's table; as an attribute its rows in the order of the manifest, without unreadable images
    basis: [layer, head, d_embed, coordinate + scalar]
    layers: numbers of the layers in z; heads: their number in a layer; scalars: their number
    spacing: of the stored numbers, relative to their size, [coordinate + scalar] (see Moments)
    sha256: of the model's weights file; weights: digest of its image tower's weights (towers.tower.weights_digest)
    names: (kind, layer) of each of `parts`, the kinds being early, heads, self (the class token's attention to itself),
    x_0 and mlp
    fit, scored, validation, paired: bool [image], the images that means and explanations come from, those that are
    scored, those that choices are checked on, and the pairs that names are judged by; with protocol "held_out" the
    images of these roles, with "same" all fit and eval images are both fitted and scored, as in the reference
    implementation
    fit_count: number of the images that means and explanations come from; is_sample: whether more than `fit` has
    Raises InputError where fewer than two images have the role fit, or none has the role eval, and where the shards do
    not fit the table of images.
    """

    def __init__(self, shards, basis, images, protocol="held_out"):
        arrays, metadata = load_arrays(basis, "basis")
        self.basis_path, self.basis = basis, arrays["basis"]
        self.sha256, self.weights = metadata.get("sha256", ""), metadata.get("weights", "")
        selected, first_layer = select_images(shards, load_images(images))
        check_weights([path for path, _, _ in selected], self.sha256)
        images = pd.concat([table for _, _, table in selected])
        order = np.argsort(images["row"].to_numpy(), kind="stable")
        self.images = images.iloc[order].reset_index(drop=True)
        self.layers = range(first_layer, len(self.basis))
        self.heads, width = self.basis.shape[1], self.basis.shape[-1]
        paths = [path for path, _, _ in selected]
        with open_arrays(paths[0]) as file:
            mlps, self.scalars = (file.get_slice(name).get_shape()[1] for name in ("mlps", "scalars"))
            stored_as = np.float16 if file.get_slice("z").get_dtype() == "F16" else np.float32
            has_class_self = "class_self" in file.keys()
        self.spacing = np.full(width, np.finfo(np.float32).eps)
        self.spacing[: width - self.scalars] = np.finfo(stored_as).eps
        self.names = [("early", self.layers.start - 1)] if self.layers.start else []
        self.names += [(kind, layer) for kind in ("heads", *["self"] * has_class_self) for layer in self.layers]
        self.names += [("x_0", -1), *(("mlp", layer) for layer in range(mlps - 1))]
        roles = [self.images["role"].eq(role).to_numpy() for role in ("fit", "eval", "validation", "pair")]
        self.fit, self.scored, self.validation, self.paired = roles
        # The seed's images alone, by row, so that sums, draws and ties are the same whatever else is stored, and where.
        shard = np.repeat(range(len(paths)), [len(rows) for _, rows, _ in selected])[order]
        rows = np.concatenate([rows for _, rows, _ in selected])[order]
        starts = range(0, len(order), ROWS)
        self.chunks = [Chunk(paths, shard[start : start + ROWS], rows[start : start + ROWS]) for start in starts]
        if not self.fit.any() or not self.scored.any():
            raise InputError(
                "The chosen images have no fit rows or no eval rows; check 'roles' of the dataset in the config."
            )
        if protocol == "same":
            self.fit = self.scored = self.fit | self.scored
        if self.fit.sum() < 2:
            raise InputError(
                "There is a single fit image, and components are how images differ; raise 'per_class' of the dataset's "
                "role fit."
            )
        self.fit_count, self.is_sample = int(self.fit.sum()), False

    def images_by_role(self):
        """{role: number of its images} that means and scores come from."""
        return self.images.groupby("role").size().to_dict()

    def fit_digests(self):
        """Yield the digests of the files of the fit images."""
        yield from self.images["image_sha256"][self.fit]

    def reduced(self, layer, head=None):
        """q of a layer chunk by chunk, float64 [image, head, coordinate + scalar], or of one head without that axis."""
        index = self.layers.index(layer)
        for chunk in self.chunks:
            arrays = chunk.read({"z": [index] if head is None else [index, head], "scalars": []})
            z, scalars = arrays["z"], arrays["scalars"].astype(np.float64)
            scalars = scalars if head is not None else np.repeat(scalars[:, None], z.shape[1], axis=1)
            yield np.concatenate([z, scalars], axis=-1)

    def fit_moments(self, layer):
        """Moments of every head of a layer over the fit images: list [head]; see `moments`."""
        return self.moments(layer, self.fit)

    def moments(self, layer, inside):
        """Moments of every head of a layer over some images, merged over chunks: list [head].

        inside: the images, bool [image]. With EMBEDDING as layer: those of the normalised embedding, a list of one.
        """
        if layer == EMBEDDING:
            chunks, bases = (embeddings[:, None] for embeddings in self.embeddings()), [None]
        else:
            chunks, bases = self.reduced(layer), self.basis[layer].astype(np.float64)
        merged = [None] * len(bases)
        for q, chunk_inside in zip(chunks, self.by_chunk(inside)):
            for head in range(len(bases) if chunk_inside.any() else 0):
                moments = Moments.from_data(q[chunk_inside, head])
                merged[head] = moments if merged[head] is None else merged[head].merge(moments)
        for moments, basis in zip(merged, bases):
            moments.basis = basis
            if basis is not None:
                moments.spacing = self.spacing
        return merged

    def fit_coordinates(self, layer):
        """Mean of q of every head of a layer over the fit images, [head, coordinate + scalar]."""
        chunks = zip(self.reduced(layer), self.by_chunk(self.fit))
        return sum(q[is_fit].sum(0) for q, is_fit in chunks) / self.fit.sum()

    def fit_evidence(self, mean, directions, readout):
        """Sums over the fit images of their evidence (e - mean) · u for directions u [text, d_embed], and its products.

        readout: [reading, d_embed]. Returns (products with (e - mean) · readout [text, reading], the evidence itself
        [text], a function of a layer that gives products with its heads' q [head, coordinate + scalar, text]).
        """
        masks, evidence, covariance = self.by_chunk(self.fit), [], 0.0  # evidence: [image, text] chunk by chunk
        for chunk, is_fit in zip(self.embeddings(), masks):
            centred = chunk[is_fit] - mean
            evidence.append(centred @ directions.T)
            covariance = covariance + evidence[-1].T @ (centred @ readout.T)

        def with_heads(layer):
            chunks = zip(self.reduced(layer), masks, evidence)
            return sum(np.einsum("ihk,it->hkt", q[is_fit], texts) for q, is_fit, texts in chunks)

        return covariance, sum(texts.sum(0) for texts in evidence), with_heads

    def pole_sums(self, layer, head, components):
        """What is known of all fit images at the poles of a head's components; None, as it is computed from rows."""
        return None

    def weight_moments(self, layer):
        """Moments of a layer's heads over tokens of isotropic covariance, from the weights alone: list [head].

        Their components are the left singular vectors of the head's value-output map into the joint space, with its
        singular values (LayerNorm statistics held constant).
        """
        width = self.basis.shape[-1]
        with open_arrays(self.basis_path) as file:
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
        for chunk in self.chunks:
            embedding = chunk.read({"embedding": []})["embedding"].astype(np.float64)
            yield embedding / np.linalg.norm(embedding, axis=1, keepdims=True)

    def embeddings_of(self, rows):
        """The normalised embeddings of rows of the manifest [row, d_embed]; None if one is not stored, as skipped."""
        numbers = pd.Series(range(len(self.images)), self.images["row"]).reindex(rows)
        if numbers.isna().any():
            return None
        numbers, inside = numbers.astype(int).to_numpy(), np.zeros(len(self.images), bool)
        inside[numbers] = True
        chunks = zip(self.embeddings(), self.by_chunk(inside))
        chosen = np.concatenate([embeddings[of_chunk] for embeddings, of_chunk in chunks])
        return chosen[(np.cumsum(inside) - 1)[numbers]]

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
        kinds = {kind for kind, _ in self.names}
        stored = ["z", "scalars", "mlps", *["early"] * ("early" in kinds), *["class_self"] * ("self" in kinds)]
        for chunk in self.chunks:
            arrays = chunk.read({name: [] for name in stored})
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
        return np.split(array, np.cumsum([len(chunk.rows) for chunk in self.chunks])[:-1])


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
