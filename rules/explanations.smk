rule explanations:
    input:
        expand(
            "results/explanations/{model}/{dataset}/seed-{seed}/{texts}/{method}.parquet",
            model=MODELS,
            dataset=EXPLAINED_DATASETS,
            seed=SEEDS,
            texts=TEXTS,
            method=METHODS,
        ),
    localrule: True
    message:
        "All heads explained"


rule explain_heads:
    input:
        shards=shards_of,
        basis="results/activations/{model}/basis.safetensors",
        texts="results/text/{model}/{texts}.safetensors",
    output:
        table="results/explanations/{model}/{dataset}/seed-{seed}/{texts}/{method}.parquet",
        heads="results/explanations/{model}/{dataset}/seed-{seed}/{texts}/{method}-heads.csv",
        directions="results/explanations/{model}/{dataset}/seed-{seed}/{texts}/{method}.safetensors",
    log:
        "results/logs/explanations/{model}/{dataset}/seed-{seed}/{texts}/{method}.log",
    benchmark:
        "results/benchmarks/explanations/{model}/{dataset}/seed-{seed}/{texts}/{method}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem="4GB",
        runtime="1h",
    params:
        options=lookup("explanations", within=config),
        budgets=lookup("evaluation/budgets", within=config),
        last_layers=lookup("evaluation/last_layers", within=config),
        protocol=lookup("protocol", within=config),
        code=code("explain_heads"),
    message:
        "{wildcards.method} of {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/explain_heads.py"


rule exports:
    input:
        expand(
            "results/exports/{dataset}_completeness_{texts}_{model}_algo_{algorithm}_seed_{seed}.jsonl",
            model=MODELS,
            dataset=EXPLAINED_DATASETS,
            seed=SEEDS,
            texts=TEXTS,
            algorithm=[
                name for name, method in ALGORITHMS.items() if method in METHODS
            ],
        ),
    localrule: True
    message:
        "All explanations exported as JSON lines"


rule export_explanations:
    input:
        shards=shards_of,
        basis="results/activations/{model}/basis.safetensors",
        images="results/data/{dataset}/seed-{seed}/images.csv",
        classes="results/text/{model}/classes-{dataset}.safetensors",
        texts="results/text/{model}/{texts}.safetensors",
        table=lambda wildcards: explanation_of(wildcards, "parquet"),
        directions=lambda wildcards: explanation_of(wildcards, "safetensors"),
    output:
        "results/exports/{dataset}_completeness_{texts}_{model}_algo_{algorithm}_seed_{seed}.jsonl",
    log:
        "results/logs/exports/{dataset}_completeness_{texts}_{model}_algo_{algorithm}_seed_{seed}.log",
    wildcard_constraints:
        algorithm=any_of(ALGORITHMS),
    conda:
        ENVIRONMENT
    resources:
        mem="8GB",
        runtime="30m",
    params:
        last_layers=lookup("evaluation/last_layers", within=config),
        protocol=lookup("protocol", within=config),
        code=code("export_explanations"),
    message:
        "Export of {wildcards.algorithm}, {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/export_explanations.py"
