OF_EXPLAINED = ["accuracy", "exactness", "recovery", "effects", "stability", "texts"]


rule tables:
    input:
        "results/tables/loaded-models.csv",
        "results/tables/shared-images.csv",
        expand(
            "results/tables/{table}.csv",
            table=OF_EXPLAINED if EXPLAINED_DATASETS else [],
        ),
        "results/tables/labels.csv" if FACTORED_DATASETS else [],
        "results/tables/segmentation.csv" if MASKED_DATASETS else [],
        expand("results/queries/{queries}.csv", queries=TOPICS),
        expand(
            "results/tables/{table}.csv",
            table=["interventions", "intervention-values"] if INTERVENTIONS else [],
        ),
    localrule: True
    message:
        "All tables made"


rule evaluate_accuracy:
    input:
        shards=shards_of,
        images="results/data/{dataset}/seed-{seed}/images.csv",
        basis="results/activations/{model}/basis.safetensors",
        classes="results/text/{model}/classes-{dataset}.safetensors",
    output:
        "results/evaluation/{model}/{dataset}/seed-{seed}/accuracy.csv",
    log:
        "results/logs/evaluation/{model}/{dataset}/seed-{seed}/accuracy.log",
    conda:
        ENVIRONMENT
    resources:
        mem="8GB",
        runtime="30m",
    params:
        protocol=lookup("protocol", within=config),
        code=code("evaluate_accuracy"),
    message:
        "Zero-shot accuracy of {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/evaluate_accuracy.py"


rule evaluate_effects:
    input:
        shards=shards_of,
        images="results/data/{dataset}/seed-{seed}/images.csv",
        basis="results/activations/{model}/basis.safetensors",
        classes="results/text/{model}/classes-{dataset}.safetensors",
    output:
        "results/evaluation/{model}/{dataset}/seed-{seed}/effects.csv",
    log:
        "results/logs/evaluation/{model}/{dataset}/seed-{seed}/effects.log",
    conda:
        ENVIRONMENT
    resources:
        mem="8GB",
        runtime="1h",
    params:
        protocol=lookup("protocol", within=config),
        code=code("evaluate_effects"),
    message:
        "Direct effects of heads and MLPs, {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/evaluate_effects.py"


rule table_effects:
    input:
        expand(
            "results/evaluation/{model}/{dataset}/seed-{seed}/effects.csv",
            model=MODELS,
            dataset=EXPLAINED_DATASETS,
            seed=SEEDS,
        ),
    output:
        csv=report(
            "results/tables/effects.csv",
            caption="captions/effects.rst",
            category="Tables",
            labels={"table": "Direct effects of heads and MLPs"},
        ),
    log:
        "results/logs/tables/effects.log",
    conda:
        ENVIRONMENT
    params:
        scores=["norm", "cosine", "margin_share", "accuracy", "accuracy_lost"],
        code=code("average_over_seeds"),
    message:
        "Table of direct effects"
    script:
        "../scripts/average_over_seeds.py"


rule evaluate_recovery:
    input:
        shards=shards_of,
        images="results/data/{dataset}/seed-{seed}/images.csv",
        basis="results/activations/{model}/basis.safetensors",
        classes="results/text/{model}/classes-{dataset}.safetensors",
        told=explanations_of(METHODS, "safetensors"),
    output:
        "results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/recovery.csv",
    log:
        "results/logs/evaluation/{model}/{dataset}/seed-{seed}/{texts}/recovery.log",
    benchmark:
        "results/benchmarks/evaluation/{model}/{dataset}/seed-{seed}/{texts}/recovery.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem="8GB",
        runtime="2h",
    params:
        methods=METHODS,
        budgets=lookup("evaluation/budgets", within=config),
        last_layers=lookup("evaluation/last_layers", within=config),
        mlps=lookup("evaluation/mlps", within=config),
        protocol=lookup("protocol", within=config),
        code=code("evaluate_recovery"),
    message:
        "Accuracy that explanations recover, {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/evaluate_recovery.py"


rule score_components:
    input:
        shards=shards_of,
        images="results/data/{dataset}/seed-{seed}/images.csv",
        basis="results/activations/{model}/basis.safetensors",
        components="results/explanations/{model}/{dataset}/seed-{seed}/{texts}/components.safetensors",
    output:
        factors="results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/factors.csv",
        images="results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/pole-images.parquet",
    log:
        "results/logs/evaluation/{model}/{dataset}/seed-{seed}/{texts}/factors.log",
    conda:
        ENVIRONMENT
    resources:
        mem="4GB",
        runtime="30m",
    params:
        factors=factor_names,
        protocol=lookup("protocol", within=config),
        code=code("score_components"),
    message:
        "What moves the components of {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/score_components.py"


