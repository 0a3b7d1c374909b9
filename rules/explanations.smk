# Heads in words: components named with texts, TextSpan, sparse sums of texts, and controls.
rule explanations:
    input:
        expand(
            "results/explanations/{model}/{dataset}/seed-{seed}/{texts}/{method}.parquet",
            model=MODELS,
            dataset=EXPLAINED_DATASETS,
            seed=SEEDS,
            texts=TEXTS,
            method=EXPLAINING_METHODS,
        ),
    localrule: True
    message:
        "All heads explained"


# Methods that share their options are one job: they read the same images and texts, and starting takes longer than most
# of them. An option that only other methods have runs none of these again.
rule explain_heads:
    input:
        **ACTIVATIONS,
        **if_moments(poles=POLES),
        texts="results/text/{model}/{texts}.safetensors",
    output:
        tables=explanation_files(["components", "weights"], ".parquet"),
        heads=explanation_files(["components", "weights"], "-heads.csv"),
        directions=explanation_files(["components", "weights"], ".safetensors"),
    log:
        "results/logs/explanations/{model}/{dataset}/seed-{seed}/{texts}-components.log",
    benchmark:
        "results/benchmarks/explanations/{model}/{dataset}/seed-{seed}/{texts}-components.tsv"
    group:
        GROUPS["explain"]
    conda:
        ENVIRONMENT
    resources:
        **ANALYSIS_RESOURCES,
    params:
        options=method_options(["components", "weights"]),
        last_layers=config["evaluation"]["last_layers"],
        protocol=config["protocol"],
        code=code("explain_heads"),
    message:
        "Explaining the heads of {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/explain_heads.py"


use rule explain_heads as explain_heads_by_textspan with:
    output:
        tables=explanation_files(["textspan", "textspan_paper"], ".parquet"),
        heads=explanation_files(["textspan", "textspan_paper"], "-heads.csv"),
        directions=explanation_files(["textspan", "textspan_paper"], ".safetensors"),
    log:
        "results/logs/explanations/{model}/{dataset}/seed-{seed}/{texts}-textspan.log",
    benchmark:
        "results/benchmarks/explanations/{model}/{dataset}/seed-{seed}/{texts}-textspan.tsv"
    params:
        options=method_options(["textspan", "textspan_paper"]),
    message:
        "TextSpan of the heads of {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"


use rule explain_heads as explain_heads_by_sparse_sums with:
    output:
        tables=explanation_files(["{method}"], ".parquet"),
        heads=explanation_files(["{method}"], "-heads.csv"),
        directions=explanation_files(["{method}"], ".safetensors"),
    log:
        "results/logs/explanations/{model}/{dataset}/seed-{seed}/{texts}-{method}.log",
    benchmark:
        "results/benchmarks/explanations/{model}/{dataset}/seed-{seed}/{texts}-{method}.tsv"
    wildcard_constraints:
        method=any_of(["sparse", "sparse_coherent"]),
    params:
        options=lambda wildcards: method_options([wildcards.method]),
    message:
        "Components of {wildcards.model} on {wildcards.dataset} by {wildcards.method}, seed {wildcards.seed}"


rule exports:
    input:
        expand(
            "results/exports/{dataset}_completeness_{texts}_{model}_algo_{algorithm}_seed_{seed}.jsonl",
            model=MODELS,
            dataset=CLASSED_DATASETS,
            seed=SEEDS,
            texts=TEXTS,
            algorithm=[name for name, method in ALGORITHMS.items() if method in EXPLAINING_METHODS],
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
    group:
        GROUPS["evaluate"]
    conda:
        ENVIRONMENT
    resources:
        **ANALYSIS_RESOURCES,
    params:
        last_layers=config["evaluation"]["last_layers"],
        protocol=config["protocol"],
        code=code("export_explanations"),
    message:
        "Export of {wildcards.algorithm}, {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/export_explanations.py"
