# Where in the images the evidence is: maps scored against masks, by method, by head, and for texts of the user's own.
PICTURES_FOLDER = ["results/segmentation/{model}/{dataset}/pictures"] if config["segmentation"]["save_images"] else []
# What segmentation reads, beside the files of the model and the images.
SEGMENTATION_INPUTS = {
    "manifest": MANIFEST,
    "classes": "results/text/{model}/classes-{dataset}.safetensors",
}
# Params of every job that segments images.
SEGMENTATION_PARAMS = model_job() | {
    "masks": lambda wildcards: pictures_stamp(wildcards.dataset, "mask"),
    "target": config["segmentation"]["target"],
    "direction": config["segmentation"]["direction"],
    "geometry": config["segmentation"]["geometry"],
    "mask_pixels": lambda wildcards: DATASETS[wildcards.dataset].get("mask_pixels"),
    "on_bad_image": config["on_bad_image"],
}


# Every image once, whichever seeds use it: a seed added to the config scores the images that are not stored yet.
rule segment_images:
    input:
        unpack(model_files),
        unpack(images_of_all_seeds),
        **SEGMENTATION_INPUTS,
    output:
        **{"pictures": update(directory(path)) for path in PICTURES_FOLDER},
        store=update("results/segmentation/{model}/{dataset}/scores.safetensors"),
        images=expand("results/segmentation/{{model}}/{{dataset}}/seed-{seed}/images.csv", seed=SEEDS),
        scores=expand("results/segmentation/{{model}}/{{dataset}}/seed-{seed}/scores.csv", seed=SEEDS),
        examples=expand("results/segmentation/{{model}}/{{dataset}}/seed-{seed}/examples.safetensors", seed=SEEDS),
    log:
        "results/logs/segmentation/{model}/{dataset}.log",
    benchmark:
        "results/benchmarks/segmentation/{model}/{dataset}.tsv"
    wildcard_constraints:
        dataset=any_of(MASKED_DATASETS),
    group:
        GROUPS["images"]
    conda:
        ENVIRONMENT
    threads: config["threads"]
    resources:
        **SEGMENTATION_RESOURCES,
    params:
        **SEGMENTATION_PARAMS,
        seeds=SEEDS,
        methods=config["segmentation"]["methods"],
        save_images=config["segmentation"]["save_images"],
        code=code("segment_images"),
    message:
        "Segmenting {wildcards.dataset} with {wildcards.model}"
    script:
        "../scripts/segment_images.py"


rule segment_parts:
    input:
        unpack(model_files),
        **SEGMENTATION_INPUTS,
        images="results/data/{dataset}/seed-{seed}/images.csv",
    output:
        parts="results/segmentation/{model}/{dataset}/seed-{seed}/parts.csv",
        together="results/segmentation/{model}/{dataset}/seed-{seed}/best-parts.csv",
    log:
        "results/logs/segmentation/{model}/{dataset}/seed-{seed}-parts.log",
    wildcard_constraints:
        dataset=any_of(set(MASKED_DATASETS) - set(EXPLAINED_DATASETS)),
    group:
        GROUPS["edits"]
    conda:
        ENVIRONMENT
    threads: config["threads"]
    resources:
        **SEGMENTATION_RESOURCES,
    params:
        **SEGMENTATION_PARAMS,
        code=code("segment_parts"),
    message:
        "Which parts of {wildcards.model} segment {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/segment_parts.py"


# The same, with the components that the fit images gave.
use rule segment_parts as segment_parts_and_components with:
    input:
        unpack(model_files),
        **SEGMENTATION_INPUTS,
        images="results/data/{dataset}/seed-{seed}/images.csv",
        components=f"results/explanations/{{model}}/{{dataset}}/seed-{{seed}}/{next(iter(TEXTS))}/components.safetensors",
    wildcard_constraints:
        dataset=any_of(set(MASKED_DATASETS) & set(EXPLAINED_DATASETS)),


use rule table_accuracy as table_segmentation with:
    input:
        expand(
            "results/segmentation/{model}/{dataset}/seed-{seed}/scores.csv",
            model=MODELS,
            dataset=MASKED_DATASETS,
            seed=SEEDS,
        ),
    output:
        **table("segmentation", "Zero-shot segmentation"),
        latex="results/tables/segmentation.tex",
    log:
        "results/logs/tables/segmentation.log",
    params:
        scores=["pixel_accuracy", "mean_iou", "mean_ap", "foreground_ap", "chosen_iou"],
        means=["flat_maps", "first_threshold", "second_threshold"],
    message:
        "Table of segmentation scores"


rule map_texts:
    input:
        unpack(model_files),
        unpack(spatial_file),
    output:
        "results/spatial/{spatial}.safetensors",
    log:
        "results/logs/spatial/{spatial}.log",
    group:
        GROUPS["texts"]
    conda:
        ENVIRONMENT
    resources:
        **MODEL_RESOURCES,
    params:
        **model_job(spatial_file),
        texts=lambda wildcards: request(wildcards)["texts"],
        minus=lambda wildcards: request(wildcards)["minus"],
        code=code("map_texts"),
    message:
        "Mapping the texts of {wildcards.spatial}"
    script:
        "../scripts/map_texts.py"
