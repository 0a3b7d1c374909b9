# The explorer: a static page of every head, component, text and picture, and the parts that it is put together from.
rule explorer:
    input:
        runs=run_parts,
        pictures=expand("results/explorer-parts/pictures/{dataset}", dataset=EXPLORED_DATASETS),
        texts=expand("results/text/{model}/{texts}.safetensors", model=EXPLORED_MODELS, texts=TEXTS),
        images=expand(IMAGES, dataset=EXPLORED_DATASETS, seed=SEEDS),
        exactness="results/tables/exactness.csv",
        skipped="results/tables/skipped-images.csv",
        loaded="results/tables/loaded-models.csv",
        entries=[path for entry in EXPLORED_ENTRIES for path in entry_paths(entry)],
        page=page_files(),
    output:
        report(
            directory("results/explorer"),
            caption="captions/explorer.rst",
            htmlindex="index.html",
            category=OVERVIEW,
            labels={"page": "Explorer"},
        ),
    log:
        "results/logs/explorer.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        runs=RUNS,
        images=[[dataset, seed] for dataset in EXPLORED_DATASETS for seed in SEEDS],
        protocol=config["protocol"],
        missing=not_explored(),
        methods=EXPLAINING_METHODS,
        pools=[name for _ in EXPLORED_MODELS for name in TEXTS],  # of the texts
        entries=EXPLORED_ENTRIES,
        code=code("make_explorer"),
    message:
        "The explorer"
    script:
        "../scripts/make_explorer.py"


rule explore_components:
    input:
        unpack(explored_files),
        **ACTIVATIONS,
        texts="results/text/{model}/{texts}.safetensors",
        tables=explanation_files(EXPLAINING_METHODS, ".parquet"),
        components="results/explanations/{model}/{dataset}/seed-{seed}/{texts}/components.safetensors",
        manifest=MANIFEST,
        all_images=expand(IMAGES, seed=SEEDS, allow_missing=True),
        factors="results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/factors.csv",
        clearest="results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/clearest.csv",
        stability="results/evaluation/{model}/{dataset}/{texts}-stability.csv",
    output:
        directory(RUN_PART),
    log:
        "results/logs/explorer/{model}/{dataset}/seed-{seed}/{texts}.log",
    benchmark:
        "results/benchmarks/explorer/{model}/{dataset}/seed-{seed}/{texts}.tsv"
    group:
        GROUPS["compare"]
    conda:
        ENVIRONMENT
    resources:
        **ANALYSIS_RESOURCES,
    params:
        methods=EXPLAINING_METHODS,
        factors=factor_names,
        naming=config["explanations"]["naming"],
        pictures=EXPLORER["images"],
        own_maps=lambda wildcards: wildcards.seed == str(SEEDS[0]),
        protocol=config["protocol"],
        code=code("explore_components"),
    message:
        "Explorer: heads of {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/explore_components.py"


rule draw_thumbnails:
    input:
        images=expand(IMAGES, seed=SEEDS, allow_missing=True),
        manifest=MANIFEST,
    output:
        directory("results/explorer-parts/pictures/{dataset}"),
    log:
        "results/logs/explorer/{dataset}-pictures.log",
    group:
        GROUPS["data"]
    conda:
        ENVIRONMENT
    threads: config["threads"]
    resources:
        **FILES_RESOURCES,
    params:
        factors=factor_names,
        pictures=EXPLORER["images"],
        protocol=config["protocol"],
        code=code("draw_thumbnails"),
    message:
        "Explorer: pictures of {wildcards.dataset}"
    script:
        "../scripts/draw_thumbnails.py"


# Components are the same with any texts, so those of the first pool stand for all.
rule map_pictures:
    input:
        unpack(model_files),
        basis="results/activations/{model}/basis.safetensors",
        components=expand(
            "results/explanations/{{model}}/{dataset}/seed-{seed}/{texts}/components.safetensors",
            dataset=EXPLORED_DATASETS,
            seed=SEEDS[0],
            texts=next(iter(TEXTS)),
        ),
        pictures=OWN_PICTURES.values(),
    output:
        "results/explorer-parts/own-pictures/{model}.safetensors",
    log:
        "results/logs/explorer/{model}-own-pictures.log",
    wildcard_constraints:
        model=any_of(MODELS),
    group:
        GROUPS["evaluate"]
    conda:
        ENVIRONMENT
    resources:
        **MODEL_RESOURCES,
    params:
        **model_job(lambda wildcards: OWN_PICTURES),
        pictures=list(OWN_PICTURES),
        datasets=EXPLORED_DATASETS,
        code=code("map_pictures"),
    message:
        "Explorer: one's own pictures in {wildcards.model}"
    script:
        "../scripts/map_pictures.py"
