rule retrieval:
    input:
        expand("results/queries/{name}.csv", name=config["queries"]),
        expand("results/neighbours/{name}.csv", name=config["neighbours"]),
    localrule: True
    message:
        "All queries answered, all neighbours found"


rule embed_query:
    input:
        unpack(model_files),
        unpack(query_files),
    output:
        "results/queries/{queries}/query.safetensors",
    log:
        "results/logs/queries/{queries}/query.log",
    wildcard_constraints:
        queries=any_of(config["queries"]),
    conda:
        ENVIRONMENT
    resources:
        mem=MODEL_MEMORY,
        runtime="30m",
        device=lookup("device", within=config),
        cache=MODEL_CACHE,
    params:
        model=model_params,
        files=own_files(model_files, query_files),
        pictures=lambda wildcards: (
            own_pictures(asked(wildcards)["dataset"])
            if "manifest" in query_files(wildcards)
            else ""
        ),
        texts=lambda wildcards: [asked(wildcards).get("text", "")],
        image=lambda wildcards: asked(wildcards).get("image", ""),
        code=code("embed_query"),
    message:
        "The query {wildcards.queries} in the joint space"
    script:
        "../scripts/embed_query.py"


rule trace_query:
    input:
        unpack(components_asked),
        query="results/queries/{queries}/query.safetensors",
    output:
        table="results/queries/{queries}.csv",
        images="results/queries/{queries}/images.csv",
    log:
        "results/logs/queries/{queries}/trace.log",
    wildcard_constraints:
        queries=any_of(QUERIES),
    conda:
        ENVIRONMENT
    resources:
        mem="4GB",
        runtime="30m",
    params:
        seed=SEEDS[0],
        share=lambda wildcards: asked(wildcards)["share"],
        most=lambda wildcards: asked(wildcards)["most"],
        protocol=lookup("protocol", within=config),
        code=code("trace_query"),
    message:
        "Tracing the query {wildcards.queries}"
    script:
        "../scripts/trace_query.py"


rule trace_topics:
    input:
        query="results/queries/{queries}/query.safetensors",
        texts=lambda wildcards: components_asked(wildcards)["texts"],
        components=lambda wildcards: [
            components_of(asked(wildcards), model_of(wildcards), seed)["components"]
            for seed in SEEDS
        ],
    output:
        csv="results/queries/{queries}.csv",
        latex="results/queries/{queries}.tex",
    log:
        "results/logs/queries/{queries}/topics.log",
    wildcard_constraints:
        queries=any_of(TOPICS),
    conda:
        ENVIRONMENT
    resources:
        mem="4GB",
        runtime="1h",
    params:
        seeds=SEEDS,
        of=lambda wildcards: {
            key: asked(wildcards)[key] for key in ("model", "dataset", "texts")
        },
        share=lambda wildcards: asked(wildcards)["share"],
        most=lambda wildcards: asked(wildcards)["most"],
        code=code("trace_topics"),
    message:
        "Tracing the topics of {wildcards.queries}"
    script:
        "../scripts/trace_topics.py"


# The picture whose neighbours are asked for, as a query.
use rule embed_query as embed_picture with:
    output:
        "results/neighbours/{neighbours}/query.safetensors",
    log:
        "results/logs/neighbours/{neighbours}/query.log",
    wildcard_constraints:
        neighbours=any_of(PICTURED),
    message:
        "The picture of {wildcards.neighbours} in the joint space"


rule find_neighbours:
    input:
        unpack(components_asked),
        query=lambda wildcards: (
            f"results/neighbours/{wildcards.neighbours}/query.safetensors"
            if wildcards.neighbours in PICTURED
            else []
        ),
        manifest=lambda wildcards: f"results/data/{asked(wildcards)['dataset']}/manifest.csv",
    output:
        "results/neighbours/{neighbours}.csv",
    log:
        "results/logs/neighbours/{neighbours}.log",
    wildcard_constraints:
        neighbours=any_of(config["neighbours"]),
    conda:
        ENVIRONMENT
    resources:
        mem="4GB",
        runtime="1h",
    params:
        image=lambda wildcards: asked(wildcards).get("image", ""),
        layer=lambda wildcards: asked(wildcards).get("layer"),
        head=lambda wildcards: asked(wildcards).get("head"),
        component=lambda wildcards: asked(wildcards).get("component"),
        most=lambda wildcards: asked(wildcards)["count"],
        protocol=lookup("protocol", within=config),
        code=code("find_neighbours"),
    message:
        "Neighbours: {wildcards.neighbours}"
    script:
        "../scripts/find_neighbours.py"


rule plot_query:
    input:
        table="results/queries/{queries}.csv",
        images="results/queries/{queries}/images.csv",
        query="results/queries/{queries}/query.safetensors",
        chosen=lambda wildcards: components_asked(wildcards)["images"],
        manifest=lambda wildcards: f"results/data/{asked(wildcards)['dataset']}/manifest.csv",
    output:
        "results/figures/queries/{queries}.pdf",
        report(
            "results/figures/queries/{queries}.png",
            caption="captions/query.rst",
            category="Figures",
            subcategory="queries",
            labels={"figure": "What carries a query", "query": "{queries}"},
        ),
    log:
        "results/logs/figures/queries/{queries}.log",
    wildcard_constraints:
        queries=any_of(QUERIES),
    conda:
        ENVIRONMENT
    params:
        query=query_said,
        of=lambda wildcards: {
            "model": asked(wildcards)["model"],
            "dataset": asked(wildcards)["dataset"],
            "seed": SEEDS[0],
            "texts": asked(wildcards)["texts"],
        },
        protocol=lookup("protocol", within=config),
        code=code("plot_query"),
    message:
        "Figure: what carries the query {wildcards.queries}"
    script:
        "../scripts/plot_query.py"


rule plot_neighbours:
    input:
        table="results/neighbours/{neighbours}.csv",
        query=lambda wildcards: (
            f"results/neighbours/{wildcards.neighbours}/query.safetensors"
            if wildcards.neighbours in PICTURED
            else []
        ),
        chosen=lambda wildcards: components_asked(wildcards)["images"],
        manifest=lambda wildcards: f"results/data/{asked(wildcards)['dataset']}/manifest.csv",
    output:
        "results/figures/neighbours/{neighbours}.pdf",
        report(
            "results/figures/neighbours/{neighbours}.png",
            caption="captions/neighbours.rst",
            category="Figures",
            subcategory="neighbours",
            labels={"figure": "Neighbours", "of": "{neighbours}"},
        ),
    log:
        "results/logs/figures/neighbours/{neighbours}.log",
    wildcard_constraints:
        neighbours=any_of(config["neighbours"]),
    conda:
        ENVIRONMENT
    params:
        image=lambda wildcards: asked(wildcards).get("image", ""),
        title=neighbours_said,
        how=scores_said,
        of=lambda wildcards: {
            "model": asked(wildcards)["model"],
            "dataset": asked(wildcards)["dataset"],
            "seed": SEEDS[0],
            "texts": asked(wildcards)["texts"],
        },
        protocol=lookup("protocol", within=config),
        code=code("plot_neighbours"),
    message:
        "Figure: neighbours {wildcards.neighbours}"
    script:
        "../scripts/plot_neighbours.py"
