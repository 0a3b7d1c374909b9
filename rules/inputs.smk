# Input functions: what jobs read of other jobs' results, for entries of the config; no rules here.
def training_start(wildcards):
    """The checkpoint that a demo model's training continues, if any."""
    start = config["demo_training"][wildcards.checkpoint]["start"]
    return f"results/demo_models/{start}.safetensors" if start else []


# The reference implementation's names of methods, for exports.
ALGORITHMS = {"svd_data_approx": "components", "text_span": "textspan"}


def exported_explanation(ending):
    """A file of the explanation that an export's algorithm stands for, as a function of the wildcards."""
    return lambda wildcards: expand(explanation_files([ALGORITHMS[wildcards.algorithm]], ending), **wildcards)[0]


def factor_phrases(wildcards):
    """{factor: {value: phrases}} of a dataset, as far as the config has them."""
    factors = DATASETS[wildcards.dataset]["factors"]
    return factors if isinstance(factors, dict) else {factor: {} for factor in factors}


FIRST_TEXTS = next(iter(TEXTS))


def retrieval_files(wildcards):
    """What retrieval is scored by besides the activations: components with the names of the first text pool, classes."""
    files = component_files({"dataset": wildcards.dataset, "texts": FIRST_TEXTS}, wildcards.model, wildcards.seed)
    files = {name: files[name] for name in ("components", "names")}
    if wildcards.dataset in CLASSED_DATASETS:
        files["classes"] = f"results/text/{wildcards.model}/classes-{wildcards.dataset}.safetensors"
    return files


def spatial_file(wildcards):
    """The user's picture that texts are mapped on."""
    key = f"spatial.{wildcards.spatial}.image"
    return {"image": existing(request(wildcards)["image"], key)}


TOPICS = [name for name, entry in config["queries"].items() if "topics" in entry]
QUERIES = [name for name in config["queries"] if name not in TOPICS]
PICTURE_NEIGHBOURS = [name for name, entry in config["neighbours"].items() if "image" in entry]


def component_files(entry, model, seed):
    """What is read of a dataset's images and components for an entry of the config, by the names that scripts use."""
    dataset, texts = entry["dataset"], entry["texts"]
    folder = f"results/explanations/{model}/{dataset}/seed-{seed}/{texts}"
    return {
        "shards": shards_of({"model": model, "dataset": dataset}),
        "basis": f"results/activations/{model}/basis.safetensors",
        "images": IMAGES.format(dataset=dataset, seed=seed),
        **if_moments(moments=MOMENTS.format(model=model, dataset=dataset, seed=seed)),
        "components": f"{folder}/components.safetensors",
        "names": f"{folder}/components.parquet",
        "texts": f"results/text/{model}/{texts}.safetensors",
    }


def requested_components(wildcards):
    """component_files of a job's request, of the first seed."""
    return component_files(request(wildcards), model_name(wildcards), SEEDS[0])


def requested_images(wildcards):
    """The tables of a request's images, of the first seed."""
    dataset = request(wildcards)["dataset"]
    return {
        "chosen": IMAGES.format(dataset=dataset, seed=SEEDS[0]),
        "manifest": local(f"results/data/{dataset}/manifest.csv"),
    }


def query_files(wildcards):
    """The file that a query, or a neighbours' entry, names: topics, a picture, or the manifest that has it."""
    kind, entry = request_kind(wildcards), request(wildcards)
    if "topics" in entry:
        key = f"{kind}.{wildcards[kind]}.topics"
        return {"topics": existing(entry["topics"], key)}
    if "image" in entry:
        path = locate(entry["image"])
        own = DATASETS[entry["dataset"]].get("manifest")
        if own and not Path(path).is_file():  # as the user's own manifest names it
            path = os.path.join(os.path.dirname(locate(own)), entry["image"])
        if Path(path).is_file():
            return {"image": local(path)}
        return {"manifest": local(f"results/data/{entry['dataset']}/manifest.csv")}
    return {}


def concept_texts(wildcards):
    """All texts of the concepts of an intervention's edits, and of its controls, in order."""
    entry = INTERVENTIONS[wildcards["intervention"]]
    concepts = [edit.get("concept", []) for edit in entry["edits"]]
    return [text for texts in (*concepts, *entry["controls"].values()) for text in texts]


def embedded_content(entry):
    """What a query, or a neighbours' entry, has embedded: a file of texts, a picture, or texts."""
    if "topics" in entry:
        return "topics", entry["topics"]
    return ("image", entry["image"], entry["dataset"]) if "image" in entry else ("texts", entry["text"])


# {(model, what is embedded): file}: what several entries of the config name is embedded once, for the first of them.
EMBEDDED = {}
for kind, names in (("queries", config["queries"]), ("neighbours", PICTURE_NEIGHBOURS)):
    for name in names:
        entry = config[kind][name]
        EMBEDDED.setdefault((entry["model"], embedded_content(entry)), f"results/{kind}/{name}/query.safetensors")
