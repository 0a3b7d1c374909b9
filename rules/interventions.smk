rule interventions:
    input:
        expand(
            "results/tables/{table}.csv",
            table=["interventions", "intervention-values"] if INTERVENTIONS else [],
        ),
    localrule: True
    message:
        "All interventions made"


rule embed_concepts:
    input:
        unpack(model_files),
    output:
        "results/interventions/{intervention}/{model}/concepts.safetensors",
    log:
        "results/logs/interventions/{intervention}/{model}/concepts.log",
    conda:
        ENVIRONMENT
    resources:
        mem=MODEL_MEMORY,
        runtime="30m",
        device=lookup("device", within=config),
        cache=MODEL_CACHE,
    params:
        model=model_params,
        files=own_files(model_files),
        texts=lambda wildcards: concepts_of(
            INTERVENTIONS[wildcards.intervention]["edits"]
        ),
        image="",
        code=code("embed_query"),
    message:
        "The concepts of {wildcards.intervention} in {wildcards.model}"
    script:
        "../scripts/embed_query.py"


rule evaluate_intervention:
    input:
        unpack(intervention_files),
    output:
        units="results/interventions/{intervention}/{model}/seed-{seed}/units.csv",
        curve="results/interventions/{intervention}/{model}/seed-{seed}/curve.csv",
        summary="results/interventions/{intervention}/{model}/seed-{seed}/summary.csv",
        values="results/interventions/{intervention}/{model}/seed-{seed}/values.csv",
    log:
        "results/logs/interventions/{intervention}/{model}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/interventions/{intervention}/{model}/seed-{seed}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem="8GB",
        runtime="2h",
    params:
        edits=lambda wildcards: INTERVENTIONS[wildcards.intervention]["edits"],
        groups=lambda wildcards: INTERVENTIONS[wildcards.intervention]["groups"],
        about=lambda wildcards: INTERVENTIONS[wildcards.intervention]["about"],
        of=lambda wildcards: {
            "intervention": wildcards.intervention,
            "model": wildcards.model,
            "dataset": INTERVENTIONS[wildcards.intervention]["dataset"],
            "texts": INTERVENTIONS[wildcards.intervention]["texts"],
            "protocol": config["protocol"],
        },
        code=code("evaluate_intervention"),
    message:
        "Intervention {wildcards.intervention} on {wildcards.model}, seed {wildcards.seed}"
    script:
        "../scripts/evaluate_intervention.py"


rule table_interventions:
    input:
        interventions_by_model(
            "results/interventions/{intervention}/{model}/seed-{seed}/summary.csv",
            seed=SEEDS,
        ),
    output:
        latex="results/tables/interventions.tex",
        csv=report(
            "results/tables/interventions.csv",
            caption="captions/interventions.rst",
            category="Tables",
            labels={"table": "Interventions"},
        ),
    log:
        "results/logs/tables/interventions.log",
    conda:
        ENVIRONMENT
    params:
        scores=["accuracy"],
        means=["units", "images", "random", "random_low", "random_high"],
        code=code("average_over_seeds"),
    message:
        "Table of interventions"
    script:
        "../scripts/average_over_seeds.py"


# What an intervention does to each class and factor value.
use rule table_interventions as table_intervention_values with:
    input:
        interventions_by_model(
            "results/interventions/{intervention}/{model}/seed-{seed}/values.csv",
            seed=SEEDS,
        ),
    output:
        latex="results/tables/intervention-values.tex",
        csv=report(
            "results/tables/intervention-values.csv",
            caption="captions/intervention-values.rst",
            category="Tables",
            labels={"table": "What interventions move, and what they leave"},
        ),
    log:
        "results/logs/tables/intervention-values.log",
    params:
        scores=["before", "after", "change"],
        means=[
            "images",
            "change_low",
            "change_high",
            "called_before",
            "called_after",
            "cosine_before",
            "cosine_after",
        ],
        code=code("average_over_seeds"),
    message:
        "Table of what interventions move"


# The same of one intervention and model alone, for its figure.
use rule table_intervention_values as average_values with:
    input:
        expand(
            "results/interventions/{{intervention}}/{{model}}/seed-{seed}/values.csv",
            seed=SEEDS,
        ),
    output:
        csv="results/interventions/{intervention}/{model}/values.csv",
    log:
        "results/logs/interventions/{intervention}/{model}/values.log",
    message:
        "Values of {wildcards.intervention}, {wildcards.model}"


# Along the number of units, for the figure.
use rule table_interventions as average_curve with:
    input:
        expand(
            "results/interventions/{{intervention}}/{{model}}/seed-{seed}/curve.csv",
            seed=SEEDS,
        ),
    output:
        csv="results/interventions/{intervention}/{model}/curve.csv",
    log:
        "results/logs/interventions/{intervention}/{model}/curve.log",
    params:
        scores=["accuracy"],
        means=["images", "random", "random_low", "random_high"],
        code=code("average_over_seeds"),
    message:
        "Curve of {wildcards.intervention}, {wildcards.model}"


rule plot_intervention:
    input:
        curve="results/interventions/{intervention}/{model}/curve.csv",
        units=expand(
            "results/interventions/{{intervention}}/{{model}}/seed-{seed}/units.csv",
            seed=SEEDS,
        ),
    output:
        "results/figures/interventions/{intervention}/{model}.pdf",
        report(
            "results/figures/interventions/{intervention}/{model}.png",
            caption="captions/intervention.rst",
            category="Figures",
            subcategory="interventions",
            labels={
                "figure": "Accuracy by number of units",
                "intervention": "{intervention}",
                "model": "{model}",
            },
        ),
    log:
        "results/logs/figures/interventions/{intervention}/{model}.log",
    wildcard_constraints:
        intervention=any_of(COUNTED),
    conda:
        ENVIRONMENT
    params:
        units=lambda wildcards: edit_said(wildcards)[0],
        what=lambda wildcards: edit_said(wildcards)[1],
        rule=lambda wildcards: edit_said(wildcards)[2],
        protocol=lookup("protocol", within=config),
        code=code("plot_intervention"),
    message:
        "Figure: {wildcards.intervention} on {wildcards.model}"
    script:
        "../scripts/plot_intervention.py"


rule plot_intervention_values:
    input:
        table="results/interventions/{intervention}/{model}/values.csv",
    output:
        "results/figures/interventions/{intervention}/{model}-values.pdf",
        report(
            "results/figures/interventions/{intervention}/{model}-values.png",
            caption="captions/intervention-values.rst",
            category="Figures",
            subcategory="interventions",
            labels={
                "figure": "What moves",
                "intervention": "{intervention}",
                "model": "{model}",
            },
        ),
    log:
        "results/logs/figures/interventions/{intervention}/{model}-values.log",
    conda:
        ENVIRONMENT
    params:
        code=code("plot_intervention_values"),
    message:
        "Figure: what {wildcards.intervention} moves in {wildcards.model}"
    script:
        "../scripts/plot_intervention_values.py"
