# What was run in one file, the typeset paper, and the archive of a submission.
rule describe_study:
    input:
        tables=[path for path in rules.tables.input if "results/tables/" in path],
        images=expand("results/data/{dataset}/seed-{seed}/images.csv", dataset=DATASETS, seed=SEEDS),
        published=locate("paper/published.csv"),
    output:
        "results/study.json",
    log:
        "results/logs/study.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        **STUDY,
        code=code("describe_study"),
    message:
        "Describing what was run"
    script:
        "../scripts/describe_study.py"


# The paper is updated, so that a mistake in one's text does not cost the last one.
rule paper:
    input:
        study="results/study.json",
        tables=rules.describe_study.input.tables,
        topics=expand("results/queries/{queries}.csv", queries=TOPICS),
        figures=[f"results/figures/{figure['file']}.{ending}" for figure in FIGURES for ending in ("pdf", "json")],
        main=locate("paper/paper.typ"),
        source=paper_files(),
    output:
        report(update("results/paper.pdf"), caption="captions/paper.rst", category=OVERVIEW, labels={"page": "Paper"}),
    log:
        "results/logs/paper.log",
    group:
        GROUPS["results"]
    conda:
        ENVIRONMENT
    params:
        code=code("make_paper"),
    message:
        "The paper"
    script:
        "../scripts/make_paper.py"


# Tables have a version for LaTeX beside the CSV, but for those that are about files rather than results.
rule archive:
    input:
        paper=rules.paper.output[0],
        study="results/study.json",
        results=[
            *rules.tables.input,
            *(in_latex(path) for path in rules.tables.input if Path(path).stem not in WITHOUT_LATEX),
            *(f"results/figures/{figure['file']}.{ending}" for figure in FIGURES for ending in ENDINGS),
        ],
        main=locate("paper/paper.typ"),
        source=paper_files(),
        configs=[local(str(path)) for path in workflow.configfiles],
        lock=local(str(REPOSITORY / "envs" / "requirements.txt")),
    output:
        "results/archive.zip",
    log:
        "results/logs/archive.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        overrides=workflow.config_settings.config,
        code=code("pack_archive"),
    message:
        "The archive of tables, figures and paper"
    script:
        "../scripts/pack_archive.py"
