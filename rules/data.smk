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
        code=code("demo", "arrays"),
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
        files=folder_digest,
        code=code("datasets", "arrays"),
    message:
        "Listing the images of {wildcards.dataset}"
    script:
        "../scripts/make_manifest.py"


rule choose_images:
    input:
        manifest="results/data/{dataset}/manifest.csv",
    output:
        images="results/data/{dataset}/seed-{seed}/images.csv",
    log:
        "results/logs/data/{dataset}/seed-{seed}.log",
    conda:
        ENVIRONMENT
    params:
        roles=lambda wildcards: DATASETS[wildcards.dataset]["roles"],
        code=code("datasets", "arrays"),
    message:
        "Choosing images: {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/choose_images.py"
