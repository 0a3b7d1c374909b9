rule embed_classes:
    input:
        unpack(model_files),
        manifest="results/data/{dataset}/manifest.csv",
    output:
        "results/text/{model}/classes-{dataset}.safetensors",
    log:
        "results/logs/text/{model}/classes-{dataset}.log",
    conda:
        ENVIRONMENT
    resources:
        mem="4GB",
        runtime="30m",
        device=lookup("device", within=config),
    params:
        model=model_params,
        prompts=lambda wildcards: DATASETS[wildcards.dataset]["prompts"],
        code=code("models", "texts", "arrays"),
    message:
        "Class texts of {wildcards.dataset} in {wildcards.model}"
    script:
        "../scripts/embed_classes.py"


def pool_file(wildcards):
    pool = TEXTS[wildcards.texts]
    return {"pool": found(pool["file"])} if "file" in pool else {}


rule embed_texts:
    input:
        unpack(model_files),
        unpack(pool_file),
    output:
        "results/text/{model}/{texts}.safetensors",
    log:
        "results/logs/text/{model}/{texts}.log",
    conda:
        ENVIRONMENT
    resources:
        mem="4GB",
        runtime="30m",
        device=lookup("device", within=config),
    params:
        model=model_params,
        code=code("models", "texts", "arrays", "demo"),
    message:
        "Text pool {wildcards.texts} in {wildcards.model}"
    script:
        "../scripts/embed_texts.py"
