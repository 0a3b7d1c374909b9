FIGURE_SEED = SEEDS[0]


rule figures:
    input:
        expand(
            "results/figures/{dataset}/contact-sheet-seed-{seed}.{ending}",
            dataset=DATASETS,
            seed=FIGURE_SEED,
            ending=["pdf", "png"],
        ),
        expand(
            "results/figures/{model}/{dataset}/seed-{seed}/{texts}/{figure}.{ending}",
            model=MODELS,
            dataset=EXPLAINED_DATASETS,
            seed=FIGURE_SEED,
            texts=TEXTS,
            figure=["heads-map", "cards"],
            ending=["pdf", "png"],
        ),
        expand(
            "results/figures/{model}/{dataset}/seed-{seed}/{figure}.{ending}",
            model=MODELS,
            dataset=MASKED_DATASETS,
            seed=FIGURE_SEED,
            figure=["segmentation", "segmentation-parts"],
            ending=["pdf", "png"],
        ),
        expand(
            "results/figures/spatial/{spatial}.{ending}",
            spatial=config["spatial"],
            ending=["pdf", "png"],
        ),
        expand(
            "results/figures/queries/{queries}.{ending}",
            queries=QUERIES,
            ending=["pdf", "png"],
        ),
        expand(
            "results/figures/neighbours/{neighbours}.{ending}",
            neighbours=config["neighbours"],
            ending=["pdf", "png"],
        ),
        interventions_by_model(
            "results/figures/interventions/{intervention}/{model}.{ending}",
            COUNTED,
            ending=["pdf", "png"],
        ),
        interventions_by_model(
            "results/figures/interventions/{intervention}/{model}-values.{ending}",
            ending=["pdf", "png"],
        ),
        expand(
            "results/figures/{model}/{dataset}/effects.{ending}",
            model=MODELS,
            dataset=EXPLAINED_DATASETS,
            ending=["pdf", "png"],
        ),
        expand(
            "results/figures/{model}/{dataset}/{texts}/recovery.{ending}",
            model=MODELS,
            dataset=EXPLAINED_DATASETS,
            texts=TEXTS,
            ending=["pdf", "png"],
        ),
    localrule: True
    message:
        "All figures made"


rule plot_contact_sheet:
    input:
        images="results/data/{dataset}/seed-{seed}/images.csv",
        manifest="results/data/{dataset}/manifest.csv",
    output:
        "results/figures/{dataset}/contact-sheet-seed-{seed}.pdf",
        report(
            "results/figures/{dataset}/contact-sheet-seed-{seed}.png",
            caption="captions/contact-sheet.rst",
            category="Figures",
            subcategory="{dataset}",
            labels={"figure": "Contact sheet", "seed": "{seed}"},
        ),
    log:
        "results/logs/figures/{dataset}/contact-sheet-seed-{seed}.log",
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
        images="results/data/{dataset}/seed-{seed}/images.csv",
    output:
        "results/figures/{model}/{dataset}/seed-{seed}/{texts}/heads-map.pdf",
        report(
            "results/figures/{model}/{dataset}/seed-{seed}/{texts}/heads-map.png",
            caption="captions/heads-map.rst",
            category="Figures",
            subcategory="{dataset}",
            labels={"figure": "Heads map", "model": "{model}", "seed": "{seed}"},
        ),
    log:
        "results/logs/figures/{model}/{dataset}/seed-{seed}/{texts}/heads-map.log",
    conda:
        ENVIRONMENT
    params:
        factors=factor_names,
        protocol=lookup("protocol", within=config),
        code=code("plot_heads_map"),
    message:
        "Figure: heads map of {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/plot_heads_map.py"


rule plot_cards:
    input:
        texts="results/explanations/{model}/{dataset}/seed-{seed}/{texts}/components.parquet",
        factors="results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/factors.csv",
        pole_images="results/evaluation/{model}/{dataset}/seed-{seed}/{texts}/pole-images.parquet",
        images="results/data/{dataset}/seed-{seed}/images.csv",
        manifest="results/data/{dataset}/manifest.csv",
    output:
        "results/figures/{model}/{dataset}/seed-{seed}/{texts}/cards.pdf",
        report(
            "results/figures/{model}/{dataset}/seed-{seed}/{texts}/cards.png",
            caption="captions/cards.rst",
            category="Figures",
            subcategory="{dataset}",
            labels={
                "figure": "Clearest components",
                "model": "{model}",
                "seed": "{seed}",
            },
        ),
    log:
        "results/logs/figures/{model}/{dataset}/seed-{seed}/{texts}/cards.log",
    conda:
        ENVIRONMENT
    params:
        factors=factor_names,
        protocol=lookup("protocol", within=config),
        code=code("plot_cards"),
    message:
        "Figure: clearest_components components of {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/plot_cards.py"


