# From texts and pictures to the components that carry them, the images along these, and what editing them does.
rule retrieval:
    input:
        expand("results/queries/{name}.csv", name=config["queries"]),
        expand("results/neighbours/{name}.csv", name=config["neighbours"]),
    localrule: True
    message:
        "All queries traced and all neighbours found"


rule embed_query:
    input:
        unpack(model_files),
        unpack(query_files),
    output:
        "results/queries/{queries}/query.safetensors",
    log:
        "results/logs/queries/{queries}/query.log",
    group:
        GROUPS["texts"]
    conda:
        ENVIRONMENT
    resources:
        **MODEL_RESOURCES,
    params:
        **model_job(query_files),
        pictures=lambda wildcards: (
            pictures_stamp(request(wildcards)["dataset"]) if "manifest" in query_files(wildcards) else ""
        ),
        texts=lambda wildcards: [request(wildcards).get("text", "")],
        image=lambda wildcards: request(wildcards).get("image", ""),
        code=code("embed_query"),
    message:
        "The query {wildcards.queries} in the joint space"
    script:
        "../scripts/embed_query.py"


# The picture whose neighbours are looked for, as a query.
use rule embed_query as embed_picture with:
    output:
        "results/neighbours/{neighbours}/query.safetensors",
    log:
        "results/logs/neighbours/{neighbours}/query.log",
    wildcard_constraints:
        neighbours=any_of(PICTURE_NEIGHBOURS),
    message:
        "The picture of {wildcards.neighbours} in the joint space"


# The texts of the concepts that an intervention edits.
use rule embed_query as embed_concepts with:
    input:
        unpack(model_files),
    output:
        "results/text/{model}/concepts-{intervention}.safetensors",
    log:
        "results/logs/interventions/{intervention}/{model}/concepts.log",
    params:
        **model_job(),
        pictures="",
        texts=concept_texts,
        image="",
    message:
        "The concepts of {wildcards.intervention} in {wildcards.model}"


rule trace_query:
    input:
        unpack(requested_components),
        query=embedded_query,
    output:
        table="results/queries/{queries}.csv",
        images="results/queries/{queries}/images.csv",
    log:
        "results/logs/queries/{queries}/trace.log",
    wildcard_constraints:
        queries=any_of(QUERIES),
    group:
        GROUPS["evaluate"]
    conda:
        ENVIRONMENT
    resources:
        **ANALYSIS_RESOURCES,
    params:
        entry=request,
        seed=SEEDS[0],
        protocol=config["protocol"],
        naming=config["explanations"]["naming"],
        code=code("trace_query"),
    message:
        "Tracing the query {wildcards.queries}"
    script:
        "../scripts/trace_query.py"


rule trace_topics:
    input:
        query=embedded_query,
        texts=lambda wildcards: requested_components(wildcards)["texts"],
        components=lambda wildcards: [
            component_files(request(wildcards), model_name(wildcards), seed)["components"] for seed in SEEDS
        ],
    output:
        csv="results/queries/{queries}.csv",
        latex="results/queries/{queries}.tex",
    log:
        "results/logs/queries/{queries}/topics.log",
    wildcard_constraints:
        queries=any_of(TOPICS),
    group:
        GROUPS["evaluate"]
    conda:
        ENVIRONMENT
    resources:
        **ANALYSIS_RESOURCES,
    params:
        entry=request,
        seeds=SEEDS,
        code=code("trace_topics"),
    message:
        "Tracing the topics of {wildcards.queries}"
    script:
        "../scripts/trace_topics.py"


rule find_neighbours:
    input:
        unpack(requested_components),
        query=embedded_query,
    output:
        "results/neighbours/{neighbours}.csv",
    log:
        "results/logs/neighbours/{neighbours}.log",
    group:
        GROUPS["evaluate"]
    conda:
        ENVIRONMENT
    resources:
        **ANALYSIS_RESOURCES,
    params:
        entry=request,
        protocol=config["protocol"],
        code=code("find_neighbours"),
    message:
        "Neighbours: {wildcards.neighbours}"
    script:
        "../scripts/find_neighbours.py"


rule evaluate_retrieval:
    input:
        unpack(retrieval_files),
        **ACTIVATIONS,
    output:
        table="results/evaluation/{model}/{dataset}/seed-{seed}/retrieval.csv",
        heads="results/evaluation/{model}/{dataset}/seed-{seed}/retrieval-heads.csv",
    log:
        "results/logs/evaluation/{model}/{dataset}/seed-{seed}/retrieval.log",
    benchmark:
        "results/benchmarks/evaluation/{model}/{dataset}/seed-{seed}/retrieval.tsv"
    wildcard_constraints:
        dataset=any_of(KNOWN_DATASETS),
    group:
        GROUPS["evaluate"]
    conda:
        ENVIRONMENT
    resources:
        **ANALYSIS_RESOURCES,
    params:
        factors=factor_phrases,
        texts=FIRST_TEXTS,
        naming=config["explanations"]["naming"],
        protocol=config["protocol"],
        code=code("evaluate_retrieval"),
    message:
        "Retrieval by {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/evaluate_retrieval.py"


rule table_retrieval:
    input:
        expand(
            "results/evaluation/{model}/{dataset}/seed-{seed}/retrieval.csv",
            model=MODELS,
            dataset=KNOWN_DATASETS,
            seed=SEEDS,
        ),
        interventions_by_model("results/interventions/{intervention}/{model}/seed-{seed}/retrieval.csv", seed=SEEDS),
    output:
        **table("retrieval", "Retrieval"),
        latex="results/tables/retrieval.tex",
    log:
        "results/logs/tables/retrieval.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        code=code("table_retrieval"),
    message:
        "Table of retrieval"
    script:
        "../scripts/table_retrieval.py"


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
