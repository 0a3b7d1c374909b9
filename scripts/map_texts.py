"""Patch maps of the evidence for given texts in one picture, by layer and head."""

from clipspectra.arrays import save_arrays, versions
from clipspectra.jobs import job, model_arguments

if __name__ == "__main__":
    with job(snakemake.log[0]):
        from clipspectra.data.geometry import model_view
        from clipspectra.segmentation.maps import text_evidence
        from clipspectra.towers import models

        params, path = snakemake.params, snakemake.input.image
        loaded = models.load(**model_arguments(snakemake), device=snakemake.config["device"])
        evidence = text_evidence(loaded, path, params.texts, params.minus)
        arrays = {"evidence": evidence, "picture": model_view(path, loaded.preprocess)}
        metadata = {"texts": params.texts, "minus": params.minus or "", "sha256": loaded.sha256 or ""}
        metadata |= {"architecture": params.model["architecture"], "code": params.code}
        save_arrays(snakemake.output[0], arrays, metadata | versions("torch", "open_clip_torch"))
