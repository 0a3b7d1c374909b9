rule embed_classes:
    input:
        unpack(model_files),
        manifest="results/data/{dataset}/manifest.csv",
    output:
        "results/text/{model}/classes-{dataset}.safetensors",
    log:
        "results/logs/text/{model}/classes-{dataset}.log",
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
        prompts=lambda wildcards: DATASETS[wildcards.dataset]["prompts"],
        code=code("embed_classes"),
    message:
        "Class texts of {wildcards.dataset} in {wildcards.model}"
    script:
        "../scripts/embed_classes.py"


rule download_texts:
    output:
        "results/data/texts/{texts}.txt",
    log:
        "results/logs/text/{texts}.log",
    wildcard_constraints:
        texts=any_of(name for name in TEXTS if "url" in TEXTS[name]),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        url=lambda wildcards: TEXTS[wildcards.texts]["url"],
        digest=lambda wildcards: digest_of(TEXTS[wildcards.texts]),
    message:
        "Fetching the text pool {wildcards.texts}"
    script:
        "../scripts/download.py"


rule embed_texts:
    input:
        unpack(model_files),
        unpack(pool_file),
    output:
        "results/text/{model}/{texts}.safetensors",
    log:
        "results/logs/text/{model}/{texts}.log",
    conda:
        ENVIRONMENT
    resources:
        mem=MODEL_MEMORY,
        runtime="30m",
        device=lookup("device", within=config),
        cache=MODEL_CACHE,
    params:
        model=model_params,
        files=own_files(model_files, pool_file),
        column=lambda wildcards: TEXTS[wildcards.texts].get("column"),
        code=code("embed_texts"),
    message:
        "Text pool {wildcards.texts} in {wildcards.model}"
    script:
        "../scripts/embed_texts.py"


rule table_texts:
    input:
        expand(
            "results/text/{model}/{texts}.safetensors",
            model=MODELS,
            texts=TEXTS,
        ),
    output:
        report(
            "results/tables/texts.csv",
            caption="captions/texts.rst",
            category="Tables",
            labels={"table": "Text pools"},
        ),
    log:
        "results/logs/tables/texts.log",
    conda:
        ENVIRONMENT
    params:
        code=code("table_texts"),
    message:
        "Table of text pools"
    script:
        "../scripts/table_texts.py"
