# The demo: its images, and the training of its models.
rule draw_demo_images:
    output:
        manifest=MANIFEST,
        images=directory(local("results/data/{dataset}/images")),
    log:
        "results/logs/data/{dataset}.log",
    benchmark:
        "results/benchmarks/data/{dataset}.tsv"
    wildcard_constraints:
        dataset=any_of(DEMO_DATASETS),
    group:
        GROUPS["data"]
    conda:
        ENVIRONMENT
    resources:
        **FILES_RESOURCES,
    params:
        options=lambda wildcards: DATASETS[wildcards.dataset]["demo"],
        code=code("draw_demo_images"),
    message:
        "Drawing the demo's images: {wildcards.dataset}"
    script:
        "../scripts/draw_demo_images.py"


rule demo_models:
    input:
        expand("results/demo_models/{checkpoint}.safetensors", checkpoint=config["demo_training"]),
    localrule: True
    message:
        "Demo models trained; to use them, name them as 'pretrained' in the config"


rule train_demo_model:
    input:
        config=locate("config/demo/digits-clip.json"),
        start=training_start,
    output:
        weights="results/demo_models/{checkpoint}.safetensors",
        history="results/demo_models/{checkpoint}.csv",
    log:
        "results/logs/demo_models/{checkpoint}.log",
    benchmark:
        "results/benchmarks/demo_models/{checkpoint}.tsv"
    wildcard_constraints:
        checkpoint=any_of(config["demo_training"]),
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        runtime="3h",
    params:
        recipe=lambda wildcards: {
            key: value for key, value in config["demo_training"][wildcards.checkpoint].items() if key != "start"
        },
        code=code("train_demo_model"),
    message:
        "Training the demo model {wildcards.checkpoint}"
    script:
        "../scripts/train_demo_model.py"
