# Heads in words: components named with texts, TextSpan, sparse sums of texts, and controls.
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
        runtime="1h",
    params:
        options=config["explanations"],
        budgets=config["evaluation"]["budgets"],
        last_layers=config["evaluation"]["last_layers"],
        protocol=config["protocol"],
        code=code("explain_heads"),
    message:
        "Explaining the heads of {wildcards.model} on {wildcards.dataset} by {wildcards.method}, seed {wildcards.seed}"
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
            algorithm=[name for name, method in ALGORITHMS.items() if method in METHODS],
        ),
    localrule: True
    message:
        "All explanations exported as JSON lines"


rule export_explanations:
    input:
        **ACTIVATIONS,
        classes="results/text/{model}/classes-{dataset}.safetensors",
        texts="results/text/{model}/{texts}.safetensors",
        table=exported_explanation("parquet"),
        directions=exported_explanation("safetensors"),
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
    params:
        last_layers=config["evaluation"]["last_layers"],
        protocol=config["protocol"],
        code=code("export_explanations"),
    message:
        "Export of {wildcards.algorithm}, {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/export_explanations.py"
