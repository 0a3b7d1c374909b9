"""Sums over the images of neighbouring shards, added up; those of all shards are what everything after reads."""

from clipspectra.contributions.joint import IDENTITY, NUMBERS, merge_sums, save_sums
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        sums, metadata = merge_sums(snakemake.input.parts)
        identity = {key: metadata[key] for key in IDENTITY if key in metadata}
        save_sums(snakemake.output[0], sums, identity, {key: metadata[key] for key in NUMBERS})
        log(f"shards {metadata['covers'][0]} to {metadata['covers'][1] - 1}: {sums.count} images")