for name, entry in INTERVENTIONS.items():
    for model in entry["models"]:
        content = ("texts", *concept_texts({"intervention": name}))
        EMBEDDED.setdefault((model, content), f"results/text/{model}/concepts-{name}.safetensors")


def embedded_query(wildcards):
    """The embedded text, texts or picture of a query, or of the neighbours of a picture; none for other neighbours."""
    entry = request(wildcards)
    if "neighbours" in wildcards.keys() and "image" not in entry:
        return []
    return EMBEDDED[entry["model"], embedded_content(entry)]


def intervention_entry(wildcards):
    """What the outcome of an intervention depends on: not its other models, nor what it is about."""
    entry = INTERVENTIONS[wildcards.intervention]
    return {key: value for key, value in entry.items() if key not in ("models", "about", "live")}


def intervention_files(wildcards):
    """What an intervention is computed from."""
    name, model = wildcards.intervention, wildcards.model
    entry = INTERVENTIONS[name]
    files = component_files(entry, model, wildcards.seed) | {
        "classes": f"results/text/{model}/classes-{entry['dataset']}.safetensors",
        "manifest": local(f"results/data/{entry['dataset']}/manifest.csv"),
    }
    if concept_texts(wildcards):
        files["concepts"] = EMBEDDED[model, ("texts", *concept_texts(wildcards))]
    return files


# Interventions that are made in the model itself, too.
LIVE = [name for name, entry in INTERVENTIONS.items() if entry["live"]]


def foldable_edit(wildcards):
    """The edit of the first seed, to be folded into weights; refused where the config alone tells that it cannot be."""
    name, model = wildcards.intervention, wildcards.model
    edits = INTERVENTIONS[name]["edits"]
    if any("mlps" in edit for edit in edits):
        raise WorkflowError(
            f"Config, interventions.{name}: an edit of MLPs cannot be folded into weights, since each token would need a "
            "mean of its own; leave it out, or use edit.safetensors in the running model."
        )
    if all(edit["do"] == "amplify" and edit["by"] == 1 for edit in edits):
        raise WorkflowError(
            f"Config, interventions.{name}: amplifying by 1 changes nothing, so there is nothing to fold."
        )
    return f"results/interventions/{name}/{model}/seed-{SEEDS[0]}/edit.safetensors"


INTERVENTION_TABLES = expand(
    "results/tables/{table}.csv",
    table=["interventions", "intervention-values", *["edited-models"] * bool(LIVE)] if INTERVENTIONS else [],
)


def interventions_by_model(pattern, names=INTERVENTIONS, **wildcards):
    """A pattern's files for every intervention and each of its models."""
    return [
        path
        for name in names
        for path in expand(pattern, intervention=name, model=INTERVENTIONS[name]["models"], **wildcards)
    ]


# --- Notebooks


# The dataset that each notebook opens: the first one with components; where accuracy is measured, with classes too.
NOTEBOOK_DATASETS = {"look": EXPLAINED_DATASETS, "where": EXPLAINED_DATASETS, "change": CLASSED_DATASETS}
NOTEBOOK_DATASETS = {name: datasets[0] for name, datasets in NOTEBOOK_DATASETS.items() if datasets}
NOTEBOOK_MODEL = next(iter(MODELS))


def notebook_outputs(wildcards):
    """What all notebooks save, as far as the config has a dataset for them."""
    if not NOTEBOOK_DATASETS:
        raise WorkflowError(
            "There is nothing to open in notebooks: no dataset has images with the role fit, which components come "
            "from. Give one a role fit in the config."
        )
    return expand("results/notebooks/{notebook}.png", notebook=NOTEBOOK_DATASETS)


def notebook_files(wildcards):
    """What a notebook reads, itself included: it opens results by the names of the model and the dataset."""
    check_opened_by_name()
    name, dataset, texts = wildcards.notebook, NOTEBOOK_DATASETS[wildcards.notebook], next(iter(TEXTS))
    run = f"{NOTEBOOK_MODEL}/{dataset}/seed-{SEEDS[0]}"
    files = component_files({"dataset": dataset, "texts": texts}, NOTEBOOK_MODEL, SEEDS[0])
    files |= files_of_model(NOTEBOOK_MODEL) | {"manifest": local(f"results/data/{dataset}/manifest.csv")}
    files |= {"notebook": local(str(REPOSITORY / "notebooks" / f"{name}.ipynb")), "config": "results/config.json"}
    if name == "look":
        files |= {"loaded": "results/tables/loaded-models.csv", "cards": f"results/figures/{run}/{texts}/cards.png"}
        files |= {"factors": f"results/evaluation/{run}/{texts}/factors.csv"}
    if name == "change":
        files["classes"] = f"results/text/{NOTEBOOK_MODEL}/classes-{dataset}.safetensors"
    return files
