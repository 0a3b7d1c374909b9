rule models:
    output:
        "results/tables/models.csv",
    log:
        "results/logs/tables/models.log",
    conda:
        ENVIRONMENT
    params:
        code=code("families", "towers", "arrays"),
    message:
        "Which architectures of open_clip are decomposed"
    script:
        "../scripts/list_models.py"


rule demo_models:
    input:
        expand(
            "results/demo_models/{checkpoint}.safetensors",
            checkpoint=config["demo_training"],
        ),
    localrule: True
    message:
        "Demo models trained; to use them, name them as 'pretrained' in the config"


rule train_demo_model:
    input:
        config=found("config/demo/digits-clip.json"),
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
        mem="3GB",
        runtime="3h",
    params:
        recipe=lambda wildcards: {
            key: value
            for key, value in config["demo_training"][wildcards.checkpoint].items()
            if key != "start"
        },
        code=code("demo", "demo_training", "arrays"),
    message:
        "Training the demo model {wildcards.checkpoint}"
    script:
        "../scripts/train_demo_model.py"
