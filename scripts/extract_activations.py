"""Activations of one shard of a dataset's images, those of any seed, with the proof that contributions add up."""

from pathlib import Path

from clipspectra.arrays import ArrayStream, versions
from clipspectra.contributions.shards import images_of_shard, previous_layouts, to_extract
from clipspectra.data.store import ImageStore, locked
from clipspectra.jobs import job, model_arguments, model_identity, warn

if __name__ == "__main__":
    with job(snakemake.log[0]) as log, locked(snakemake.output[0], log):
        inputs, params, resources = snakemake.input, snakemake.params, snakemake.resources
        output, wildcards = Path(snakemake.output[0]), snakemake.wildcards
        for folder in previous_layouts(output.parent):
            warn(log, f"{folder} holds activations of an older version. They are not read; remove the folder.")
        images = images_of_shard(inputs.images, int(wildcards.shard), int(wildcards.shards))
        identity = model_identity(snakemake) | {"precision": params.precision, "code": params.code} | params.stored
        identity |= versions("torch", "open_clip_torch", "pillow")
        store = ImageStore(output, identity)
        if to_extract(store, images).empty:
            log(f"all {len(images)} images are stored")
            if images.empty and not store.metadata:  # few images and many shards
                store.save(ArrayStream(output.parent), images, identity | {"sha256": "", "skipped": []})
            elif not store.has(images).all():  # the manifest has them in other rows
                store.save(ArrayStream(output.parent), images, store.metadata)
        else:
            from clipspectra.contributions.extraction import extract
            from clipspectra.towers import models

            options = {"device": snakemake.config["device"], "precision": params.precision, "towers": "image"}
            loaded = models.load(**model_arguments(snakemake), **options)
            identity["sha256"] = loaded.sha256 or ""
            store = ImageStore(output, identity)  # a published tag may have got other weights
            if store.replaced:
                log(f"stored activations are extracted again: {store.replaced}")
            table = to_extract(store, images)
            stream, proof = extract(
                loaded,
                table,
                Path(inputs.manifest).parent,
                output.parent,
                batch_size=resources.batch_size,
                workers=snakemake.threads - 1,
                on_bad_image=params.on_bad_image,
                **params.stored,
            )
            store.save(stream, images, identity | proof)
            log(f"{len(table) - len(proof['skipped'])} images extracted, of {len(images)} that the seeds use")
            for skipped in proof["skipped"]:
                log(f"skipped {skipped['image']}: {skipped['reason']}")
