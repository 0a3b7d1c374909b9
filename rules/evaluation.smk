# Whether the words are right, and enough: accuracy, direct effects, recovery, labels, stability.
TABLES = ["exactness", "stability", "texts", "names"]
CLASSED_TABLES = ["accuracy", "recovery", "effects"]
# Methods that explain principal components, whose factors are known where the manifest has them.
COMPONENT_METHODS = [method for method in ("components", "sparse", "sparse_coherent") if method in EXPLAINING_METHODS]


rule tables:
    input:
        "results/tables/loaded-models.csv",
        "results/tables/shared-images.csv",
        expand("results/tables/{table}.csv", table=TABLES if EXPLAINED_DATASETS else []),
        expand("results/tables/{table}.csv", table=CLASSED_TABLES if CLASSED_DATASETS else []),
        "results/tables/labels.csv" if FACTORED_DATASETS else [],
        "results/tables/retrieval.csv" if KNOWN_DATASETS else [],
        "results/tables/segmentation.csv" if MASKED_DATASETS else [],
        "results/tables/transfer.csv" if TRANSFERS else [],
        expand(
            "results/queries/{queries}.csv",
            queries=[name for name, entry in config["queries"].items() if "topics" in entry],
        ),
        INTERVENTION_TABLES,
        "results/tables/comparisons.csv" if COMPARISONS else [],
    localrule: True
    message:
        "All tables made"


rule evaluate_accuracy:
    input:
        **ACTIVATIONS,
        classes="results/text/{model}/classes-{dataset}.safetensors",
    output:
        accuracy="results/evaluation/{model}/{dataset}/seed-{seed}/accuracy.csv",
        effects="results/evaluation/{model}/{dataset}/seed-{seed}/effects.csv",
    log:
        "results/logs/evaluation/{model}/{dataset}/seed-{seed}/accuracy.log",
    group:
        GROUPS["evaluate"]
    conda:
        ENVIRONMENT
    resources:
        **ANALYSIS_RESOURCES,
    params:
        protocol=config["protocol"],
        code=code("evaluate_accuracy"),
    message:
        "Accuracy and direct effects of {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/evaluate_accuracy.py"


rule table_accuracy:
    input:
        expand(
            "results/evaluation/{model}/{dataset}/seed-{seed}/accuracy.csv",
            model=MODELS,
            dataset=CLASSED_DATASETS,
            seed=SEEDS,
        ),
    output:
        **table("accuracy", "Zero-shot accuracy"),
        latex="results/tables/accuracy.tex",
    log:
        "results/logs/tables/accuracy.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        scores=["accuracy"],
        code=code("average_over_seeds"),
    message:
        "Table of accuracies"
    script:
        "../scripts/average_over_seeds.py"


use rule table_accuracy as table_effects with:
    input:
        expand(
            "results/evaluation/{model}/{dataset}/seed-{seed}/effects.csv",
            model=MODELS,
            dataset=CLASSED_DATASETS,
            seed=SEEDS,
        ),
    output:
        **table("effects", "Direct effects of heads and MLPs"),
    log:
        "results/logs/tables/effects.log",
    params:
        scores=["norm", "cosine", "margin_share", "accuracy", "accuracy_lost"],
    message:
        "Table of direct effects"


rule evaluate_recovery:
    input:
        **ACTIVATIONS,
        classes="results/text/{model}/classes-{dataset}.safetensors",
        texts="results/text/{model}/{texts}.safetensors",
        explanations=explanation_files(EXPLAINING_METHODS, ".safetensors"),
    output:
        "results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/recovery.csv",
    log:
        "results/logs/evaluation/{model}/{dataset}/seed-{seed}/{texts}/recovery.log",
    benchmark:
        "results/benchmarks/evaluation/{model}/{dataset}/seed-{seed}/{texts}/recovery.tsv"
    group:
        GROUPS["evaluate"]
    conda:
        ENVIRONMENT
    resources:
        **ANALYSIS_RESOURCES,
    params:
        methods=method_options([*EXPLAINING_METHODS, *(method for method in METHODS if method in CONTROLS)]),
        budgets=config["evaluation"]["budgets"],
        last_layers=config["evaluation"]["last_layers"],
        mlps=config["evaluation"]["mlps"],
        protocol=config["protocol"],
        code=code("evaluate_recovery"),
    message:
        "Accuracy that explanations recover, {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/evaluate_recovery.py"


use rule table_accuracy as table_recovery with:
    input:
        expand(
            "results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/recovery.csv",
            model=MODELS,
            dataset=CLASSED_DATASETS,
            seed=SEEDS,
            texts=TEXTS,
        ),
    output:
        **table("recovery", "Accuracy that explanations recover"),
        latex="results/tables/recovery.tex",
    log:
        "results/logs/tables/recovery.log",
    params:
        scores=["top1", "top5", "cosine", "explained_variance", "against_components"],
        means=["draws"],
    message:
        "Table of the accuracy that explanations recover"


