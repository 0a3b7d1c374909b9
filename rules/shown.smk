# The figures that a run makes, and the paper that shows them; no rules here.
import tomllib

from clipspectra.explanations.catalogue import METHODS as METHOD_NAMES
from clipspectra.explanations.catalogue import NAMES as NAMING_NAMES

FIGURE_SEED = SEEDS[0]
# Interventions that have units to count, in their last edit.
COUNTED = [
    name for name, entry in INTERVENTIONS.items() if {"heads", "components", "concept"} & set(entry["edits"][-1])
]


def shown(kind, file, **wildcards):
    """Figures of a kind, one for each combination of the wildcards' values: their kind, values and file without ending."""
    combinations = (dict(zip(wildcards, values)) for values in itertools.product(*wildcards.values()))
    return [{"kind": kind, **values, "file": file.format(**values)} for values in combinations]


def shown_interventions(kind, file, names=INTERVENTIONS):
    """Figures of a kind, one for each intervention and each of its models."""
    return [
        figure
        for name in names
        for figure in shown(
            kind,
            file,
            intervention=[name],
            model=INTERVENTIONS[name]["models"],
            dataset=[INTERVENTIONS[name]["dataset"]],
        )
    ]


def shown_transfers(kind, file):
    """Figures of a kind, one for each transfer and each of its models; their dataset is the one that is scored."""
    return [
        figure
        for name, entry in TRANSFERS.items()
        for figure in shown(kind, file, transfer=[name], model=entry["models"], dataset=[entry["to"]])
    ]


def shown_comparisons(kind, file):
    """Figures of a kind, one for each comparison."""
    return [
        figure
        for name, entry in COMPARISONS.items()
        for figure in shown(kind, file, comparison=[name], model=entry["models"][:1], dataset=[entry["dataset"]])
    ]


RUN = {"model": MODELS, "dataset": EXPLAINED_DATASETS, "seed": [FIGURE_SEED], "texts": TEXTS}
EXPLAINED = {key: RUN[key] for key in ("model", "dataset", "texts")}
SEGMENTED = {"model": MODELS, "dataset": MASKED_DATASETS, "seed": [FIGURE_SEED]}
CLASSED = {"model": MODELS, "dataset": CLASSED_DATASETS}
# Files are below results/figures, without ending.
FIGURES = [
    *shown("contact-sheet", "{dataset}/contact-sheet-seed-{seed}", dataset=DATASETS, seed=[FIGURE_SEED]),
    *shown("ablation", "{model}/{dataset}/ablation", **CLASSED),
    *shown("effects", "{model}/{dataset}/effects", **CLASSED),
    *shown("heads-map", "{model}/{dataset}/seed-{seed}/{texts}/heads-map", **RUN),
    *shown("spectra", "{model}/{dataset}/seed-{seed}/{texts}/spectra", **RUN),
    *shown("factors-map", "{model}/{dataset}/seed-{seed}/{texts}/factors-map", **{**RUN, "dataset": FACTORED_DATASETS}),
    *shown("cards", "{model}/{dataset}/seed-{seed}/{texts}/cards", **RUN),
    *shown("recovery", "{model}/{dataset}/{texts}/recovery", **CLASSED, texts=TEXTS),
    *shown("names", "{model}/{dataset}/{texts}/names", **EXPLAINED),
    *shown("stability", "{model}/{dataset}/{texts}/stability", **EXPLAINED),
    *shown("retrieval-map", "{model}/{dataset}/retrieval-map", model=MODELS, dataset=KNOWN_DATASETS),
    *shown("segmentation", "{model}/{dataset}/seed-{seed}/segmentation", **SEGMENTED),
    *shown("segmentation-parts", "{model}/{dataset}/seed-{seed}/segmentation-parts", **SEGMENTED),
    *shown("spatial", "spatial/{spatial}", spatial=config["spatial"]),
    *shown("query", "queries/{queries}", queries=QUERIES),
    *shown("neighbours", "neighbours/{neighbours}", neighbours=config["neighbours"]),
    *shown_interventions("intervention", "interventions/{intervention}/{model}", COUNTED),
    *shown_interventions("intervention-values", "interventions/{intervention}/{model}-values"),
    *shown_transfers("transfer", "transfer/{transfer}/{model}"),
    *shown_comparisons("comparison-map", "comparisons/{comparison}/heads-map"),
    *shown_comparisons("comparison-cards", "comparisons/{comparison}/cards"),
]


# What the description of a study says of it, beside what its tables hold.
STUDY = {
    "version": tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"],
    "commit": commit_of(REPOSITORY),
    "seeds": SEEDS,
    "protocol": config["protocol"],
    "sample": config["activations"]["sample"] if KEEPS_MOMENTS else None,
    "models": {
        name: {key: Path(value).name if is_path(value) else value for key, value in source.items()}
        for name, model in MODELS.items()
        for source in [{"tag": model["architecture"], "pretrained": model.get("pretrained") or ""}]
    },
    "datasets": [
        {
            "name": name,
            "kind": next(kind for kind in SOURCE_KINDS if kind in dataset),
            "factors": list(dataset["factors"]),
            "masks": dataset["masks"],
        }
        for name, dataset in DATASETS.items()
    ],
    "methods": {name: METHOD_NAMES[name] for name in EXPLAINING_METHODS},
    "naming": config["explanations"]["naming"],
    "namings": NAMING_NAMES,
    "figures": FIGURES,
}


WITHOUT_LATEX = ("loaded-models", "shared-images", "exactness", "texts", "effects")


def in_latex(path):
    """The name of a table's version for LaTeX; path: of the CSV file, or of a bucket's copy of it."""
    return f"results/{Path(path).parent.name}/{Path(path).stem}.tex"


def paper_files():
    """The source of the paper: the folder paper/ in the working directory if there is one, else the one that comes with this."""
    return [local(str(path)) for path in visible_files(Path(locate("paper/paper.typ")).parent)]
