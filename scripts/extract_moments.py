"""One shard's images run through the model once: moments of each seed's fit images, and the sample's activations."""

from pathlib import Path

from clipspectra.contributions.joint import save_sums
from clipspectra.contributions.shards import file_digest, images_to_stream, shard_numbers
from clipspectra.jobs import job, model_arguments, model_identity

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        from clipspectra.contributions.streaming import extract_moments, on_cpu, run_identity
        from clipspectra.towers import models

        inputs, params, resources = snakemake.input, snakemake.params, snakemake.resources
        outputs, seeds = snakemake.output, [str(seed) for seed in params.seeds]
        shard, shards = int(snakemake.wildcards.shard), int(snakemake.wildcards.shards)
        tables, samples = (dict(zip(seeds, paths)) for paths in (inputs.images, inputs.samples))
        images, fits = images_to_stream(tables, samples, shard, shards, params.protocol)
        options = {"device": snakemake.config["device"], "precision": params.precision, "towers": "image"}
        loaded = models.load(**model_arguments(snakemake), **options)
        folder = Path(outputs.sample).parent
        stream, moments, proof = extract_moments(
            loaded,
            images,
            Path(inputs.manifest).parent,
            folder,
            fits,
            batch_size=resources.batch_size,
            workers=snakemake.threads - 1,
            on_bad_image=params.on_bad_image,
            **params.stored,
        )
        identity = model_identity(snakemake) | run_identity(loaded, params.protocol, shards)
        identity |= {"code": params.code, "first_layer": proof["first_layer"]}
        digests = {seed: file_digest(path) for seed, path in tables.items()}
        stream.append({name: images[name].to_numpy()[:0] for name in ("row", "picture_id")})
        of_sample = params.stored | proof | {"images": digests}
        of_sample["samples"] = {seed: file_digest(path) for seed, path in samples.items()}
        stream.save(outputs.sample, identity | of_sample, order_by="row")
        for seed, path in zip(seeds, outputs.moments):
            numbers = shard_numbers(images, proof["skipped"], seed, shard)
            of_seed = identity | {"kind": "moments", "seed": seed, "images": digests[seed]}
            save_sums(path, on_cpu(moments[seed]), of_seed, numbers)
        log(f"{len(images) - len(proof['skipped'])} images went through the model; {images['whole'].sum()} are kept")
        for skipped in proof["skipped"]:
            log(f"skipped {skipped['image']}: {skipped['reason']}")
