"""The manifest of a dataset in tar files, and an index of each tar, so that its pictures are read where they are."""

from clipspectra.data.tar_names import Tar
from clipspectra.data.webdataset import FAILED, read_classes, write_manifest
from clipspectra.jobs import job, warn

if __name__ == "__main__":
    with job(snakemake.log[0], f"datasets.{snakemake.wildcards.dataset}") as log:
        params, inputs, outputs = snakemake.params, snakemake.input, snakemake.output
        dataset, tars = snakemake.wildcards.dataset, [Tar(*tar) for tar in params.tars]
        listing = write_manifest(
            tars,
            outputs.manifest,
            outputs.left_out,
            params.source,
            digests=params.digests,
            classes=read_classes(inputs.classes) if "classes" in inputs.keys() else None,
            processes=snakemake.threads,
        )
        classes = f" of {len(listing.classes)} classes" if listing.first_with_class else ""
        log(f"{listing.images} images{classes} in {len(tars)} tar files")
        for reason, count in listing.reasons.most_common():
            log(f"left out: {count} samples, {reason}")
        unexpected = sum(count for reason, count in listing.reasons.items() if not reason.startswith(FAILED))
        if unexpected:
            name, reason = listing.first_left_out
            warn(
                log,
                f"{dataset}: {unexpected} samples beside the {listing.images} images are left out, the first {name}: "
                f"{reason}. All are listed in {outputs.left_out}.",
            )
