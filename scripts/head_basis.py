"""The fixed matrices B of a model, from which every head's contributions follow."""

from typing import TYPE_CHECKING

from clipspectra.arrays import save_arrays, versions
from clipspectra.jobs import job, model_arguments

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake.log[0]):
        from clipspectra.contributions.exact import head_basis, value_grams
        from clipspectra.towers import models
        from clipspectra.towers.families import tower

        loaded = models.load(**model_arguments(snakemake))
        found = tower(loaded.model.visual)
        arrays = {"basis": head_basis(found).numpy(), "value_gram": value_grams(found).numpy()}
        metadata = {"model": snakemake.wildcards.model, "sha256": loaded.sha256 or "", "code": snakemake.params.code}
        heads = {"layers": len(found.layers), "heads": found.layers[0].heads}
        metadata["used"] = loaded.used | heads | {"adapter": found.family}
        save_arrays(snakemake.output.basis, arrays, metadata | versions("torch", "open_clip_torch"))
