"""A query in the joint space: texts, or a picture with the activations of its heads."""

import hashlib
from pathlib import Path

from clipspectra import InputError
from clipspectra.arrays import save_arrays, versions
from clipspectra.jobs import job, model_arguments, warn


def entry_name(wildcards):
    """The config's entry that the job is about: queries.name, neighbours.name or interventions.name."""
    # a wildcard's name is its config section, except 'intervention'
    return next(f"{key.rstrip('s')}s.{name}" for key, name in wildcards.items() if key != "model")


def picture_path(name, inputs):
    """Path of a picture: a file, or an image of the dataset as its manifest names it."""
    from clipspectra.data.datasets import Manifest

    if "image" in inputs.keys():
        return Path(inputs.image)
    manifest = Path(inputs.manifest)
    if Path(name).is_file():  # made by an earlier job
        return Path(name)
    if not any((piece["image"] == name).any() for piece in Manifest(manifest)):
        raise InputError(f"The picture {name} is not there, and {manifest} has no image of that name.")
    return manifest.parent / name


def embedded_texts(loaded, pool, log):
    """({"features" [text, d_embed]}, metadata) of texts. Warns of texts cut off and of words the model never learnt."""
    from clipspectra.data.texts import embed_texts, too_long, unknown_words

    for text in too_long(loaded, pool):
        warn(log, f"'{text[:60]} …' is longer than the model's context; its end is cut off.")
    unknown = unknown_words(loaded, pool)
    if unknown:
        words = ", ".join(map(repr, unknown))
        warn(log, f"The model has never learnt {words}; texts with these words mean little to it.")
    return {"features": embed_texts(loaded, pool).numpy()}, {"texts": pool, "unknown": unknown}


if __name__ == "__main__":
    with job(snakemake.log[0], entry_name(snakemake.wildcards)) as log:
        from clipspectra.contributions.extraction import extract_picture
        from clipspectra.data.pools import read_pool
        from clipspectra.data.tars import opened
        from clipspectra.towers import models

        params, inputs = snakemake.params, snakemake.input
        towers = "image" if params.image else "text"
        loaded = models.load(**model_arguments(snakemake), device=snakemake.config["device"], towers=towers)
        if params.image:
            path = picture_path(params.image, inputs)
            with opened(path) as file:
                metadata = {"image_sha256": hashlib.file_digest(file, "sha256").hexdigest()}
            arrays = extract_picture(loaded, path)
        else:
            pool = read_pool(inputs.topics)[0] if "topics" in inputs.keys() else params.texts
            arrays, metadata = embedded_texts(loaded, pool, log)
        metadata |= {"sha256": loaded.sha256 or "", "code": params.code} | versions("torch", "open_clip_torch")
        save_arrays(snakemake.output[0], arrays, metadata)