rule score_components:
    input:
        unpack(similar_images),
        **ACTIVATIONS,
        components="results/explanations/{model}/{dataset}/seed-{seed}/{texts}/components.safetensors",
        names="results/explanations/{model}/{dataset}/seed-{seed}/{texts}/components.parquet",
    output:
        factors="results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/factors.csv",
        images="results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/pole-images.parquet",
        clearest="results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/clearest.csv",
    log:
        "results/logs/evaluation/{model}/{dataset}/seed-{seed}/{texts}/factors.log",
    wildcard_constraints:
        dataset=any_of(set(EXPLAINED_DATASETS) - set(FACTORED_DATASETS)),
    group:
        GROUPS["evaluate"]
    conda:
        ENVIRONMENT
    resources:
        **ANALYSIS_RESOURCES,
    params:
        methods=COMPONENT_METHODS,
        factors=factor_phrases,
        naming=config["explanations"]["naming"],
        other=lambda wildcards: None if factor_names(wildcards) else other_model(wildcards),
        protocol=config["protocol"],
        code=code("score_components"),
    message:
        "What moves the components of {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/score_components.py"


# The same where factors are known, and whether the texts name them.
use rule score_components as score_components_and_labels with:
    input:
        **ACTIVATIONS,
        components="results/explanations/{model}/{dataset}/seed-{seed}/{texts}/components.safetensors",
        names="results/explanations/{model}/{dataset}/seed-{seed}/{texts}/components.parquet",
        explanations=explanation_files(COMPONENT_METHODS, ".parquet"),
    output:
        factors="results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/factors.csv",
        images="results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/pole-images.parquet",
        clearest="results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/clearest.csv",
        labels="results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/labels.csv",
    wildcard_constraints:
        dataset=any_of(FACTORED_DATASETS),


use rule table_accuracy as table_labels with:
    input:
        expand(
            "results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/labels.csv",
            model=MODELS,
            dataset=FACTORED_DATASETS,
            seed=SEEDS,
            texts=TEXTS,
        ),
    output:
        **table("labels", "Whether texts name what moves the components"),
        latex="results/tables/labels.tex",
    log:
        "results/logs/tables/labels.log",
    params:
        scores=["factor_hits", "value_hits"],
        means=[
            "poles",
            "share",
            "factor_hits_by_chance",
            "factor_hits_by_chance_95",
            "value_hits_by_chance",
            "value_hits_by_chance_95",
        ],
    message:
        "Table of label hits"


rule evaluate_names:
    input:
        unpack(names_files),
        **ACTIVATIONS,
        **if_moments(poles=POLES),
        texts="results/text/{model}/{texts}.safetensors",
    output:
        "results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/names.csv",
    log:
        "results/logs/evaluation/{model}/{dataset}/seed-{seed}/{texts}/names.log",
    benchmark:
        "results/benchmarks/evaluation/{model}/{dataset}/seed-{seed}/{texts}/names.tsv"
    group:
        GROUPS["evaluate"]
    conda:
        ENVIRONMENT
    resources:
        **ANALYSIS_RESOURCES,
    params:
        methods=naming_methods,
        model=lambda wildcards: SHUFFLED.get(wildcards.model, wildcards.model),
        factors=factor_phrases,
        pairs=lambda wildcards: DATASETS[wildcards.dataset]["pairs"],
        other=other_model,
        last_layers=config["evaluation"]["last_layers"],
        protocol=config["protocol"],
        code=code("evaluate_names"),
    message:
        "Judging the names of {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/evaluate_names.py"


rule table_names:
    input:
        expand(
            "results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/names.csv",
            model=MODELS,
            dataset=EXPLAINED_DATASETS,
            seed=SEEDS,
            texts=TEXTS,
        ),
        expand(
            "results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/names.csv",
            model=SHUFFLED,
            dataset=PAIRED_DATASETS,
            seed=SEEDS[0],
            texts=TEXTS,
        ),
    output:
        **table("names", "Which names are right"),
        latex="results/tables/names.tex",
    log:
        "results/logs/tables/names.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        code=code("table_names"),
    message:
        "Table of which names are right"
    script:
        "../scripts/table_names.py"


rule evaluate_stability:
    input:
        **if_moments(
            moments=expand(MOMENTS, seed=SEEDS, allow_missing=True),
            all_images=expand(ALL_IMAGES, seed=SEEDS, allow_missing=True),
        ),
        shards=shards_of,
        basis="results/activations/{model}/basis.safetensors",
        images=expand(IMAGES, seed=SEEDS, allow_missing=True),
        components=expand(
            "results/explanations/{{model}}/{{dataset}}/seed-{seed}/{{texts}}/components.safetensors", seed=SEEDS
        ),
        texts="results/text/{model}/{texts}.safetensors",
    output:
        "results/evaluation/{model}/{dataset}/{texts}-stability.csv",
    log:
        "results/logs/evaluation/{model}/{dataset}/{texts}-stability.log",
    group:
        GROUPS["evaluate"]
    conda:
        ENVIRONMENT
    resources:
        **ANALYSIS_RESOURCES,
    params:
        seeds=SEEDS,
        options=method_options(["components"])["components"],
        protocol=config["protocol"],
        code=code("evaluate_stability"),
    message:
        "Stability of the components of {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/evaluate_stability.py"


rule table_stability:
    input:
        expand(
            "results/evaluation/{model}/{dataset}/{texts}-stability.csv",
            model=MODELS,
            dataset=EXPLAINED_DATASETS,
            texts=TEXTS,
        ),
    output:
        **table("stability", "Stability over seeds and texts"),
        latex="results/tables/stability.tex",
    log:
        "results/logs/tables/stability.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        code=code("table_stability"),
    message:
        "Table of stability"
    script:
        "../scripts/table_stability.py"
