# Figures, each from its own small table.
rule figures:
    input:
        [f"results/figures/{figure['file']}.{ending}" for figure in FIGURES for ending in ENDINGS],
        expand(PICTURES_FOLDER, model=MODELS, dataset=MASKED_DATASETS),
    localrule: True
    message:
        "All figures made"


rule plot_contact_sheet:
    input:
        images=IMAGES,
        manifest=MANIFEST,
    output:
        *figure(
            "results/figures/{dataset}/contact-sheet-seed-{seed}", "contact-sheet", "Contact sheet", "Contact sheets"
        ),
    log:
        "results/logs/figures/{dataset}/contact-sheet-seed-{seed}.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        factors=factor_names,
        code=code("plot_contact_sheet"),
    message:
        "Figure: contact sheet of {wildcards.dataset}"
    script:
        "../scripts/plot_contact_sheet.py"


rule plot_heads_map:
    input:
        factors="results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/factors.csv",
        images=IMAGES,
    output:
        *figure("results/figures/{model}/{dataset}/seed-{seed}/{texts}/heads-map", "heads-map", "Heads map"),
    log:
        "results/logs/figures/{model}/{dataset}/seed-{seed}/{texts}/heads-map.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        factors=factor_names,
        protocol=config["protocol"],
        code=code("plot_heads_map"),
    message:
        "Figure: heads map of {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/plot_heads_map.py"


rule plot_spectra:
    input:
        factors="results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/factors.csv",
        images=IMAGES,
    output:
        *figure("results/figures/{model}/{dataset}/seed-{seed}/{texts}/spectra", "spectra", "Spectra of the heads"),
    log:
        "results/logs/figures/{model}/{dataset}/seed-{seed}/{texts}/spectra.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        protocol=config["protocol"],
        code=code("plot_spectra"),
    message:
        "Figure: spectra of {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/plot_spectra.py"


rule plot_factors_map:
    input:
        factors="results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/factors.csv",
        images=IMAGES,
    output:
        *figure(
            "results/figures/{model}/{dataset}/seed-{seed}/{texts}/factors-map",
            "factors-map",
            "What moves components",
        ),
    log:
        "results/logs/figures/{model}/{dataset}/seed-{seed}/{texts}/factors-map.log",
    wildcard_constraints:
        dataset=any_of(FACTORED_DATASETS),
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        factors=factor_names,
        protocol=config["protocol"],
        code=code("plot_factors_map"),
    message:
        "Figure: what moves components of {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/plot_factors_map.py"


rule plot_cards:
    input:
        texts="results/explanations/{model}/{dataset}/seed-{seed}/{texts}/components.parquet",
        clearest="results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/clearest.csv",
        pole_images="results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/pole-images.parquet",
        images=IMAGES,
        manifest=MANIFEST,
    output:
        *figure("results/figures/{model}/{dataset}/seed-{seed}/{texts}/cards", "cards", "Clearest components"),
    log:
        "results/logs/figures/{model}/{dataset}/seed-{seed}/{texts}/cards.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        naming=config["explanations"]["naming"],
        protocol=config["protocol"],
        code=code("plot_cards"),
    message:
        "Figure: clearest components of {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/plot_cards.py"


rule plot_segmentation:
    input:
        examples="results/segmentation/{model}/{dataset}/seed-{seed}/examples.safetensors",
        scores="results/segmentation/{model}/{dataset}/seed-{seed}/scores.csv",
        images=ALL_IMAGES,  # of which segmentation scores every eval image, whatever is kept
    output:
        *figure("results/figures/{model}/{dataset}/seed-{seed}/segmentation", "segmentation-examples", "Segmentation"),
    log:
        "results/logs/figures/{model}/{dataset}/seed-{seed}/segmentation.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        code=code("plot_segmentation"),
    message:
        "Figure: segmentation examples of {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/plot_segmentation.py"


rule plot_recovery:
    input:
        table="results/tables/recovery.csv",
    output:
        *figure("results/figures/{model}/{dataset}/{texts}/recovery", "recovery", "Accuracy recovered"),
    log:
        "results/logs/figures/{model}/{dataset}/{texts}/recovery.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        code=code("plot_recovery"),
    message:
        "Figure: accuracy that explanations recover, {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/plot_recovery.py"


rule plot_names:
    input:
        table="results/tables/names.csv",
    output:
        *figure("results/figures/{model}/{dataset}/{texts}/names", "names", "Which names are right"),
    log:
        "results/logs/figures/{model}/{dataset}/{texts}/names.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        code=code("plot_names"),
    message:
        "Figure: which names are right, {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/plot_names.py"


rule plot_ablation:
    input:
        table="results/tables/accuracy.csv",
    output:
        *figure("results/figures/{model}/{dataset}/ablation", "ablation", "Accuracy with heads at their mean"),
    log:
        "results/logs/figures/{model}/{dataset}/ablation.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        code=code("plot_ablation"),
    message:
        "Figure: accuracy of {wildcards.model} on {wildcards.dataset} with heads at their mean"
    script:
        "../scripts/plot_ablation.py"


rule plot_stability:
    input:
        table="results/tables/stability.csv",
    output:
        *figure("results/figures/{model}/{dataset}/{texts}/stability", "stability-over-seeds", "What stays"),
    log:
        "results/logs/figures/{model}/{dataset}/{texts}/stability.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        code=code("plot_stability"),
    message:
        "Figure: what stays of the components of {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/plot_stability.py"


rule plot_effects:
    input:
        table="results/tables/effects.csv",
    output:
        *figure("results/figures/{model}/{dataset}/effects", "effects-map", "What each head is worth"),
    log:
        "results/logs/figures/{model}/{dataset}/effects.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        code=code("plot_effects"),
    message:
        "Figure: what each head is worth, {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/plot_effects.py"


rule plot_retrieval_map:
    input:
        heads=expand("results/evaluation/{{model}}/{{dataset}}/seed-{seed}/retrieval-heads.csv", seed=SEEDS),
        table="results/tables/retrieval.csv",
    output:
        *figure("results/figures/{model}/{dataset}/retrieval-map", "retrieval-map", "What each head retrieves"),
    log:
        "results/logs/figures/{model}/{dataset}/retrieval-map.log",
    wildcard_constraints:
        dataset=any_of(KNOWN_DATASETS),
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        code=code("plot_retrieval_map"),
    message:
        "Figure: what each head of {wildcards.model} retrieves on {wildcards.dataset}"
    script:
        "../scripts/plot_retrieval_map.py"


rule plot_segmentation_parts:
    input:
        parts="results/segmentation/{model}/{dataset}/seed-{seed}/parts.csv",
        together="results/segmentation/{model}/{dataset}/seed-{seed}/best-parts.csv",
    output:
        *figure(
            "results/figures/{model}/{dataset}/seed-{seed}/segmentation-parts",
            "segmentation-parts",
            "Segmentation by head",
        ),
    log:
        "results/logs/figures/{model}/{dataset}/seed-{seed}/segmentation-parts.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        code=code("plot_segmentation_parts"),
    message:
        "Figure: which heads of {wildcards.model} segment {wildcards.dataset}"
    script:
        "../scripts/plot_segmentation_parts.py"
