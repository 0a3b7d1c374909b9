"""The sample of a seed's images that is kept whole where of all fit images only moments are."""

from clipspectra.arrays import save_table, table_chunks
from clipspectra.data.samples import sample_images
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        chunks = table_chunks(snakemake.input.images)
        table = sample_images(chunks, snakemake.wildcards.seed, snakemake.params.sample)
        save_table(snakemake.output[0], table)
        for role, rows in table.groupby("role"):
            log(f"{role}: {len(rows)} of {rows['of_role'].iloc[0]} images are kept whole")
