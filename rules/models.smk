rule models:
    output:
        "results/tables/models.csv",
    log:
        "results/logs/tables/models.log",
    conda:
        ENVIRONMENT
    params:
        code=code("list_models"),
    message:
        "Which architectures of open_clip are decomposed"
    script:
        "../scripts/list_models.py"


rule table_loaded_models:
    input:
        expand("results/activations/{model}/basis.safetensors", model=MODELS),
    output:
        report(
            "results/tables/loaded-models.csv",
            caption="captions/loaded-models.rst",
            category="Tables",
            labels={"table": "What every model was loaded with"},
        ),
    log:
        "results/logs/tables/loaded-models.log",
    conda:
        ENVIRONMENT
    params:
        code=code("table_loaded_models"),
    message:
        "Table of what every model was loaded with"
    script:
        "../scripts/table_loaded_models.py"


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
        code=code("train_demo_model"),
    message:
        "Training the demo model {wildcards.checkpoint}"
    script:
        "../scripts/train_demo_model.py"
