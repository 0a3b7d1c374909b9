# From texts and pictures to the components that carry them, the images along these, and how well images are found.
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
