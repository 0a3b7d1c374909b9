from snakemake.utils import min_version

min_version("9.25")


# A config named on the command line stands alone: it is not merged into the demo's.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


include: "rules/config.smk"
include: "rules/recovery.smk"
include: "rules/storage.smk"
include: "rules/common.smk"
include: "rules/reporting.smk"
include: "rules/sources.smk"
include: "rules/inputs.smk"
include: "rules/resources.smk"
include: "rules/submission.smk"
include: "rules/demo.smk"
include: "rules/towers.smk"
include: "rules/data.smk"
include: "rules/contributions.smk"
include: "rules/summed.smk"
include: "rules/moments.smk"
include: "rules/explanations.smk"
include: "rules/evaluation.smk"
include: "rules/segmentation.smk"
include: "rules/concepts.smk"
include: "rules/interventions.smk"
include: "rules/shown.smk"
include: "rules/compared.smk"
include: "rules/comparisons.smk"
include: "rules/transfer.smk"
include: "rules/figures.smk"
include: "rules/concept_figures.smk"
include: "rules/explored.smk"
include: "rules/explorer.smk"
include: "rules/notebooks.smk"
include: "rules/paper.smk"


report: "rules/captions/workflow.rst"


rule all:
    default_target: True
    input:
        rules.tables.input,
        rules.figures.input,
        rules.explorer.output if RUNS else [],
        rules.record_config.output,
        rules.paper.output,
    localrule: True


include: "rules/report.smk"


onstart:
    check_dates()
    check_requests()
    fetch_extended()
    if workflow.non_local_exec:
        keep_pieces_together()
        processes.note_submitted(".snakemake")


onsuccess:
    print(results_to_open())
