# What every head and MLP adds to the embedding of every image, in reduced coordinates.
rule activations:
    input:
        expand(
            "results/activations/{model}/{dataset}/seed-{seed}/shard-{shard}-of-{shards}.safetensors",
            model=MODELS,
            dataset=EXPLAINED_DATASETS,
            seed=SEEDS,
            shard=range(config["shards"]),
            shards=config["shards"],
        ),
    localrule: True
    message:
        "All activations extracted"


rule extract_activations:
    input:
        unpack(model_files),
        images="results/data/{dataset}/seed-{seed}/images.csv",
        manifest="results/data/{dataset}/manifest.csv",
    output:
        "results/activations/{model}/{dataset}/seed-{seed}/shard-{shard}-of-{shards}.safetensors",
    log:
        "results/logs/activations/{model}/{dataset}/seed-{seed}/shard-{shard}-of-{shards}.log",
    benchmark:
        "results/benchmarks/activations/{model}/{dataset}/seed-{seed}/shard-{shard}-of-{shards}.tsv"
    conda:
        ENVIRONMENT
    threads: config["threads"]
    resources:
        **IMAGE_RESOURCES,
    params:
        **model_job(),
        precision=config["precision"],
        on_bad_image=config["on_bad_image"],
        stored=config["activations"],
        code=code("extract_activations"),
    message:
        "Extracting {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}, shard {wildcards.shard}"
    script:
        "../scripts/extract_activations.py"


rule table_exactness:
    input:
        rules.activations.input,
    output:
        **table("exactness", "Exactness of every extraction"),
        skipped="results/tables/skipped-images.csv",
    log:
        "results/logs/tables/exactness.log",
    conda:
        ENVIRONMENT
    params:
        code=code("table_exactness"),
    message:
        "Table of exactness"
    script:
        "../scripts/table_exactness.py"
