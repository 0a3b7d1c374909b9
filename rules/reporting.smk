# How the report is written, and what belongs together in it; no rules here.
import subprocess

# Rules whose results each other's captions name: figures and tables of the same numbers, and what a reader asks next.
SEE_ALSO = [
    ["plot_contact_sheet", "table_shared_images"],
    ["table_loaded_models", "table_exactness"],
    ["plot_heads_map", "plot_cards", "plot_spectra", "plot_factors_map", "plot_effects"],
    ["plot_cards", "plot_names"],
    ["plot_effects", "table_effects", "plot_ablation", "table_accuracy"],
    ["plot_recovery", "table_recovery"],
    ["plot_names", "table_names", "table_labels"],
    ["plot_stability", "table_stability"],
    ["plot_segmentation", "plot_segmentation_parts", "table_segmentation"],
    ["plot_intervention", "plot_intervention_values", "table_interventions", "table_intervention_values"],
    ["paper", "explorer"],
]


def write_bare_report(target, stylesheet, log):
    """Have Snakemake write its report of what `all` makes, with this run's config; its words go into a log."""
    settings = workflow.config_settings
    command = [sys.executable, "-m", "snakemake", "--nolock", "--profile", "none", "--workflow-profile", "none"]
    command += ["--snakefile", workflow.main_snakefile, "--report", target, "--report-stylesheet", stylesheet]
    if settings.configfiles:
        command += ["--configfile", *settings.configfiles]
    if settings.config_args:
        command += ["--config", *settings.config_args]
    with open(log, "w") as file:
        subprocess.run([*command, "--", "all"], stdout=file, stderr=subprocess.STDOUT, check=True)
