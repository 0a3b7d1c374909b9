# Notebooks to look around in the results, and to try on them what the config does not name.
rule notebooks:
    input:
        notebook_outputs,
    localrule: True
    message:
        "All notebooks run"


rule notebook:
    input:
        unpack(notebook_files),
    output:
        "results/notebooks/{notebook}.png",
    log:
        "results/logs/notebooks/{notebook}.log",
        notebook="results/notebooks/{notebook}.ipynb",
    wildcard_constraints:
        notebook=any_of(NOTEBOOK_DATASETS),
    conda:
        ENVIRONMENT
    resources:
        **MODEL_RESOURCES,
    params:
        model=NOTEBOOK_MODEL,
        dataset=lambda wildcards: NOTEBOOK_DATASETS[wildcards.notebook],
        code=lambda wildcards: code_digest(REPOSITORY / "notebooks" / f"{wildcards.notebook}.ipynb"),
    message:
        "Notebook: {wildcards.notebook}"
    notebook:
        "../notebooks/{wildcards.notebook}.ipynb"


# What Python opens the results with, by the names of a model and a dataset.
rule record_config:
    output:
        "results/config.json",
    log:
        "results/logs/config.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        entries={
            "models": {name: arguments_of_model(name) for name in MODELS},
            "datasets": EXPLAINED_DATASETS,
            "seeds": SEEDS,
            "texts": list(TEXTS),
            "naming": config["explanations"]["naming"],
            "protocol": config["protocol"],
            "shards": config["shards"],
            **if_moments(keep="moments"),
        },
        code=code("record_config"),
    message:
        "The config, for Python"
    script:
        "../scripts/record_config.py"