rule table_accuracy:
    input:
        expand(
            "results/evaluation/{model}/{dataset}/seed-{seed}/accuracy.csv",
            model=MODELS,
            dataset=EXPLAINED_DATASETS,
            seed=SEEDS,
        ),
    output:
        latex="results/tables/accuracy.tex",
        csv=report(
            "results/tables/accuracy.csv",
            caption="captions/accuracy.rst",
            category="Tables",
            labels={"table": "Zero-shot accuracy"},
        ),
    log:
        "results/logs/tables/accuracy.log",
    conda:
        ENVIRONMENT
    params:
        scores=["accuracy"],
        code=code("average_over_seeds"),
    message:
        "Table of accuracies"
    script:
        "../scripts/average_over_seeds.py"


rule table_recovery:
    input:
        expand(
            "results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/recovery.csv",
            model=MODELS,
            dataset=EXPLAINED_DATASETS,
            seed=SEEDS,
            texts=TEXTS,
        ),
    output:
        latex="results/tables/recovery.tex",
        csv=report(
            "results/tables/recovery.csv",
            caption="captions/recovery.rst",
            category="Tables",
            labels={"table": "Accuracy that explanations recover"},
        ),
    log:
        "results/logs/tables/recovery.log",
    conda:
        ENVIRONMENT
    params:
        scores=["top1", "top5", "cosine", "explained_variance"],
        code=code("average_over_seeds"),
    message:
        "Table of the accuracy that explanations recover"
    script:
        "../scripts/average_over_seeds.py"


rule table_exactness:
    input:
        lambda wildcards: rules.activations.input,
    output:
        exactness=report(
            "results/tables/exactness.csv",
            caption="captions/exactness.rst",
            category="Tables",
            labels={"table": "Exactness of every extraction"},
        ),
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


rule evaluate_labels:
    input:
        told=explanations_of(OF_COMPONENTS, "parquet"),
        factors="results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/factors.csv",
        images="results/data/{dataset}/seed-{seed}/images.csv",
    output:
        "results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/labels.csv",
    log:
        "results/logs/evaluation/{model}/{dataset}/seed-{seed}/{texts}/labels.log",
    wildcard_constraints:
        dataset=any_of(FACTORED_DATASETS),
    conda:
        ENVIRONMENT
    params:
        methods=OF_COMPONENTS,
        factors=factor_phrases,
        protocol=lookup("protocol", within=config),
        code=code("evaluate_labels"),
    message:
        "Whether texts name what moves the components of {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/evaluate_labels.py"


rule table_labels:
    input:
        expand(
            "results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/labels.csv",
            model=MODELS,
            dataset=FACTORED_DATASETS,
            seed=SEEDS,
            texts=TEXTS,
        ),
    output:
        latex="results/tables/labels.tex",
        csv=report(
            "results/tables/labels.csv",
            caption="captions/labels.rst",
            category="Tables",
            labels={"table": "Whether texts name what moves the components"},
        ),
    log:
        "results/logs/tables/labels.log",
    conda:
        ENVIRONMENT
    params:
        scores=["factor_hits", "value_hits"],
        means=[
            "poles",
            "factor_hits_by_chance",
            "factor_hits_by_chance_95",
            "value_hits_by_chance",
            "value_hits_by_chance_95",
        ],
        code=code("average_over_seeds"),
    message:
        "Table of label hits"
    script:
        "../scripts/average_over_seeds.py"


rule evaluate_stability:
    input:
        components=expand(
            "results/explanations/{{model}}/{{dataset}}/seed-{seed}/{{texts}}/components.safetensors",
            seed=SEEDS,
        ),
        tables=expand(
            "results/explanations/{{model}}/{{dataset}}/seed-{seed}/{{texts}}/components.parquet",
            seed=SEEDS,
        ),
        texts="results/text/{model}/{texts}.safetensors",
    output:
        "results/evaluation/{model}/{dataset}/{texts}-stability.csv",
    log:
        "results/logs/evaluation/{model}/{dataset}/{texts}-stability.log",
    conda:
        ENVIRONMENT
    resources:
        mem="4GB",
        runtime="30m",
    params:
        seeds=SEEDS,
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
        latex="results/tables/stability.tex",
        csv=report(
            "results/tables/stability.csv",
            caption="captions/stability.rst",
            category="Tables",
            labels={"table": "Stability over seeds and texts"},
        ),
    log:
        "results/logs/tables/stability.log",
    conda:
        ENVIRONMENT
    params:
        code=code("table_stability"),
    message:
        "Table of stability"
    script:
        "../scripts/table_stability.py"
