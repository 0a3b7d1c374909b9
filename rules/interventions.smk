# Interventions: what changes without a concept, in stored arrays, in the running model, and in its weights.
rule interventions:
    input:
        INTERVENTION_TABLES,
    localrule: True
    message:
        "All interventions evaluated"


rule evaluate_intervention:
    input:
        unpack(intervention_files),
    output:
        units="results/interventions/{intervention}/{model}/seed-{seed}/units.csv",
        curve="results/interventions/{intervention}/{model}/seed-{seed}/curve.csv",
        summary="results/interventions/{intervention}/{model}/seed-{seed}/summary.csv",
        values="results/interventions/{intervention}/{model}/seed-{seed}/values.csv",
        edit="results/interventions/{intervention}/{model}/seed-{seed}/edit.safetensors",
        retrieval="results/interventions/{intervention}/{model}/seed-{seed}/retrieval.csv",
    log:
        "results/logs/interventions/{intervention}/{model}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/interventions/{intervention}/{model}/seed-{seed}.tsv"
    group:
        GROUPS["evaluate"]
    conda:
        ENVIRONMENT
    resources:
        **ANALYSIS_RESOURCES,
    params:
        entry=intervention_entry,
        factors=lambda wildcards: list(DATASETS[INTERVENTIONS[wildcards.intervention]["dataset"]]["factors"]),
        protocol=config["protocol"],
        code=code("evaluate_intervention"),
    message:
        "Intervention {wildcards.intervention} on {wildcards.model}, seed {wildcards.seed}"
    script:
        "../scripts/evaluate_intervention.py"


use rule table_accuracy as table_interventions with:
    input:
        interventions_by_model("results/interventions/{intervention}/{model}/seed-{seed}/summary.csv", seed=SEEDS),
    output:
        **table("interventions", "Interventions"),
        latex="results/tables/interventions.tex",
    log:
        "results/logs/tables/interventions.log",
    params:
        scores=["accuracy", "change"],
        means=[
            "units",
            "images",
            "variance",
            "random",
            "random_as_high",
            "random_variance",
            "random_shared",
            "held",
            "held_of_heads",
            "held_of_all",
        ],
    message:
        "Table of interventions"


# What an intervention does to each class and factor value. Which of them it is about matters here only.
rule table_intervention_values:
    input:
        interventions_by_model("results/interventions/{intervention}/{model}/seed-{seed}/values.csv", seed=SEEDS),
    output:
        **table("intervention-values", "What interventions move, and what they leave"),
        latex="results/tables/intervention-values.tex",
    log:
        "results/logs/tables/intervention-values.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        about={name: entry["about"] for name, entry in INTERVENTIONS.items()},
        code=code("table_intervention_values"),
    message:
        "Table of what interventions move"
    script:
        "../scripts/table_intervention_values.py"


# The same intervention in the running model and in its weights, on new forward passes of the eval images.
rule evaluate_edited_model:
    input:
        unpack(model_files),
        unpack(intervention_files),
        edit=rules.evaluate_intervention.output.edit,
    output:
        "results/interventions/{intervention}/{model}/seed-{seed}/edited-model.csv",
    log:
        "results/logs/interventions/{intervention}/{model}/seed-{seed}-edited-model.log",
    group:
        GROUPS["edits"]
    conda:
        ENVIRONMENT
    threads: config["threads"]
    resources:
        **PASS_RESOURCES,
    params:
        **model_job(),
        entry=lambda wildcards: {
            key: INTERVENTIONS[wildcards.intervention][key] for key in ("dataset", "texts", "groups")
        },
        precision=config["precision"],
        protocol=config["protocol"],
        code=code("evaluate_edited_model"),
    message:
        "Intervention {wildcards.intervention} in {wildcards.model} itself, seed {wildcards.seed}"
    script:
        "../scripts/evaluate_edited_model.py"


use rule table_accuracy as table_edited_models with:
    input:
        interventions_by_model(
            "results/interventions/{intervention}/{model}/seed-{seed}/edited-model.csv", LIVE, seed=SEEDS
        ),
    output:
        **table("edited-models", "Interventions stored, live and folded into weights"),
        latex="results/tables/edited-models.tex",
    log:
        "results/logs/tables/edited-models.log",
    params:
        scores=["accuracy", "change"],
        means=["cosine", "difference"],
    message:
        "Table of interventions in the models themselves"


# A folder that open_clip loads as it is: local-dir:results/interventions/{intervention}/{model}.
rule fold_intervention:
    input:
        unpack(model_files),
        edit=foldable_edit,
        outcome=f"results/interventions/{{intervention}}/{{model}}/seed-{SEEDS[0]}/edited-model.csv",
    output:
        weights="results/interventions/{intervention}/{model}/weights.safetensors",
        config="results/interventions/{intervention}/{model}/open_clip_config.json",
    log:
        "results/logs/interventions/{intervention}/{model}/weights.log",
    group:
        GROUPS["compare"]
    conda:
        ENVIRONMENT
    resources:
        **MODEL_RESOURCES,
    params:
        **model_job(),
        code=code("fold_intervention"),
    message:
        "Intervention {wildcards.intervention} folded into the weights of {wildcards.model}"
    script:
        "../scripts/fold_intervention.py"
