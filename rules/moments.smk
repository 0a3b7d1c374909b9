# Where an extraction keeps moments: the sample that is stored whole, and sums over all fit images, merged over a tree.


rule sample_images:
    input:
        images=ALL_IMAGES,
    output:
        SAMPLE,
    log:
        "results/logs/data/{dataset}/seed-{seed}-sample.log",
    group:
        GROUPS["data"]
    conda:
        ENVIRONMENT
    params:
        sample=config["activations"]["sample"],
        code=code("sample_images"),
    message:
        "Sample of {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/sample_images.py"


rule extract_moments:
    input:
        unpack(model_files),
        unpack(images_of_all_seeds),
        samples=expand(SAMPLE, seed=SEEDS, allow_missing=True),
        manifest=MANIFEST,
    output:
        sample="results/activations/{model}/{dataset}/sample-{shard}-of-{shards}.safetensors",
        moments=parts_of("moments"),
    log:
        "results/logs/activations/{model}/{dataset}/sample-{shard}-of-{shards}.log",
    benchmark:
        "results/benchmarks/activations/{model}/{dataset}/sample-{shard}-of-{shards}.tsv"
    group:
        GROUPS["images"]
    conda:
        ENVIRONMENT
    threads: config["threads"]
    resources:
        **MOMENTS_RESOURCES,
    params:
        **model_job(),
        seeds=SEEDS,
        protocol=config["protocol"],
        precision=config["precision"],
        on_bad_image=config["on_bad_image"],
        stored=STORED,
        code=code("extract_moments"),
    message:
        "Moments of {wildcards.model} on {wildcards.dataset}, shard {wildcards.shard}"
    script:
        "../scripts/extract_moments.py"


rule fix_components:
    input:
        **ACTIVATIONS,
    output:
        DIRECTIONS,
    log:
        "results/logs/activations/{model}/{dataset}/seed-{seed}-directions.log",
    group:
        GROUPS["images"]
    conda:
        ENVIRONMENT
    resources:
        **SUMS_RESOURCES,
    params:
        protocol=config["protocol"],
        code=code("fix_components"),
    message:
        "Components of {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}, fixed"
    script:
        "../scripts/fix_components.py"


# The images once more: which of them lie at a component's pole depends on the component, which depends on all images.
rule extract_poles:
    input:
        unpack(model_files),
        unpack(images_of_all_seeds),
        samples=expand(SAMPLE, seed=SEEDS, allow_missing=True),
        moments=expand(MOMENTS, seed=SEEDS, allow_missing=True),
        directions=expand(DIRECTIONS, seed=SEEDS, allow_missing=True),
        manifest=MANIFEST,
    output:
        poles=parts_of("poles"),
    log:
        "results/logs/activations/{model}/{dataset}/poles-{shard}-of-{shards}.log",
    benchmark:
        "results/benchmarks/activations/{model}/{dataset}/poles-{shard}-of-{shards}.tsv"
    group:
        GROUPS["images"]
    conda:
        ENVIRONMENT
    threads: config["threads"]
    resources:
        **MOMENTS_RESOURCES,
    params:
        **model_job(),
        seeds=SEEDS,
        protocol=config["protocol"],
        precision=config["precision"],
        on_bad_image=config["on_bad_image"],
        layers=STORED["layers"],
        code=code("extract_poles"),
    message:
        "Poles of {wildcards.model} on {wildcards.dataset}, shard {wildcards.shard}"
    script:
        "../scripts/extract_poles.py"


rule merge_sums:
    input:
        parts=root_files,
    output:
        "results/activations/{model}/{dataset}/seed-{seed}-{kind}.safetensors",
    log:
        "results/logs/activations/{model}/{dataset}/seed-{seed}-{kind}.log",
    wildcard_constraints:
        kind="moments|poles",
    group:
        GROUPS["images"]
    conda:
        ENVIRONMENT
    resources:
        **SUMS_RESOURCES,
    params:
        code=code("merge_sums"),
    message:
        "Sums over the images of all shards: {wildcards.kind} of {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/merge_sums.py"


use rule merge_sums as merge_some_sums with:
    input:
        parts=lambda wildcards: node_files(wildcards, int(wildcards.level), int(wildcards.number)),
    output:
        temp("results/activations/{model}/{dataset}/seed-{seed}-{kind}/{level}-{number}-of-{shards}.safetensors"),
    log:
        "results/logs/activations/{model}/{dataset}/seed-{seed}-{kind}-{level}-{number}-of-{shards}.log",
    wildcard_constraints:
        kind="moments|poles",
        level=r"[1-9]\d*",
        number=r"\d+",
    message:
        "Sums over the images of some shards: {wildcards.kind} of {wildcards.model} on {wildcards.dataset}"
