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


# All methods at once: they read the same images and texts, and starting takes longer than most of them.
rule explain_heads:
    input:
        **ACTIVATIONS,
        texts="results/text/{model}/{texts}.safetensors",
    output:
        tables=explanation_files(EXPLAINED_METHODS, ".parquet"),
        heads=explanation_files(EXPLAINED_METHODS, "-heads.csv"),
        directions=explanation_files(EXPLAINED_METHODS, ".safetensors"),
    log:
        "results/logs/explanations/{model}/{dataset}/seed-{seed}/{texts}.log",
    benchmark:
        "results/benchmarks/explanations/{model}/{dataset}/seed-{seed}/{texts}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem="8GB",
        runtime="2h",
    params:
        methods=EXPLAINED_METHODS,
        options=config["explanations"],
        budgets=config["evaluation"]["budgets"],
        last_layers=config["evaluation"]["last_layers"],
        protocol=config["protocol"],
        code=code("explain_heads"),
    message:
        "Explaining the heads of {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/explain_heads.py"


# A method that the config does not list, asked for by name.
use rule explain_heads as explain_heads_by_method with:
    output:
        tables=explanation_files(["{method}"], ".parquet"),
        heads=explanation_files(["{method}"], "-heads.csv"),
        directions=explanation_files(["{method}"], ".safetensors"),
    log:
        "results/logs/explanations/{model}/{dataset}/seed-{seed}/{texts}/{method}.log",
    benchmark:
        "results/benchmarks/explanations/{model}/{dataset}/seed-{seed}/{texts}/{method}.tsv"
    wildcard_constraints:
        method=rf"(?!(?:{any_of(EXPLAINED_METHODS)})[.-])[a-z_]+",
    params:
        methods=lambda wildcards: [wildcards.method],
    message:
        "Explaining the heads of {wildcards.model} on {wildcards.dataset} by {wildcards.method}, seed {wildcards.seed}"


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
        table=exported_explanation(".parquet"),
        directions=exported_explanation(".safetensors"),
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
