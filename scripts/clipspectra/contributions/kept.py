"""Activations of which a sample is stored whole, and of all fit images the moments: read as StoredActivations are.

Whatever means, components and shares of concepts need comes from the moments, exactly. What needs images one by one
(scores, pictures, neighbours, controls that draw images) reads those of the sample.
"""

import json
from itertools import chain
from pathlib import Path

import numpy as np

from clipspectra import InputError
from clipspectra.arrays import load_metadata, table_chunks
from clipspectra.checked import open_arrays
from clipspectra.contributions.chunks import check_weights
from clipspectra.contributions.joint import NUMBERS, check_one_run
from clipspectra.contributions.moments import Moments
from clipspectra.contributions.shards import FITTED, file_digest
from clipspectra.contributions.stored import EMBEDDING, StoredActivations, layer_sums

WEIGHTS = ("pretrained", "beside")  # inputs that are no stored arrays, but the model itself
SAME_DIRECTION = 1e-5  # most that directions differ by which are the same but for rounding to float32


def open_stored(inputs, protocol, of=""):
    """The StoredActivations of a job's inputs: shards, basis and images, and with moments those of StoredMoments.

    of: what the names of the inputs begin with, such as "other_"; the basis and the images may be without
    Raises InputError if any of the inputs was made with other weights of the model.
    """
    shared = {name: inputs.get(f"{of}{name}", inputs.get(name)) for name in ("basis", "images")}
    files = {"shards": inputs[f"{of}shards"], **shared, "protocol": protocol}
    if (moments := inputs.get(f"{of}moments")) is None:
        stored = StoredActivations(**files)
    else:
        further = {name: inputs.get(f"{of}{name}") for name in ("poles", "all_images")}
        stored = StoredMoments(**files, moments=moments, **further)
    check_weights(arrays_of_model(inputs, of == "other_"), stored.sha256)
    return stored


def arrays_of_model(inputs, is_other):
    """Paths of stored arrays among a job's inputs, but shards: of the other model, or of the model itself."""
    named = {name: files for name, files in inputs.items() if name.startswith("other_") == is_other}
    named = {name: files for name, files in named.items() if name not in WEIGHTS and not name.endswith("shards")}
    files = [[files] if isinstance(files, (str, Path)) else files for files in named.values()]
    return [path for path in chain.from_iterable(files) if str(path).endswith(".safetensors")]


