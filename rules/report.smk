# The report: all results with their provenance, and a page that says what was run and found, as one file to pass on.
rule report:
    input:
        bare="results/report-parts/report.zip",
        study="results/study.json",
    output:
        "results/report.zip",
    log:
        "results/logs/report/report.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        categories=CATEGORIES,
        see_also=SEE_ALSO,
        code=code("make_report"),
    message:
        "The report"
    script:
        "../scripts/make_report.py"


# Snakemake's own, of all that a run makes; a run inside the run, which has finished everything else.
rule write_bare_report:
    input:
        rules.all.input,
        captions=[local(str(path)) for path in sorted(REPOSITORY.glob("rules/captions/*.rst"))],
        stylesheet=local(str(REPOSITORY / "rules" / "captions" / "report.css")),
    output:
        temp("results/report-parts/report.zip"),
    log:
        "results/logs/report/snakemake.log",
    localrule: True
    message:
        "Snakemake's report"
    run:
        write_bare_report(output[0], input.stylesheet, log[0])
