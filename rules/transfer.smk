# What a basis of components that is fitted on one dataset gives on another.


rule evaluate_transfer:
    input:
        unpack(transfer_files),
    output:
        table="results/transfer/{transfer}/{model}/seed-{seed}/transfer.csv",
        heads="results/transfer/{transfer}/{model}/seed-{seed}/heads.csv",
        names="results/transfer/{transfer}/{model}/seed-{seed}/names.parquet",
    log:
        "results/logs/transfer/{transfer}/{model}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/transfer/{transfer}/{model}/seed-{seed}.tsv"
    group:
        GROUPS["evaluate"]
    conda:
        ENVIRONMENT
    resources:
        **ANALYSIS_RESOURCES,
    params:
        datasets=transfer_datasets,
        texts_per_pole=config["explanations"]["texts_per_pole"],
        budgets=config["evaluation"]["budgets"],
        last_layers=config["evaluation"]["last_layers"],
        mlps=config["evaluation"]["mlps"],
        protocol=config["protocol"],
        code=code("evaluate_transfer"),
    message:
        "Transfer {wildcards.transfer} of {wildcards.model}, seed {wildcards.seed}"
    script:
        "../scripts/evaluate_transfer.py"


use rule table_accuracy as table_transfer with:
    input:
        transfers_by_model("results/transfer/{transfer}/{model}/seed-{seed}/transfer.csv", seed=SEEDS),
    output:
        **table("transfer", "A basis on another dataset"),
        latex="results/tables/transfer.tex",
    log:
        "results/logs/tables/transfer.log",
    params:
        scores=["top1", "top5", "cosine", "against_own", "variance_held", "matched_cosine", "names_kept", "texts_kept"],
        means=["draws", "overlap", "matched_cosine_by_chance", "names_kept_by_chance", "texts_kept_by_chance"],
    message:
        "Table of what a basis gives on another dataset"


rule plot_transfer:
    input:
        table="results/tables/transfer.csv",
    output:
        *figure("results/figures/transfer/{transfer}/{model}", "transfer-curves", "On another dataset", "{model}"),
    log:
        "results/logs/figures/transfer/{transfer}/{model}.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        code=code("plot_transfer"),
    message:
        "Figure: transfer {wildcards.transfer} of {wildcards.model}"
    script:
        "../scripts/plot_transfer.py"
