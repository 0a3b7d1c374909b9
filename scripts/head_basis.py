"""The fixed matrices B of a model, which map the coordinates of each head to its contributions."""

from clipspectra.arrays import save_arrays, versions
from clipspectra.jobs import job, model_arguments

if __name__ == "__main__":
    with job(snakemake.log[0]):
        from clipspectra.contributions.exact import head_basis, value_grams
        from clipspectra.towers import models
        from clipspectra.towers.families import adapt
        from clipspectra.towers.tower import weights_digest

        loaded = models.load(**model_arguments(snakemake), towers="image")
        tower = adapt(loaded.model.visual)
        arrays = {"basis": head_basis(tower).numpy(), "value_gram": value_grams(tower).numpy()}
        metadata = {"model": snakemake.wildcards.model, "sha256": loaded.sha256 or "", "code": snakemake.params.code}
        sizes = {"layers": len(tower.layers), "heads": tower.layers[0].heads}
        metadata["weights"] = weights_digest(loaded.model.visual)
        metadata["used"] = loaded.used | sizes | {"adapter": tower.family}
        save_arrays(snakemake.output.basis, arrays, metadata | versions("torch", "open_clip_torch"))
