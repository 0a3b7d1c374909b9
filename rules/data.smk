rule draw_demo_images:
    output:
        manifest="results/data/{dataset}/manifest.csv",
        images=directory("results/data/{dataset}/images"),
    log:
        "results/logs/data/{dataset}.log",
    benchmark:
        "results/benchmarks/data/{dataset}.tsv"
    wildcard_constraints:
        dataset=any_of(DEMO_DATASETS),
    conda:
        ENVIRONMENT
    params:
        options=lambda wildcards: DATASETS[wildcards.dataset]["demo"],
        code=code("draw_demo_images"),
    message:
        "Drawing the demo's images: {wildcards.dataset}"
    script:
        "../scripts/draw_demo_images.py"


rule make_manifest:
    input:
        unpack(own_manifest_file),
    output:
        manifest="results/data/{dataset}/manifest.csv",
    log:
        "results/logs/data/{dataset}.log",
    wildcard_constraints:
        dataset=any_of(OWN_DATASETS),
    conda:
        ENVIRONMENT
    params:
        folder=lambda wildcards: DATASETS[wildcards.dataset].get("folder"),
        names=folder_digest,
        files=own_files(own_manifest_file),
        code=code("make_manifest"),
    message:
        "Listing the images of {wildcards.dataset}"
    script:
        "../scripts/make_manifest.py"


rule download_archive:
    output:
        "results/data/archives/{archive}",
    log:
        "results/logs/data/archives/{archive}.log",
    wildcard_constraints:
        archive=any_of(DOWNLOADS),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        url=lambda wildcards: DOWNLOADS[wildcards.archive]["url"],
        digest=lambda wildcards: digest_of(DOWNLOADS[wildcards.archive]),
    message:
        "Fetching {wildcards.archive}"
    script:
        "../scripts/download.py"


rule unpack_archive:
    input:
        unpack(archive_files),
    output:
        manifest="results/data/{dataset}/manifest.csv",
        images=directory("results/data/{dataset}/images"),
    log:
        "results/logs/data/{dataset}.log",
    benchmark:
        "results/benchmarks/data/{dataset}.tsv"
    wildcard_constraints:
        dataset=any_of(ARCHIVED_DATASETS),
    priority: 10  # a wrong archive should be known first
    conda:
        ENVIRONMENT
    resources:
        mem="4GB",
        runtime="2h",
    params:
        source=lambda wildcards: archives_of(wildcards.dataset)[0],
        files=own_files(archive_files),
        missing=missing_archives,
        digests=lambda wildcards: {
            name: digest_of(entry)
            for name, entry in archives_of(wildcards.dataset)[1].items()
        },
        code=code("unpack_archive"),
    message:
        "Unpacking {wildcards.dataset}"
    script:
        "../scripts/unpack_archive.py"


rule choose_images:
    input:
        manifest="results/data/{dataset}/manifest.csv",
    output:
        images="results/data/{dataset}/seed-{seed}/images.csv",
        shared="results/data/{dataset}/seed-{seed}/shared-images.csv",
    log:
        "results/logs/data/{dataset}/seed-{seed}.log",
    conda:
        ENVIRONMENT
    params:
        roles=lambda wildcards: DATASETS[wildcards.dataset]["roles"],
        factors=factor_names,
        masks=lambda wildcards: DATASETS[wildcards.dataset]["masks"],
        pictures=lambda wildcards: own_pictures(wildcards.dataset),
        code=code("choose_images"),
    message:
        "Choosing images: {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/choose_images.py"


rule table_shared_images:
    input:
        expand(
            "results/data/{dataset}/seed-{seed}/shared-images.csv",
            dataset=DATASETS,
            seed=SEEDS,
        ),
    output:
        report(
            "results/tables/shared-images.csv",
            caption="captions/shared-images.rst",
            category="Tables",
            labels={"table": "Pictures with two roles"},
        ),
    log:
        "results/logs/tables/shared-images.log",
    conda:
        ENVIRONMENT
    params:
        of=[[dataset, seed] for dataset in DATASETS for seed in SEEDS],
        code=code("table_shared_images"),
    message:
        "Table of pictures with two roles"
    script:
        "../scripts/table_shared_images.py"
