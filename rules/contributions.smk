# What every head and MLP adds to the embedding of every image, in reduced coordinates.
rule activations:
    input:
        expand(SHARDS, model=MODELS, dataset=EXPLAINED_DATASETS),
    localrule: True
    message:
        "All activations extracted"


# Every image once, whichever seeds use it: a seed added to the config extracts the images that are not stored yet.
rule extract_activations:
    input:
        unpack(model_files),
        unpack(images_of_all_seeds),
        manifest=MANIFEST,
    output:
        update("results/activations/{model}/{dataset}/shard-{shard}-of-{shards}.safetensors"),
    log:
        "results/logs/activations/{model}/{dataset}/shard-{shard}-of-{shards}.log",
    benchmark:
        "results/benchmarks/activations/{model}/{dataset}/shard-{shard}-of-{shards}.tsv"
    group:
        GROUPS["images"]
    conda:
        ENVIRONMENT
    threads: config["threads"]
    resources:
        **EXTRACTION_RESOURCES,
    params:
        **model_job(),
        precision=config["precision"],
        on_bad_image=config["on_bad_image"],
        stored=STORED,
        code=code("extract_activations"),
    message:
        "Extracting {wildcards.model} on {wildcards.dataset}, shard {wildcards.shard}"
    script:
        "../scripts/extract_activations.py"


rule table_exactness:
    input:
        shards=rules.activations.input,
        images=expand(IMAGES, dataset=EXPLAINED_DATASETS, seed=SEEDS),
    output:
        **table("exactness", "Exactness of every extraction"),
        skipped="results/tables/skipped-images.csv",
    log:
        "results/logs/tables/exactness.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        datasets=EXPLAINED_DATASETS,
        seeds=SEEDS,
        code=code("table_exactness"),
    message:
        "Table of exactness"
    script:
        "../scripts/table_exactness.py"
