"""Zero-shot classifiers of a dataset: of its classes, and of each factor that has prompts."""

from clipspectra.arrays import save_arrays, versions
from clipspectra.data.datasets import Manifest
from clipspectra.jobs import job, model_arguments

if __name__ == "__main__":
    with job(snakemake.log[0]) as log:
        from clipspectra.data import texts
        from clipspectra.towers import models

        manifest = Manifest(snakemake.input.manifest)
        loaded = models.load(**model_arguments(snakemake), device=snakemake.config["device"], towers="text")
        arrays, values = {}, {}
        for column, prompt in snakemake.params.prompts.items():
            values[column] = texts.classifier_values(manifest, column, prompt["names"])
            phrases = texts.prompt_phrases(values[column], prompt["names"], column)
            if prompt["names"] != "imagenet":  # in which two classes are sunglasses, and two missiles
                texts.check_distinct(loaded, phrases)
            templates = texts.prompt_templates(prompt["templates"])
            arrays[column] = texts.zero_shot_classifier(loaded, phrases, templates).numpy()
            log(f"{column}: {len(values[column])} values")
        metadata = {"model": snakemake.wildcards.model, "dataset": snakemake.wildcards.dataset, "values": values}
        metadata |= {"sha256": loaded.sha256 or "", "code": snakemake.params.code}
        save_arrays(snakemake.output[0], arrays, metadata | versions("torch", "open_clip_torch"))
