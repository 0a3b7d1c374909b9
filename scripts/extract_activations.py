"""Activations of one shard of a seed's images, with the proof that all contributions add up to the embedding."""

from pathlib import Path
from typing import TYPE_CHECKING

from clipspectra import InputError
from clipspectra.arrays import load_table, save_arrays, versions
from clipspectra.jobs import job, model_arguments, progress

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

LARGEST_ERROR = 1e-4  # of the sum of contributions against the model's embedding, float32


def extract(loaded, table, root, *, batch_size, workers):
    """(arrays over the table's images, largest sum error)."""
    import torch
    from torch.utils.data import DataLoader

    from clipspectra.contributions import activations, head_basis, sum_error
    from clipspectra.datasets import ImageFiles

    basis = head_basis(loaded.model.visual)
    loader = DataLoader(ImageFiles(table, root, loaded.preprocess), batch_size, num_workers=workers)
    collected = {name: [] for name in ("z", "scalars", "mlps", "embedding")}
    worst, done = 0.0, 0
    with progress(None, "activations", total=len(table), unit="image") as bar:
        for images in loader:
            found = activations(loaded.model, images.to(loaded.device))
            broken = (~torch.isfinite(found.embedding).all(1)).nonzero().flatten().tolist()
            if broken:
                raise InputError(f"The model's embedding of {table['image'].iloc[done + broken[0]]} is not a number.")
            error = sum_error(found, basis)
            if error > LARGEST_ERROR:
                raise InputError(
                    f"The contributions miss the model's embedding by {error:.1e}, more than {LARGEST_ERROR:.0e}: "
                    "this model is not decomposed exactly."
                )
            worst, done = max(worst, error), done + len(images)
            for name, parts in collected.items():
                parts.append(getattr(found, name).cpu())
            bar.update(len(images))
    return {name: torch.cat(parts).numpy() for name, parts in collected.items()}, worst


if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        from clipspectra import models

        wildcards = snakemake.wildcards
        table = load_table(snakemake.input.images)
        shard, shards = int(wildcards.shard), int(wildcards.shards)
        table = table.iloc[len(table) * shard // shards : len(table) * (shard + 1) // shards]
        if table.empty:
            raise InputError(f"Shard {shard} of {shards} has no images; lower 'shards' in the config.")
        loaded = models.load(**model_arguments(snakemake), device=snakemake.resources.device)
        root = Path(snakemake.input.manifest).parent
        arrays, error = extract(
            loaded, table, root, batch_size=snakemake.resources.batch_size, workers=snakemake.threads - 1
        )
        arrays |= {
            "label": table["label"].to_numpy(),
            "row": table["row"].to_numpy(),
            "fit": (table["role"] == "fit").to_numpy().astype("uint8"),
        }
        metadata = {key: wildcards[key] for key in ("model", "dataset", "seed")}
        metadata |= {
            "dtype": "float32",
            "sum_error": error,
            "sha256": loaded.sha256 or "",
            "code": snakemake.params.code,
        }
        save_arrays(snakemake.output[0], arrays, metadata | versions("torch", "open_clip_torch"))
        log(f"{len(table)} images; the sum of contributions misses the embedding by {error:.1e} at most")
