# How results are shown: the files of figures and tables, their places in the report, and how it is written; no rules here.
import subprocess

# Chapters of the report and of the paper, in their order, with the names of the captions that each has.
CHAPTERS = {
    "Data and models": ["contact-sheet", "loaded-models", "shared-images", "texts"],
    "Accuracy": ["ablation", "accuracy"],
    "Heads": ["cards", "effects", "effects-map", "factors-map", "heads-map", "spectra"],
    "Recovery": ["recovery"],
    "Names": ["labels", "names"],
    "Retrieval": ["retrieval", "retrieval-map"],
    "Segmentation": ["segmentation", "segmentation-examples", "segmentation-parts", "spatial"],
    "Queries and neighbours": ["neighbours", "query"],
    "Interventions": ["edited-models", "intervention", "intervention-values", "interventions"],
    "Comparisons": ["comparison-cards", "comparison-map", "comparisons"],
    "Stability": ["stability", "stability-over-seeds"],
    "Transfer": ["transfer", "transfer-curves"],
    "Exactness": ["exactness"],
}


# Categories of the report, which sorts them by name; the paper and the explorer are of all chapters.
OVERVIEW = "00 Overview"
CATEGORIES = {name: f"{number:02d} {name}" for number, name in enumerate(CHAPTERS, 1)}


def category(caption):
    """The chapter of a caption as a category of the report."""
    return next(CATEGORIES[name] for name, captions in CHAPTERS.items() if caption in captions)


ENDINGS = ["pdf", "png", "json"]  # of a figure's files


LABELS = {"queries": "query", "spatial": "map"}  # of wildcards, where they have another name


def figure(path, caption, title, subcategory="{dataset}"):
    """The files of a figure: a PDF for print, a PNG for the report, and a JSON file with the words of its caption.

    The report labels it with the path's wildcards. It shows a switch in place of a label that has two values, each on
    half of the subcategory's figures, if there is one such label; so subcategories are chosen that leave one.
    """
    names = [name for name in re.findall(r"{(\w+)}", path) if f"{{{name}}}" != subcategory]
    labels = {"figure": title} | {LABELS.get(name, name): f"{{{name}}}" for name in names}
    about = {"category": category(caption), "subcategory": subcategory, "labels": labels}
    png = report(f"{path}.png", caption=f"captions/{caption}.rst", **about)
    return [f"{path}.pdf", png, f"{path}.json"]


def table(name, title):
    """A table for the report, as the output `csv`."""
    about = {"category": category(name), "subcategory": "Tables", "labels": {"table": title}}
    return {"csv": report(f"results/tables/{name}.csv", caption=f"captions/{name}.rst", **about)}


# Rules whose results each other's captions name: figures and tables of the same numbers, and what a reader asks next.
SEE_ALSO = [
    ["plot_contact_sheet", "table_shared_images"],
    ["table_loaded_models", "table_exactness"],
    ["plot_heads_map", "plot_cards", "plot_spectra", "plot_factors_map", "plot_effects"],
    ["plot_cards", "plot_names"],
    ["plot_effects", "table_effects", "plot_ablation", "table_accuracy"],
    ["plot_recovery", "table_recovery"],
    ["plot_names", "table_names", "table_labels"],
    ["plot_retrieval_map", "table_retrieval", "plot_heads_map", "plot_factors_map"],
    ["plot_stability", "table_stability"],
    ["plot_transfer", "table_transfer"],
    ["plot_segmentation", "plot_segmentation_parts", "table_segmentation"],
    [
        *("plot_intervention", "plot_intervention_values", "table_interventions"),
        *("table_intervention_values", "table_edited_models"),
    ],
    ["plot_comparison_map", "plot_comparison_cards", "table_comparisons"],
    ["paper", "explorer"],
]


def write_bare_report(target, stylesheet, log):
    """Have Snakemake write its report of what `all` makes, with this run's config; its words go into a log."""
    settings = workflow.config_settings
    command = [PYTHON, "-m", "snakemake", "--nolock", "--profile", "none", "--workflow-profile", "none"]
    command += ["--snakefile", workflow.main_snakefile, "--report", target, "--report-stylesheet", stylesheet]
    if settings.configfiles:
        command += ["--configfile", *settings.configfiles]
    if settings.config_args:
        command += ["--config", *settings.config_args]
    command += storage_options()
    with open(log, "w") as file:
        subprocess.run([*command, "--", "all"], stdout=file, stderr=subprocess.STDOUT, check=True)


def results_to_open():
    """What a successful run prints at its end."""
    if workflow.storage_settings.default_storage_provider:
        return f"Done. The results are in {workflow.storage_settings.default_storage_prefix}."
    places = {
        "results/paper.pdf": "the paper",
        "results/explorer/index.html": "the explorer: open it in a browser",
        "results/report.zip": "the report: unzip it, and open report/report.html in a browser",
        "results/figures/": "all figures",
        "results/tables/": "all tables",
    }
    return "\n  ".join(
        ["Done. The results:", *(f"{path}  {what}" for path, what in places.items() if Path(path).exists())]
    )