class StoredMoments(StoredActivations):
    """A sample of one seed's images, whole, and the moments of all its fit images.

    shards, basis, images, protocol: as in StoredActivations, of the sample
    moments, poles: merged files of JointMoments and, for `pole_sums`, of PoleSums
    all_images: path of the seed's whole table, for `fit_digests`
    fit, scored, validation, paired: of the sample's images, which are scored; fit_count: number of all fit images
    Raises InputError where these files are not of one run, or not of all shards.
    """

    def __init__(self, shards, basis, images, protocol, *, moments, poles=None, all_images=None):
        seed = load_metadata(moments)["seed"]
        for path in shards:
            if json.loads(load_metadata(path)["samples"])[seed] != file_digest(images):
                raise InputError(f"{path} was extracted with another {images}; remove both, and run again.")
        super().__init__(shards, basis, images, protocol)
        self.moments_path, self.poles_path, self.all_images = moments, poles, all_images
        self.fitted, metadata = FITTED[protocol], load_metadata(moments)
        metadata |= {key: json.loads(metadata[key]) for key in ("count", *NUMBERS)}
        self.metadata, self.fit_count, self.is_sample = metadata, metadata["count"], True
        check_whole(moments, metadata)
        if metadata["protocol"] != protocol or metadata["weights"] != self.weights:
            differs = "protocol" if metadata["protocol"] != protocol else "weights"
            raise InputError(f"{moments} is of another {differs}; remove it, and run again.")
        for path in shards:
            of_sample = load_metadata(path)
            own_table = json.loads(of_sample["images"]).get(metadata["seed"])
            check_one_run(moments, metadata, path, metadata | of_sample | {"images": own_table})
        if poles is not None:
            of_poles = load_metadata(poles)
            covers = {"covers": json.loads(of_poles["covers"])}
            check_whole(poles, of_poles | covers)
            own = {key: metadata.get(key) for key in ("kind", "code", "directions")}
            check_one_run(moments, metadata, poles, of_poles | own)
            if int(of_poles["count"]) != self.fit_count:
                raise InputError(
                    f"{moments} is of {self.fit_count} images, {poles} of {of_poles['count']}: a picture was changed, "
                    "or could not be read once. Remove both, and run again."
                )
        if self.fit_count < 2:
            raise InputError(f"Of all fit images {self.fit_count} could be read, and components are how images differ.")

    def images_by_role(self):
        return super().images_by_role() | {role: self.metadata["counts"][role] for role in self.fitted}

    def fit_digests(self):
        for chunk in table_chunks(self.all_images):
            digests = chunk["image_sha256"][chunk["role"].isin(self.fitted)]
            yield from digests[digests != ""]  # of pictures that cannot be read

    def _joint(self, name, *index):
        """An array of the JointMoments, or what it has at an index."""
        with open_arrays(self.moments_path) as file:
            return file.get_slice(name)[index] if index else file.get_tensor(name)

    def fit_moments(self, layer):
        if layer == EMBEDDING:
            embedding = map(self._joint, ("embedding_mean", "embedding_covariance"))
            return [Moments(self.fit_count, *embedding, spacing=float(np.finfo(np.float64).eps))]
        index, bases = self.layers.index(layer), self.basis[layer].astype(np.float64)
        spacing = np.full(bases.shape[-1], np.finfo(np.float32).eps)  # of what a forward pass gives
        means, covariances = (self._joint(name, index) for name in ("mean", "covariance"))
        return [Moments(self.fit_count, *of_head, spacing) for of_head in zip(means, covariances, bases)]

    def fit_coordinates(self, layer):
        return self._joint("mean", self.layers.index(layer))

    def fit_means(self):
        with open_arrays(self.moments_path) as file:
            means = {name: file.get_tensor(name) for name in file.keys() if name in ("mlps", "class_self", "early")}
        mean, basis = self._joint("mean"), self.basis[self.layers.start :].astype(np.float64)
        z, scalars = mean[None, ..., : -self.scalars], mean[:1, 0, -self.scalars :]
        heads = layer_sums(z, scalars, basis)[0]
        early = [means["early"][None]] if "early" in means else []
        class_self = [means["class_self"]] if "class_self" in means else []
        return np.concatenate([*early, heads - sum(class_self), *class_self, means["mlps"]])

    def fit_evidence(self, mean, directions, readout):
        (embedding,) = self.fit_moments(EMBEDDING)
        step = embedding.mean - mean
        second = embedding.covariance + np.outer(step, step)
        covariance = self.fit_count * (directions @ second @ readout.T)

        def with_heads(layer):
            index = self.layers.index(layer)
            products = self._joint("cross", index) + self._joint("mean", index)[..., None] * step
            return self.fit_count * (products @ directions.T)

        return covariance, self.fit_count * (directions @ step), with_heads

    def pole_sums(self, layer, head, components):
        """Of all fit images, the sums that naming.ActivitySums gathers: {name: sum}.

        components: [component, d_embed], the first of those that the file of poles was made with. Raises InputError for
        others.
        """
        (embedding,) = self.fit_moments(EMBEDDING)
        if layer == EMBEDDING:
            place, kinds, moments, directions = (), ["embedding"], embedding, components
            cross = embedding.covariance
        else:
            place, kinds = (self.layers.index(layer), head), ["components", "weights"]
            directions = components @ self.basis[layer, head].astype(np.float64)
            mean, covariance, cross = (self._joint(name, *place) for name in ("mean", "covariance", "cross"))
            moments = Moments(self.fit_count, mean, covariance)
        top = next((top for kind in kinds if (top := self._top(kind, place, directions))), None)
        if top is None:
            raise InputError(
                f"{self.poles_path} was made with other components of layer {layer}, head {head}: a processor or "
                "library that rounds otherwise turns components whose variances are nearly the same. Remove it, and "
                "run again, all jobs on one kind of machine."
            )
        weights, at_top = top
        products = self.fit_count * (directions @ cross)  # sum of s e; the scores' own sum is 0
        squares = self.fit_count * np.einsum("ck,kl,cl->c", directions, moments.covariance, directions)
        return {
            "count": self.fit_count,
            "weights": np.stack([weights, weights]),
            "scores": np.zeros(len(weights)),
            "squares": squares,
            "at_poles": np.stack([at_top, at_top - products]),
            "embeddings": self.fit_count * embedding.mean,
        }

    def _top(self, kind, place, directions):
        """(weights [component], sums at the top [component, d_embed]) of a head, if a kind has these directions."""
        count = len(directions)
        with open_arrays(self.poles_path) as file:
            if f"directions.{kind}" not in file.keys():
                return None
            stored = file.get_slice(f"directions.{kind}")[(*place, slice(0, count))]
            largest = np.abs(stored).max(initial=0)
            if len(stored) < count or np.abs(stored - directions).max(initial=0) > SAME_DIRECTION * largest:
                return None
            return tuple(file.get_slice(f"{name}.{kind}")[(*place, slice(0, count))] for name in ("weights", "at_top"))


def check_whole(path, metadata):
    """Raise InputError unless a merged file of sums is of all shards."""
    start, stop = metadata["covers"]
    if (start, stop) != (0, int(metadata["shards"])):
        raise InputError(
            f"{path} is of shards {start} to {stop - 1} of {metadata['shards']}; remove it, and run again."
        )
