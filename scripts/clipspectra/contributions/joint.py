"""Sums over images that need not be kept: joint moments of all heads with the embedding, and sums at components' poles.

A first pass over the images gives JointMoments: all that components, TextSpan, means and shares of concepts need. A
second one, with the components fixed, gives PoleSums, of which names by `fires_on` follow. Both add up exactly over
batches, shards and groups of shards, so neither memory nor disk grows with the number of images. All in float64; the
arrays may be numpy's or, on a device, torch's.
"""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

from clipspectra import InputError
from clipspectra.arrays import load_arrays, save_arrays

# What all files of one run have in common, and how a sentence names it.
IDENTITY = {
    "kind": "what they hold",
    "model": "the model",
    "dataset": "the dataset",
    "seed": "the seed",
    "model_digest": "the model's settings or files",
    "sha256": "the weights",
    "weights": "the image tower's weights",
    "images": "the table of images",
    "protocol": "the protocol",
    "first_layer": "the layers",
    "precision": "the precision",
    "code": "the version of the code",
    "directions": "the components",
    "shards": "the number of shards",
    "torch": "the version of torch",
    "open_clip_torch": "the version of open_clip",
    "pillow": "the version of Pillow",
}
NUMBERS = ("covers", "counts", "skipped")  # of a file of sums, beside its identity


@dataclass
class Sums:
    """Sums or means over `count` images; without images it has nothing else."""

    count: int = 0

    def add(self, other):
        """Take in the images of another of the same kind, which shares no images with this one."""
        if self.count and other.count:
            self._merge(other)
        elif other.count:
            vars(self).update(vars(other))


@dataclass
class JointMoments(Sums):
    """Means and covariances (divided by count) over some images of all that adds up to the embedding.

    mean [layer, head, coordinate], covariance [layer, head, coordinate, coordinate]: of the reduced coordinates q
    cross: covariance of q with the normalised embedding, [layer, head, coordinate, d_embed]
    embedding_mean [d_embed], embedding_covariance [d_embed, d_embed]: of the normalised embedding
    mlps [part, d_embed], class_self [layer, d_embed], early [d_embed]: means of these contributions, as in Activations
    """

    mean: object = None
    covariance: object = None
    cross: object = None
    embedding_mean: object = None
    embedding_covariance: object = None
    mlps: object = None
    class_self: object = None
    early: object = None

    def _merge(self, other):
        """By Chan, Golub and LeVeque (1983)."""
        count = self.count + other.count
        share = other.count / count
        step, embedding_step = other.mean - self.mean, other.embedding_mean - self.embedding_mean
        between = share * (1 - share)
        for name, left, right in (
            ("covariance", step[..., :, None], step[..., None, :]),
            ("cross", step[..., :, None], embedding_step),
            ("embedding_covariance", embedding_step[:, None], embedding_step),
        ):
            total = getattr(self, name)
            total *= 1 - share
            total += share * getattr(other, name)
            total += (between * left) * right
        for name in ("mean", "embedding_mean", "mlps", "class_self", "early"):
            if (mean := getattr(self, name)) is not None:
                mean += share * (getattr(other, name) - mean)
        self.count = count

    def arrays(self):
        """{name: array} of what there is, but the count."""
        arrays = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "count"}
        return {name: array for name, array in arrays.items() if array is not None}

    @classmethod
    def of_arrays(cls, count, arrays):
        return cls(count, **arrays)


@dataclass
class PoleSums(Sums):
    """Sums over some images at the top poles of fixed components; those at the bottom follow with JointMoments.

    directions: {kind: [layer, head, component, coordinate]}, of scores s = direction · (q - mean of q); of "embedding"
    [component, d_embed]. Heads of a lower rank are filled up with 0.
    weights: {kind: sums of max(s, 0) [layer, head, component]}
    at_top: {kind: sums of max(s, 0) times the normalised embedding [layer, head, component, d_embed]}
    """

    directions: dict = field(default_factory=dict)
    weights: dict = field(default_factory=dict)
    at_top: dict = field(default_factory=dict)

    def _merge(self, other):
        """Both are of the same components."""
        self.count += other.count
        for sums, more in ((self.weights, other.weights), (self.at_top, other.at_top)):
            for kind in sums:
                sums[kind] += more[kind]

    def arrays(self):
        """{name: array}, all but the count."""
        sums = {"directions": self.directions, "weights": self.weights, "at_top": self.at_top}
        return {f"{name}.{kind}": array for name, by_kind in sums.items() for kind, array in by_kind.items()}

    @classmethod
    def of_arrays(cls, count, arrays):
        sums = {"directions": {}, "weights": {}, "at_top": {}}
        for name, array in arrays.items():
            name, kind = name.split(".")
            sums[name][kind] = array
        return cls(count, **sums)


KINDS = {"moments": JointMoments, "poles": PoleSums}


def save_sums(path, sums, identity, numbers):
    """Write sums over the images of some shards, a JointMoments or PoleSums of numpy arrays.

    identity: {key of IDENTITY: value}; numbers: covers, [first shard, last shard + 1]; counts, {role: images}; and
    skipped, the number of images that could not be read
    """
    save_arrays(path, sums.arrays(), identity | numbers | {"count": sums.count})


def load_sums(path):
    """(JointMoments or PoleSums, metadata) of a file of save_sums; metadata as JSON values."""
    arrays, metadata = load_arrays(path)
    metadata |= {key: json.loads(metadata[key]) for key in ("count", *NUMBERS)}
    return KINDS[metadata["kind"]].of_arrays(metadata["count"], arrays), metadata


def merge_sums(paths):
    """(the sums over the images of all files together, metadata) of neighbouring shards, in their order.

    One file after the other: memory holds two, however many there are. Raises InputError for files that are not of one
    run, and for shards that are absent or come twice.
    """
    first, *others = paths
    merged, metadata = load_sums(first)
    for path in others:
        sums, other = load_sums(path)
        check_one_run(first, metadata, path, other)
        start, stop = metadata["covers"]
        if other["covers"][0] != stop:
            raise InputError(
                f"Shards {start} to {stop - 1} are merged, and {path} begins with shard {other['covers'][0]}, not "
                f"{stop}: each must come once. Remove the folder {Path(path).parent}, and run again."
            )
        merged.add(sums)
        metadata["covers"] = [start, other["covers"][1]]
        roles = {*metadata["counts"], *other["counts"]}
        added = {role: metadata["counts"].get(role, 0) + other["counts"].get(role, 0) for role in sorted(roles)}
        metadata |= {"counts": added, "skipped": metadata["skipped"] + other["skipped"]}
    return merged, metadata


def check_one_run(first, metadata, path, other):
    """Raise InputError, naming what differs, unless two files with these metadata are of one run."""
    differs = [
        f"{words} ({str(metadata.get(key))[:12]}, {str(other.get(key))[:12]})"
        for key, words in IDENTITY.items()
        if metadata.get(key) != other.get(key)
    ]
    if differs:
        raise InputError(
            f"{first} and {path} are not of one run and must not be mixed: they differ in {', in '.join(differs)}. "
            "Remove the older one, and run again."
        )
