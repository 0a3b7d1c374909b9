"""Activations of one shard of a seed's images, with the proof that all contributions add up to the embedding."""

from pathlib import Path

from clipspectra import InputError
from clipspectra.arrays import load_table, versions
from clipspectra.jobs import job, model_arguments

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        from clipspectra.contributions.extraction import extract
        from clipspectra.towers import models

        wildcards, params, resources = snakemake.wildcards, snakemake.params, snakemake.resources
        table = load_table(snakemake.input.images)
        shard, shards = int(wildcards.shard), int(wildcards.shards)
        table = table.iloc[len(table) * shard // shards : len(table) * (shard + 1) // shards]
        if table.empty:
            raise InputError(f"Shard {shard} of {shards} has no images; lower 'shards' in the config.")
        loaded = models.load(**model_arguments(snakemake), device=resources.device, precision=params.precision)
        output = Path(snakemake.output[0])
        stream, proof = extract(
            loaded,
            table,
            Path(snakemake.input.manifest).parent,
            output.parent,
            batch_size=resources.batch_size,
            workers=snakemake.threads - 1,
            on_bad_image=params.on_bad_image,
            **params.stored,
        )
        metadata = {key: wildcards[key] for key in ("model", "dataset", "seed")}
        metadata |= {"precision": params.precision, "dtype": params.stored["dtype"], "code": params.code}
        metadata |= {"sha256": loaded.sha256 or "", **proof, **versions("torch", "open_clip_torch")}
        stream.save(output, metadata)
        log(f"{len(table)} images; the sum of contributions misses the embedding by at most {proof['sum_error']:.1e}")
        for skipped in proof["skipped"]:
            log(f"skipped {skipped['image']}: {skipped['reason']}")
