# What the explorer shows, and the files that it is made of; no rules here.
EXPLORER = config["explorer"]
EXPLORED_MODELS = [name for name in MODELS if name in EXPLORER.get("models", MODELS)]
EXPLORED_DATASETS = [name for name in EXPLAINED_DATASETS if name in EXPLORER.get("datasets", DATASETS)]
RUNS = [
    dict(zip(("model", "dataset", "seed", "texts"), run))
    for run in itertools.product(EXPLORED_MODELS, EXPLORED_DATASETS, SEEDS, TEXTS)
]
# What a run's part of the page is made into.
RUN_PART = "results/explorer-parts/runs/{model}/{dataset}/seed-{seed}/{texts}"


def explored_files(wildcards):
    """What a run's part of the explorer is made of where it is there: another seed, classes, masks, own pictures."""
    files = {}
    if len(SEEDS) > 1:
        path = explanation_files(["components"], ".safetensors")
        files["next_components"] = expand(path, **{**wildcards, "seed": next_seed(wildcards)})[0]
    if wildcards.dataset in CLASSED_DATASETS:
        folder = expand("results/evaluation/{model}/{dataset}/seed-{seed}", **wildcards)[0]
        files |= {"effects": f"{folder}/effects.csv", "recovery": f"{folder}/{wildcards.texts}/recovery.csv"}
    if wildcards.dataset in MASKED_DATASETS:
        folder = expand("results/segmentation/{model}/{dataset}/seed-{seed}", **wildcards)[0]
        files |= {"examples": f"{folder}/examples.safetensors", "parts": f"{folder}/parts.csv"}
    if OWN_PICTURES:
        files["own"] = f"results/explorer-parts/own-pictures/{wildcards.model}.safetensors"
    return files


def run_parts(wildcards):
    """The parts of all runs that the explorer shows."""
    if not RUNS:
        raise WorkflowError(
            "There is nothing to explore: no dataset has images with the role fit, which components come from. Give one "
            "a role fit in the config."
        )
    return [expand(RUN_PART, **run)[0] for run in RUNS]


def not_explored():
    """Sentences about the models and datasets of the config that the explorer leaves out, and how to have them."""
    sentences = [
        f"The {kind} {name} is not in this explorer, because explorer.{kind}s leaves it out. Name it there, and run: "
        "snakemake --cores all explorer"
        for kind, names in (("model", MODELS), ("dataset", DATASETS))
        for name in names
        if name not in EXPLORER.get(f"{kind}s", names)
    ]
    return sentences + [
        f"The dataset {name} has no components, because no image has the role fit. Give it one, and run: "
        "snakemake --cores all explorer"
        for name in DATASETS
        if name not in EXPLAINED_DATASETS
    ]


def own_pictures():
    """{what the explorer calls it: path} of one's own pictures: their names, with as many folders as tell them apart."""
    paths = [existing(path, f"explorer.pictures.{number}") for number, path in enumerate(EXPLORER["pictures"])]
    whole = [os.path.realpath(path) for path in paths]
    for path in paths:
        if Path(path).is_dir():
            raise WorkflowError(f"Config, explorer.pictures: {path} is a folder; name the pictures in it one by one.")
        if whole.count(os.path.realpath(path)) > 1:
            raise WorkflowError(f"Config, explorer.pictures: {path} is named twice; name it once.")
    for parts in itertools.count(1):
        names = ["/".join(Path(path).parts[-parts:]) for path in whole]
        if len(set(names)) == len(names):
            return dict(zip(names, paths))


def page_files():
    """The page's own files, as inputs: an edit is noticed."""
    folder = REPOSITORY / "explorer"
    files = [*folder.glob("*.html"), *folder.glob("*.css"), *folder.glob("app/*.js"), *folder.glob("vendor/*.js")]
    return [local(str(path)) for path in sorted(files)]


def explorer_entries():
    """The config's interventions, queries, neighbours and maps of texts on what is explored, with their files."""
    entries = []
    for name, entry in INTERVENTIONS.items():
        about = {"kind": "interventions", "name": name, "dataset": entry["dataset"], "texts": entry["texts"]}
        for model in entry["models"]:
            folder = f"results/interventions/{name}/{model}"
            files = {
                str(seed): {name: f"{folder}/seed-{seed}/{name}.csv" for name in ("curve", "units", "summary")}
                for seed in SEEDS
            }
            edits = [edit_sentence(edit) for edit in entry["edits"]]
            entries.append(about | {"model": model, "edits": edits, "seed": str(SEEDS[0]), "files": files})
    for kind in ("queries", "neighbours"):
        for name, entry in config[kind].items():
            keys = ("text", "image", "layer", "head", "component", "model", "dataset", "texts")
            about = {"name": name, "seed": str(SEEDS[0]), **{key: entry[key] for key in keys if key in entry}}
            about |= {"image": Path(entry["image"]).name} if "image" in entry else {}
            files = {"table": f"results/{kind}/{name}.csv"}
            if "image" in entry:
                files["query"] = EMBEDDED[entry["model"], embedded_content(entry)]
            if kind == "queries" and "topics" not in entry:
                files["images"] = f"results/queries/{name}/images.csv"
            entries.append(about | {"kind": "topics" if "topics" in entry else kind, "files": files})
    for name, entry in config["spatial"].items():
        files = {"maps": f"results/spatial/{name}.safetensors"}
        entries.append({"kind": "spatial", "name": name, "model": entry["model"], "files": files})
    explored = {*EXPLORED_DATASETS, None}  # maps of texts are of no dataset
    return [entry for entry in entries if entry["model"] in EXPLORED_MODELS and entry.get("dataset") in explored]


def edit_sentence(edit):
    """An edit of an intervention in words."""
    what = [f"{key.replace('_', ' ')} {edit[key]}" for key in ("all_but_last", "heads", "components") if key in edit]
    what += ["the MLPs"] if edit.get("mlps") else []
    what += ["what carries " + ", ".join(f"“{text}”" for text in edit["concept"])] if "concept" in edit else []
    what += [f"ranked by {edit['rank_by']}"] if "rank_by" in edit else []
    times = f" × {edit['by']}" if edit["do"] == "amplify" else ""
    return f"{edit['do']}{times}: {'; '.join(what)}"


def entry_paths(entry):
    """All files of an entry of the explorer."""
    return [
        path for value in entry["files"].values() for path in (value.values() if isinstance(value, dict) else [value])
    ]


OWN_PICTURES = own_pictures()
EXPLORED_ENTRIES = explorer_entries()
