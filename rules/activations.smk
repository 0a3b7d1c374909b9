

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


rule head_basis:
    input:
        unpack(model_files),
    output:
        basis="results/activations/{model}/basis.safetensors",
    log:
        "results/logs/activations/{model}/basis.log",
    conda:
        ENVIRONMENT
    resources:
        mem=MODEL_MEMORY,
        cache=MODEL_CACHE,
    params:
        model=model_params,
        files=own_files(model_files),
        code=code("head_basis"),
    message:
        "Basis of every head of {wildcards.model}"
    script:
        "../scripts/head_basis.py"


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
        precision=lookup("precision", within=config),
        on_bad_image=lookup("on_bad_image", within=config),
        stored=lookup("activations", within=config),
        code=code("extract_activations"),
    message:
        "Extracting {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}, shard {wildcards.shard}"
    script:
        "../scripts/extract_activations.py"
