# Figures of what the user asks for: maps of texts, queries, neighbours, interventions.
rule plot_spatial:
    input:
        "results/spatial/{spatial}.safetensors",
    output:
        *figure("results/figures/spatial/{spatial}", "spatial", "Where texts are", "Maps of texts"),
    log:
        "results/logs/figures/spatial/{spatial}.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        code=code("plot_spatial"),
    message:
        "Figure: where the texts of {wildcards.spatial} are"
    script:
        "../scripts/plot_spatial.py"


rule plot_query:
    input:
        unpack(requested_images),
        table="results/queries/{queries}.csv",
        images="results/queries/{queries}/images.csv",
        query=embedded_query,
    output:
        *figure("results/figures/queries/{queries}", "query", "What carries a query", "Queries"),
    log:
        "results/logs/figures/queries/{queries}.log",
    wildcard_constraints:
        queries=any_of(QUERIES),
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        entry=request,
        seed=FIGURE_SEED,
        protocol=config["protocol"],
        code=code("plot_query"),
    message:
        "Figure: what carries the query {wildcards.queries}"
    script:
        "../scripts/plot_query.py"


rule plot_neighbours:
    input:
        unpack(requested_images),
        table="results/neighbours/{neighbours}.csv",
        query=embedded_query,
    output:
        *figure("results/figures/neighbours/{neighbours}", "neighbours", "Neighbours", "Neighbours"),
    log:
        "results/logs/figures/neighbours/{neighbours}.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        entry=request,
        seed=FIGURE_SEED,
        protocol=config["protocol"],
        code=code("plot_neighbours"),
    message:
        "Figure: neighbours {wildcards.neighbours}"
    script:
        "../scripts/plot_neighbours.py"


rule plot_intervention:
    input:
        curves=expand("results/interventions/{{intervention}}/{{model}}/seed-{seed}/curve.csv", seed=SEEDS),
        units=expand("results/interventions/{{intervention}}/{{model}}/seed-{seed}/units.csv", seed=SEEDS),
    output:
        *figure(
            "results/figures/interventions/{intervention}/{model}",
            "intervention",
            "Accuracy by number of units",
            "{model}",
        ),
    log:
        "results/logs/figures/interventions/{intervention}/{model}.log",
    wildcard_constraints:
        intervention=any_of(COUNTED),
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        edit=lambda wildcards: INTERVENTIONS[wildcards.intervention]["edits"][-1],
        protocol=config["protocol"],
        code=code("plot_intervention"),
    message:
        "Figure: {wildcards.intervention} on {wildcards.model}"
    script:
        "../scripts/plot_intervention.py"


rule plot_intervention_values:
    input:
        table="results/tables/intervention-values.csv",
    output:
        *figure(
            "results/figures/interventions/{intervention}/{model}-values",
            "intervention-values",
            "What moves",
            "{model}",
        ),
    log:
        "results/logs/figures/interventions/{intervention}/{model}-values.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        code=code("plot_intervention_values"),
    message:
        "Figure: what {wildcards.intervention} moves in {wildcards.model}"
    script:
        "../scripts/plot_intervention_values.py"
