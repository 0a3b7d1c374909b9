rule segment_images:
    input:
        unpack(model_files),
        images="results/data/{dataset}/seed-{seed}/images.csv",
        manifest="results/data/{dataset}/manifest.csv",
        classes="results/text/{model}/classes-{dataset}.safetensors",
    output:
        **SEGMENTATION_PICTURES,
        images="results/segmentation/{model}/{dataset}/seed-{seed}/images.csv",
        scores="results/segmentation/{model}/{dataset}/seed-{seed}/scores.csv",
        examples="results/segmentation/{model}/{dataset}/seed-{seed}/examples.safetensors",
    log:
        "results/logs/segmentation/{model}/{dataset}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/segmentation/{model}/{dataset}/seed-{seed}.tsv"
    wildcard_constraints:
        dataset=any_of(MASKED_DATASETS),
    conda:
        ENVIRONMENT
    threads: lookup("threads", within=config)
    resources:
        gpu=lookup("gpu", within=config),
        mem=MODEL_MEMORY,
        runtime="2h",
        batch_size=lookup("batch_size", within=config),
        device=lookup("device", within=config),
        cache=MODEL_CACHE,
    params:
        model=model_params,
        files=own_files(model_files),
        masks=lambda wildcards: own_pictures(wildcards.dataset, "mask"),
        methods=lookup("segmentation/methods", within=config),
        save_images=lookup("segmentation/save_images", within=config),
        target=lookup("segmentation/target", within=config),
        geometry=lookup("segmentation/geometry", within=config),
        mask_pixels=lambda wildcards: DATASETS[wildcards.dataset].get("mask_pixels"),
        on_bad_image=lookup("on_bad_image", within=config),
        code=code("segment_images"),
    message:
        "Segmenting {wildcards.dataset} with {wildcards.model}, seed {wildcards.seed}"
    script:
        "../scripts/segment_images.py"


rule segment_parts:
    input:
        unpack(model_files),
        images="results/data/{dataset}/seed-{seed}/images.csv",
        manifest="results/data/{dataset}/manifest.csv",
        classes="results/text/{model}/classes-{dataset}.safetensors",
    output:
        parts="results/segmentation/{model}/{dataset}/seed-{seed}/parts.csv",
        together="results/segmentation/{model}/{dataset}/seed-{seed}/best-parts.csv",
    log:
        "results/logs/segmentation/{model}/{dataset}/seed-{seed}-parts.log",
    wildcard_constraints:
        dataset=any_of(set(MASKED_DATASETS) - set(EXPLAINED_DATASETS)),
    conda:
        ENVIRONMENT
    threads: lookup("threads", within=config)
    resources:
        gpu=lookup("gpu", within=config),
        mem=MODEL_MEMORY,
        runtime="2h",
        batch_size=lookup("batch_size", within=config),
        device=lookup("device", within=config),
        cache=MODEL_CACHE,
    params:
        model=model_params,
        files=own_files(model_files),
        masks=lambda wildcards: own_pictures(wildcards.dataset, "mask"),
        target=lookup("segmentation/target", within=config),
        geometry=lookup("segmentation/geometry", within=config),
        mask_pixels=lambda wildcards: DATASETS[wildcards.dataset].get("mask_pixels"),
        on_bad_image=lookup("on_bad_image", within=config),
        code=code("segment_parts"),
    message:
        "Which parts of {wildcards.model} segment {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/segment_parts.py"


# The same, with the components that the fit images gave.
use rule segment_parts as segment_parts_and_components with:
    input:
        unpack(model_files),
        images="results/data/{dataset}/seed-{seed}/images.csv",
        manifest="results/data/{dataset}/manifest.csv",
        classes="results/text/{model}/classes-{dataset}.safetensors",
        components=f"results/explanations/{{model}}/{{dataset}}/seed-{{seed}}/{next(iter(TEXTS))}/components.safetensors",
    wildcard_constraints:
        dataset=any_of(set(MASKED_DATASETS) & set(EXPLAINED_DATASETS)),


rule table_segmentation:
    input:
        expand(
            "results/segmentation/{model}/{dataset}/seed-{seed}/scores.csv",
            model=MODELS,
            dataset=MASKED_DATASETS,
            seed=SEEDS,
        ),
    output:
        latex="results/tables/segmentation.tex",
        csv=report(
            "results/tables/segmentation.csv",
            caption="captions/segmentation.rst",
            category="Tables",
            labels={"table": "Zero-shot segmentation"},
        ),
    log:
        "results/logs/tables/segmentation.log",
    conda:
        ENVIRONMENT
    params:
        scores=["pixel_accuracy", "mean_iou", "mean_ap"],
        means=[
            f"{score}_{side}"
            for score in ("pixel_accuracy", "mean_iou", "mean_ap")
            for side in ("low", "high")
        ]
        + ["flat_maps"],
        code=code("average_over_seeds"),
    message:
        "Table of segmentation scores"
    script:
        "../scripts/average_over_seeds.py"


rule map_texts:
    input:
        unpack(model_files),
        unpack(spatial_file),
    output:
        "results/spatial/{spatial}.safetensors",
    log:
        "results/logs/spatial/{spatial}.log",
    wildcard_constraints:
        spatial=any_of(config["spatial"]),
    conda:
        ENVIRONMENT
    resources:
        mem=MODEL_MEMORY,
        runtime="30m",
        device=lookup("device", within=config),
        cache=MODEL_CACHE,
    params:
        model=model_params,
        files=own_files(model_files, spatial_file),
        texts=lambda wildcards: asked(wildcards)["texts"],
        minus=lambda wildcards: asked(wildcards)["minus"],
        code=code("map_texts"),
    message:
        "Where the texts of {wildcards.spatial} are"
    script:
        "../scripts/map_texts.py"
