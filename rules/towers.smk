# Models: which are decomposed, what each was loaded with, and the fixed matrices of its heads.
rule models:
    output:
        "results/tables/models.csv",
    log:
        "results/logs/tables/models.log",
    conda:
        ENVIRONMENT
    params:
        code=code("list_models"),
    message:
        "Which architectures of open_clip are decomposed"
    script:
        "../scripts/list_models.py"


rule head_basis:
    input:
        unpack(model_files),
    output:
        basis="results/activations/{model}/basis.safetensors",
    log:
        "results/logs/activations/{model}/basis.log",
    group:
        GROUPS["texts"]
    conda:
        ENVIRONMENT
    resources:
        **MODEL_RESOURCES,
    params:
        **model_job(),
        code=code("head_basis"),
    message:
        "Basis of every head of {wildcards.model}"
    script:
        "../scripts/head_basis.py"


rule table_loaded_models:
    input:
        expand("results/activations/{model}/basis.safetensors", model=MODELS),
    output:
        **table("loaded-models", "What every model was loaded with"),
    log:
        "results/logs/tables/loaded-models.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        code=code("table_loaded_models"),
    message:
        "Table of what every model was loaded with"
    script:
        "../scripts/table_loaded_models.py"
