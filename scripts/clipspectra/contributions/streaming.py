"""Two passes over images that are not kept: their joint moments with a sample kept whole, and the sums at poles."""

import numpy as np
import torch

from clipspectra.arrays import ArrayStream, versions
from clipspectra.contributions.extraction import DecomposedImages
from clipspectra.contributions.joint import JointMoments, PoleSums
from clipspectra.contributions.shards import ERRORS
from clipspectra.towers.tower import float64, weights_digest


def extract_moments(loaded, table, root, folder, seeds, *, layers="all", dtype="float32", **options):
    """(ArrayStream in `folder` of the sample's images, {seed: JointMoments}, proof) of the images of a table.

    table: as in extraction.extract, and whole, whether an image is kept; seeds: {seed: whether it fits [image]}, bool
    layers, dtype: as in extract; dtype is of the sample alone, moments are of what the model gave
    options: batch_size, workers, on_bad_image

    The proof has what that of extract has, and exactness: {seed: {images, the largest of each of ERRORS, names of
    the skipped}} over all images that the seed fits or keeps.
    """
    images, stream = DecomposedImages(loaded, layers=layers, dtype=dtype), ArrayStream(folder)
    whole, moments = table["whole"].to_numpy(), {seed: JointMoments() for seed in seeds}
    used = {seed: fits | table[f"whole_{seed}"].to_numpy() for seed, fits in seeds.items()}
    exactness = {seed: {"images": 0} | dict.fromkeys(ERRORS) for seed in seeds}
    for rows, batch, errors in images.batches(table, root, **options):
        arrays = images.stored_arrays(batch, errors)
        if (kept := whole[rows]).any():
            chosen = table.iloc[rows][kept]
            stream.append(
                {name: array[kept] for name, array in arrays.items()}
                | {name: chosen[name].to_numpy() for name in ("row", "picture_id")}
            )
        q, embedding = coordinates(batch)
        for seed, fits in seeds.items():
            moments[seed].add(joint_moments(batch, q, embedding, fits[rows]))
            note_errors(exactness[seed], arrays, used[seed][rows])
    absent = {picture["image"] for picture in images.skipped}
    for seed, inside in used.items():
        exactness[seed]["skipped"] = [name for name in table["image"][inside] if name in absent]
    return stream, moments, {"first_layer": images.first, "skipped": images.skipped, "exactness": exactness}


def extract_poles(loaded, table, root, seeds, directions, centres, *, layers="all", **options):
    """({seed: PoleSums} over the images of a table, proof as in extract_moments without exactness).

    seeds: {seed: whether it fits [image]}; directions: {seed: {kind: [layer, head, component, coordinate]}}, of
    "embedding" [component, d_embed]; centres: {seed: JointMoments, of which the means are used}
    """
    images = DecomposedImages(loaded, layers=layers)
    directions = {
        seed: {kind: torch.from_numpy(array).to(images.basis) for kind, array in by_kind.items()}
        for seed, by_kind in directions.items()
    }
    sums = {seed: PoleSums() for seed in seeds}
    for rows, batch, _ in images.batches(table, root, **options):
        q, embedding = coordinates(batch)
        for seed, fits in seeds.items():
            inside = torch.from_numpy(np.flatnonzero(fits[rows])).to(q.device)
            if len(inside):
                sums[seed].add(pole_sums(q[inside], embedding[inside], directions[seed], centres[seed]))
    return sums, {"first_layer": images.first, "skipped": images.skipped}


def run_identity(loaded, protocol, shards):
    """What sums of one run have in common beside the model's and the dataset's names and settings."""
    identity = {"protocol": protocol, "shards": shards, "precision": loaded.precision, "sha256": loaded.sha256 or ""}
    identity["weights"] = weights_digest(loaded.model.visual)
    return identity | versions("torch", "open_clip_torch", "pillow")


def coordinates(batch):
    """(q [image, layer, head, coordinate + scalar], normalised embedding [image, d_embed]) of Activations, float64."""
    embedding = float64(batch.embedding)
    return float64(batch.reduced()), embedding / embedding.norm(dim=-1, keepdim=True)


@torch.no_grad()
def joint_moments(batch, q, embedding, inside):
    """JointMoments of some images of a batch on its device; inside: bool [image]; q, embedding: as in coordinates."""
    chosen = torch.from_numpy(np.flatnonzero(inside)).to(q.device)
    count = len(chosen)
    if not count:
        return JointMoments()
    q, embedding = q[chosen], embedding[chosen]
    mean, embedding_mean = q.mean(0), embedding.mean(0)
    centred, centred_embedding = q - mean, embedding - embedding_mean
    by_head = centred.flatten(1, 2).permute(1, 0, 2)  # [layer * head, image, coordinate]
    covariance = (by_head.transpose(1, 2) @ by_head / count).reshape(*mean.shape, mean.shape[-1])
    cross = (centred.flatten(1).T @ centred_embedding / count).reshape(*mean.shape, -1)
    others = {name: getattr(batch, name) for name in ("mlps", "class_self", "early")}
    others = {name: float64(part)[chosen].mean(0) for name, part in others.items() if part is not None}
    embedding_covariance = centred_embedding.T @ centred_embedding / count
    return JointMoments(count, mean, covariance, cross, embedding_mean, embedding_covariance, **others)


@torch.no_grad()
def pole_sums(q, embedding, directions, centres):
    """PoleSums of some images; directions: {kind: tensor}; centres: their JointMoments, as numpy arrays."""
    weights, at_top = {}, {}
    for kind, of_kind in directions.items():
        if kind == "embedding":
            scores = (embedding - torch.from_numpy(centres.embedding_mean).to(embedding)) @ of_kind.T
        else:
            scores = torch.einsum("ilhk,lhck->ilhc", q - torch.from_numpy(centres.mean).to(q), of_kind)
        top = scores.clamp(min=0)
        weights[kind] = top.sum(0)
        at_top[kind] = (top.flatten(1).T @ embedding).reshape(*weights[kind].shape, -1)
    return PoleSums(len(q), directions, weights, at_top)


def on_cpu(sums):
    """JointMoments or PoleSums with numpy arrays in place of a device's tensors."""
    arrays = {name: array.cpu().numpy() for name, array in sums.arrays().items()}
    return type(sums).of_arrays(sums.count, arrays)


def note_errors(exactness, arrays, inside):
    """Count a batch's images that a seed uses (inside, bool [image]), and keep the largest of each of their errors."""
    exactness["images"] += int(inside.sum())
    for name in ERRORS:
        errors = arrays[name][inside]
        known = errors[~np.isnan(errors)]
        if len(known):
            exactness[name] = max(float(known.max()), exactness[name] or 0.0)