rule plot_segmentation:
    input:
        examples="results/segmentation/{model}/{dataset}/seed-{seed}/examples.safetensors",
        scores="results/segmentation/{model}/{dataset}/seed-{seed}/scores.csv",
        images="results/data/{dataset}/seed-{seed}/images.csv",
    output:
        "results/figures/{model}/{dataset}/seed-{seed}/segmentation.pdf",
        report(
            "results/figures/{model}/{dataset}/seed-{seed}/segmentation.png",
            caption="captions/segmentation-examples.rst",
            category="Figures",
            subcategory="{dataset}",
            labels={"figure": "Segmentation", "model": "{model}", "seed": "{seed}"},
        ),
    log:
        "results/logs/figures/{model}/{dataset}/seed-{seed}/segmentation.log",
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
        "results/figures/{model}/{dataset}/{texts}/recovery.pdf",
        report(
            "results/figures/{model}/{dataset}/{texts}/recovery.png",
            caption="captions/recovery.rst",
            category="Figures",
            subcategory="{dataset}",
            labels={"figure": "Accuracy recovered", "model": "{model}"},
        ),
    log:
        "results/logs/figures/{model}/{dataset}/{texts}/recovery.log",
    conda:
        ENVIRONMENT
    params:
        code=code("plot_recovery"),
    message:
        "Figure: accuracy that explanations recover, {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/plot_recovery.py"


rule plot_effects:
    input:
        table="results/tables/effects.csv",
    output:
        "results/figures/{model}/{dataset}/effects.pdf",
        report(
            "results/figures/{model}/{dataset}/effects.png",
            caption="captions/effects-map.rst",
            category="Figures",
            subcategory="{dataset}",
            labels={"figure": "What each head is worth", "model": "{model}"},
        ),
    log:
        "results/logs/figures/{model}/{dataset}/effects.log",
    conda:
        ENVIRONMENT
    params:
        code=code("plot_effects"),
    message:
        "Figure: what each head is worth, {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/plot_effects.py"


rule plot_segmentation_parts:
    input:
        parts="results/segmentation/{model}/{dataset}/seed-{seed}/parts.csv",
        together="results/segmentation/{model}/{dataset}/seed-{seed}/best-parts.csv",
    output:
        "results/figures/{model}/{dataset}/seed-{seed}/segmentation-parts.pdf",
        report(
            "results/figures/{model}/{dataset}/seed-{seed}/segmentation-parts.png",
            caption="captions/segmentation-parts.rst",
            category="Figures",
            subcategory="{dataset}",
            labels={
                "figure": "Segmentation by head",
                "model": "{model}",
                "seed": "{seed}",
            },
        ),
    log:
        "results/logs/figures/{model}/{dataset}/seed-{seed}/segmentation-parts.log",
    conda:
        ENVIRONMENT
    params:
        code=code("plot_segmentation_parts"),
    message:
        "Figure: which heads of {wildcards.model} segment {wildcards.dataset}"
    script:
        "../scripts/plot_segmentation_parts.py"


rule plot_spatial:
    input:
        "results/spatial/{spatial}.safetensors",
    output:
        "results/figures/spatial/{spatial}.pdf",
        report(
            "results/figures/spatial/{spatial}.png",
            caption="captions/spatial.rst",
            category="Figures",
            subcategory="spatial",
            labels={"figure": "Where texts are", "picture": "{spatial}"},
        ),
    log:
        "results/logs/figures/spatial/{spatial}.log",
    wildcard_constraints:
        spatial=any_of(config["spatial"]),
    conda:
        ENVIRONMENT
    params:
        code=code("plot_spatial"),
    message:
        "Figure: where the texts of {wildcards.spatial} are"
    script:
        "../scripts/plot_spatial.py"
