rule explanations:
    input:
        expand(
            "results/explanations/{model}/{dataset}/seed-{seed}/{texts}/components.parquet",
            model=MODELS,
            dataset=DATASETS,
            seed=SEEDS,
            texts=TEXTS,
        ),
    localrule: True
    message:
        "All heads explained"


rule explain_components:
    input:
        shards=shards_of,
        basis="results/activations/{model}/basis.safetensors",
        texts="results/text/{model}/{texts}.safetensors",
    output:
        table="results/explanations/{model}/{dataset}/seed-{seed}/{texts}/components.parquet",
        components="results/explanations/{model}/{dataset}/seed-{seed}/{texts}/components.safetensors",
    log:
        "results/logs/explanations/{model}/{dataset}/seed-{seed}/{texts}/components.log",
    benchmark:
        "results/benchmarks/explanations/{model}/{dataset}/seed-{seed}/{texts}/components.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem="4GB",
        runtime="1h",
    params:
        options=lookup("explanations", within=config),
        code=code("spectral", "activations", "arrays"),
    message:
        "Components of {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/explain_components.py"
