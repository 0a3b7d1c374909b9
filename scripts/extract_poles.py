"""One shard's images run through the model once more, with the components fixed: what lies at their poles."""

from pathlib import Path

from clipspectra.arrays import load_arrays
from clipspectra.contributions.joint import JointMoments, save_sums
from clipspectra.contributions.shards import file_digest, images_to_stream, shard_numbers
from clipspectra.jobs import job, model_arguments, model_identity

MEANS = "mean", "embedding_mean"  # all that is read of the moments

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        from clipspectra.contributions.streaming import extract_poles, on_cpu, run_identity
        from clipspectra.towers import models

        inputs, params, resources = snakemake.input, snakemake.params, snakemake.resources
        outputs, seeds = snakemake.output, [str(seed) for seed in params.seeds]
        shard, shards = int(snakemake.wildcards.shard), int(snakemake.wildcards.shards)
        tables, samples = (dict(zip(seeds, paths)) for paths in (inputs.images, inputs.samples))
        images, fits = images_to_stream(tables, samples, shard, shards, params.protocol)
        inside = sum(fits.values()) > 0
        images, fits = images[inside].assign(checked=False), {seed: fit[inside] for seed, fit in fits.items()}
        directions = {seed: load_arrays(path)[0] for seed, path in zip(seeds, inputs.directions)}
        options = {"device": snakemake.config["device"], "precision": params.precision, "towers": "image"}
        loaded = models.load(**model_arguments(snakemake), **options)
        sums, proof = extract_poles(
            loaded,
            images,
            Path(inputs.manifest).parent,
            fits,
            directions,
            {seed: JointMoments(**load_arrays(path, *MEANS)[0]) for seed, path in zip(seeds, inputs.moments)},
            layers=params.layers,
            batch_size=resources.batch_size,
            workers=snakemake.threads - 1,
            on_bad_image=params.on_bad_image,
        )
        identity = model_identity(snakemake) | run_identity(loaded, params.protocol, shards)
        identity |= {"code": params.code, "first_layer": proof["first_layer"]}
        for seed, fixed, path in zip(seeds, inputs.directions, outputs):
            numbers = shard_numbers(images, proof["skipped"], seed, shard)
            of_seed = {"kind": "poles", "seed": seed, "images": file_digest(tables[seed])}
            save_sums(path, on_cpu(sums[seed]), identity | of_seed | {"directions": file_digest(fixed)}, numbers)
        log(f"{len(images) - len(proof['skipped'])} images went through the model")
