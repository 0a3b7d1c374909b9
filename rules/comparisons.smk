# Two models side by side on the same images: which heads still do the same, and what became of the others.
COMPARED_SCORES = ["cka", "correlation", "fires_on", "says"]
COMPARED_MEANS = [
    *("rank", "rank_back", "cka_others", "correlation_by_chance", "space_cosine"),
    *("mean_angle", "mean_angle_by_chance", "fires_on_by_chance", "says_by_chance"),
    *("variance", "other_variance", "eta2", "other_eta2", "gained_eta2"),
    *("accuracy_lost", "other_accuracy_lost", "lost_change"),
]


rule comparisons:
    input:
        "results/tables/comparisons.csv" if COMPARISONS else [],
        expand(
            "results/figures/comparisons/{comparison}/{figure}.png",
            comparison=COMPARISONS,
            figure=["heads-map", "cards"],
        ),
    localrule: True
    message:
        "All models compared"


rule compare_models:
    input:
        unpack(compared_files),
    output:
        heads="results/comparisons/{comparison}/seed-{seed}/heads.csv",
        components="results/comparisons/{comparison}/seed-{seed}/components.csv",
    log:
        "results/logs/comparisons/{comparison}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/comparisons/{comparison}/seed-{seed}.tsv"
    group:
        GROUPS["compare"]
    conda:
        ENVIRONMENT
    resources:
        **ANALYSIS_RESOURCES,
    params:
        entry=lambda wildcards: COMPARISONS[wildcards.comparison],
        protocol=config["protocol"],
        code=code("compare_models"),
    message:
        "Comparison {wildcards.comparison}, seed {wildcards.seed}"
    script:
        "../scripts/compare_models.py"


rule table_comparisons:
    input:
        expand("results/comparisons/{comparison}/seed-{seed}/heads.csv", comparison=COMPARISONS, seed=SEEDS),
    output:
        **table("comparisons", "Two models side by side"),
        latex="results/tables/comparisons.tex",
    log:
        "results/logs/tables/comparisons.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        scores=COMPARED_SCORES,
        means=COMPARED_MEANS,
        code=code("table_comparisons"),
    message:
        "Table of comparisons"
    script:
        "../scripts/table_comparisons.py"


rule plot_comparison_map:
    input:
        table="results/tables/comparisons.csv",
    output:
        *figure(
            "results/figures/comparisons/{comparison}/heads-map",
            "comparison-map",
            "Two models by head",
            "Comparisons",
        ),
    log:
        "results/logs/figures/comparisons/{comparison}/heads-map.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        numbers=[*COMPARED_SCORES, *COMPARED_MEANS],
        code=code("plot_comparison_map"),
    message:
        "Figure: the heads of {wildcards.comparison} side by side"
    script:
        "../scripts/plot_comparison_map.py"


rule plot_comparison_cards:
    input:
        unpack(compared_cards),
        components=f"results/comparisons/{{comparison}}/seed-{FIGURE_SEED}/components.csv",
    output:
        *figure(
            "results/figures/comparisons/{comparison}/cards",
            "comparison-cards",
            "What changed most",
            "Comparisons",
        ),
    log:
        "results/logs/figures/comparisons/{comparison}/cards.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        naming=config["explanations"]["naming"],
        protocol=config["protocol"],
        code=code("plot_comparison_cards"),
    message:
        "Figure: the components of {wildcards.comparison} that changed most"
    script:
        "../scripts/plot_comparison_cards.py"
