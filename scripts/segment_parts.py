"""Which heads' and components' evidence lies on the object: each alone, and the best few together."""

from pathlib import Path

import numpy as np

from clipspectra.arrays import load_table, save_table, with_source
from clipspectra.data.datasets import masked_rows
from clipspectra.jobs import job, model_arguments

IMAGES = 200  # spread evenly over the eval images

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        import torch

        from clipspectra.contributions.chunks import check_weights
        from clipspectra.data.pictures import batches, check_readable, named_skipped
        from clipspectra.explanations.head import load_explanations
        from clipspectra.segmentation import units
        from clipspectra.segmentation.images import given_to
        from clipspectra.segmentation.segmenter import Segmenter
        from clipspectra.towers import models
        from clipspectra.towers.devices import explain_out_of_memory

        wildcards, resources, params = snakemake.wildcards, snakemake.resources, snakemake.params
        table, root = masked_rows(load_table(snakemake.input.images)), Path(snakemake.input.manifest).parent
        rows = np.linspace(0, len(table) - 1, min(IMAGES, len(table))).round().astype(int)
        table = table.iloc[rows].reset_index(drop=True)
        loaded = models.load(**model_arguments(snakemake), device=snakemake.config["device"], towers="image")
        options = {key: params[key] for key in ("target", "direction", "geometry", "mask_pixels")}
        options |= {"batch_size": resources.batch_size, "log": log}
        segmenter = Segmenter(loaded, snakemake.input.classes, wildcards.dataset, root, **options)
        files, labels, tower = segmenter.files(table), segmenter.classes(table), segmenter.tower
        components = {}
        if "components" in snakemake.input.keys():
            check_weights([snakemake.input.components], loaded.sha256 or "")
            components = units.leading_components(load_explanations(snakemake.input.components))
        evidence, masks, skipped = [], [], []
        options = {"workers": snakemake.threads - 1, "on_bad_image": params.on_bad_image, "skipped": skipped}
        with explain_out_of_memory(resources.batch_size):
            for rows, (images, batch_masks) in batches(files, resources.batch_size, **options):
                classes = None if labels is None else labels[rows]
                minus_mean = params.direction == "minus_mean"
                evidence_options = {"classes": classes, "minus_mean": minus_mean, "tower": tower}
                evidence.append(
                    units.unit_evidence(loaded.model, images, segmenter.classifier, components, **evidence_options)
                )
                masks.append(batch_masks.numpy())
        skipped = named_skipped(skipped, table)
        check_readable(skipped, table)
        for picture in skipped:
            log(f"skipped {picture['image']}: {picture['reason']}")
        evidence = {unit: torch.cat([batch[unit] for batch in evidence]) for unit in evidence[0]}
        tables = units.unit_tables(tower, components)
        alone, together = units.score_units(evidence, tables, np.concatenate(masks), tower.grid)
        source = {key: wildcards[key] for key in ("model", "dataset", "seed")}
        source["given"] = given_to("decomposition", params.direction)[0]
        for path, scores in ((snakemake.output.parts, alone), (snakemake.output.together, together)):
            save_table(path, with_source(scores, source))
