# Datasets and texts: fetched or taken from the user, and what each seed uses of them.
rule make_manifest:
    input:
        unpack(own_manifest_file),
    output:
        manifest=MANIFEST,
    log:
        "results/logs/data/{dataset}.log",
    wildcard_constraints:
        dataset=any_of(OWN_DATASETS),
    group:
        GROUPS["data"]
    conda:
        ENVIRONMENT
    resources:
        **FILES_RESOURCES,
    params:
        folder=lambda wildcards: DATASETS[wildcards.dataset].get("folder"),
        names=folder_digest,
        files=files_stamp(own_manifest_file),
        code=code("make_manifest"),
    message:
        "Listing the images of {wildcards.dataset}"
    script:
        "../scripts/make_manifest.py"


rule download_archive:
    output:
        local("results/data/archives/{archive}"),
    log:
        "results/logs/data/archives/{archive}.log",
    wildcard_constraints:
        archive=any_of(DOWNLOADS),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        url=lambda wildcards: DOWNLOADS[wildcards.archive]["url"],
        digest=lambda wildcards: expected_digest(DOWNLOADS[wildcards.archive]),
    message:
        "Fetching {wildcards.archive}"
    script:
        "../scripts/download.py"


rule unpack_archive:
    input:
        unpack(archive_files),
    output:
        manifest=MANIFEST,
        images=directory(local("results/data/{dataset}/images")),
    log:
        "results/logs/data/{dataset}.log",
    benchmark:
        "results/benchmarks/data/{dataset}.tsv"
    wildcard_constraints:
        dataset=any_of(ARCHIVED_DATASETS),
    priority: 10  # a wrong archive should be known first
    group:
        GROUPS["data"]
    conda:
        ENVIRONMENT
    resources:
        **FILES_RESOURCES,
    params:
        source=lambda wildcards: archive_entries(wildcards.dataset)[0],
        files=files_stamp(archive_files),
        missing=missing_archives,
        digests=lambda wildcards: {
            name: expected_digest(entry) for name, entry in archive_entries(wildcards.dataset)[1].items()
        },
        code=code("unpack_archive"),
    message:
        "Unpacking {wildcards.dataset}"
    script:
        "../scripts/unpack_archive.py"


# Each tar file is a job of its own, so that they come side by side and a rerun fetches what is missing.
rule download_tar:
    output:
        local("results/data/archives/{dataset}/{tar}"),
    log:
        "results/logs/data/archives/{dataset}/{tar}.log",
    wildcard_constraints:
        dataset=any_of(TAR_DATASETS),
        tar=r".+\.tar",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        url=lambda wildcards: TARS[wildcards.dataset][wildcards.tar].place,
        digest=lambda wildcards: tar_digests(wildcards.dataset)[wildcards.tar],
    message:
        "Fetching {wildcards.tar} of {wildcards.dataset}"
    script:
        "../scripts/download.py"


rule list_tars:
    input:
        unpack(tar_inputs),
    output:
        manifest=MANIFEST,
        left_out="results/data/{dataset}/left-out.csv",
        tars=directory(local("results/data/{dataset}/tars")),
    log:
        "results/logs/data/{dataset}.log",
    benchmark:
        "results/benchmarks/data/{dataset}.tsv"
    wildcard_constraints:
        dataset=any_of(TAR_DATASETS),
    conda:
        ENVIRONMENT
    threads: config["threads"]
    resources:
        **FILES_RESOURCES,
    params:
        # Where the tar files are is a part of the result: their indexes hold it.
        tars=lambda wildcards: [list(tar) for tar in located_tars(wildcards.dataset)],
        source=sample_options,
        digests=lambda wildcards: tar_digests(wildcards.dataset),
        files=lambda wildcards: pictures_stamp(wildcards.dataset),
        code=code("list_tars"),
    message:
        "Listing the tar files of {wildcards.dataset}"
    script:
        "../scripts/list_tars.py"


rule choose_images:
    input:
        manifest=MANIFEST,
    output:
        images="results/data/{dataset}/seed-{seed}/images.csv",
        shared="results/data/{dataset}/seed-{seed}/shared-images.csv",
    log:
        "results/logs/data/{dataset}/seed-{seed}.log",
    group:
        GROUPS["data"]
    conda:
        ENVIRONMENT
    resources:
        **FILES_RESOURCES,
    params:
        roles=lambda wildcards: DATASETS[wildcards.dataset]["roles"],
        factors=factor_names,
        masks=lambda wildcards: DATASETS[wildcards.dataset]["masks"],
        pairs=lambda wildcards: DATASETS[wildcards.dataset]["pairs"],
        pictures=lambda wildcards: pictures_stamp(wildcards.dataset),
        code=code("choose_images"),
    message:
        "Choosing images: {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/choose_images.py"


rule table_shared_images:
    input:
        images=expand("results/data/{dataset}/seed-{seed}/images.csv", dataset=DATASETS, seed=SEEDS),
        shared=expand("results/data/{dataset}/seed-{seed}/shared-images.csv", dataset=DATASETS, seed=SEEDS),
    output:
        **table("shared-images", "Images that roles and seeds share"),
    log:
        "results/logs/tables/shared-images.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        sources=[[dataset, seed] for dataset in DATASETS for seed in SEEDS],
        code=code("table_shared_images"),
    message:
        "Table of images that roles and seeds share"
    script:
        "../scripts/table_shared_images.py"


rule download_texts:
    output:
        local("results/data/texts/{texts}.txt"),
    log:
        "results/logs/text/{texts}.log",
    wildcard_constraints:
        texts=any_of(name for name in TEXTS if "url" in TEXTS[name]),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        url=lambda wildcards: TEXTS[wildcards.texts]["url"],
        digest=lambda wildcards: expected_digest(TEXTS[wildcards.texts]),
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
    group:
        GROUPS["texts"]
    conda:
        ENVIRONMENT
    threads: config["threads"]
    resources:
        **MODEL_RESOURCES,
    params:
        **model_job(pool_file),
        column=lambda wildcards: TEXTS[wildcards.texts].get("column"),
        code=code("embed_texts"),
    message:
        "Text pool {wildcards.texts} in {wildcards.model}"
    script:
        "../scripts/embed_texts.py"


rule table_texts:
    input:
        expand("results/text/{model}/{texts}.safetensors", model=MODELS, texts=TEXTS),
    output:
        **table("texts", "Text pools"),
    log:
        "results/logs/tables/texts.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        code=code("table_texts"),
    message:
        "Table of text pools"
    script:
        "../scripts/table_texts.py"


rule embed_classes:
    input:
        unpack(model_files),
        manifest=MANIFEST,
    output:
        "results/text/{model}/classes-{dataset}.safetensors",
    log:
        "results/logs/text/{model}/classes-{dataset}.log",
    group:
        GROUPS["texts"]
    conda:
        ENVIRONMENT
    threads: config["threads"]
    resources:
        **MODEL_RESOURCES,
    params:
        **model_job(),
        prompts=lambda wildcards: DATASETS[wildcards.dataset]["prompts"],
        code=code("embed_classes"),
    message:
        "Class texts of {wildcards.dataset} in {wildcards.model}"
    script:
        "../scripts/embed_classes.py"
