# Helpers of the rules for queries, neighbours and interventions; no rules here.
TOPICS = [name for name, entry in config["queries"].items() if "topics" in entry]
QUERIES = [name for name in config["queries"] if name not in TOPICS]
PICTURED = [name for name, entry in config["neighbours"].items() if "image" in entry]
INTERVENTIONS = config["interventions"]
# Those that have units to count, in their last edit.
COUNTED = [
    name
    for name, entry in INTERVENTIONS.items()
    if {"heads", "components", "concept"} & set(entry["edits"][-1])
]


def check_known(key, names, known, what):
    """Names under a key of the config exist."""
    for name in names:
        if name not in known:
            raise WorkflowError(
                f"Config, {key}: there is no {what} '{name}'; there is {', '.join(known) or 'none'}."
            )


for kind in (*ASKED, "interventions"):
    for name, entry in config[kind].items():
        if kind == "interventions":
            entry.setdefault("models", list(MODELS))
        models = entry["models"] if "models" in entry else [entry["model"]]
        key = f"{kind}.{name}.{'models' if kind == 'interventions' else 'model'}"
        check_known(key, models, MODELS, "model")
        if kind != "spatial":
            entry.setdefault("texts", next(iter(TEXTS)))
            check_known(f"{kind}.{name}.texts", [entry["texts"]], TEXTS, "text pool")
            explained = (
                [entry["dataset"]],
                EXPLAINED_DATASETS,
                "dataset with fit images",
            )
            check_known(f"{kind}.{name}.dataset", *explained)


for name, entry in INTERVENTIONS.items():
    prompts = DATASETS[entry["dataset"]]["prompts"]
    check_known(f"interventions.{name}.about", entry["about"], prompts, "prompt")
    for number, edit in enumerate(entry["edits"]):
        key = f"Config, interventions.{name}.edits.{number}"
        if edit["do"] == "keep" and not {"heads", "components", "concept"} & set(edit):
            raise WorkflowError(
                f"{key}: 'keep' goes with heads, components or a concept; hold the MLPs with 'remove'."
            )
        if not 0 < edit["by"] < 1000:
            raise WorkflowError(
                f"{key}.by: {edit['by']} is no factor between 0 and 1000."
            )


def components_of(entry, model, seed):
    """What is read of a dataset's images and components for an entry of the config, by the names that scripts use."""
    of_seed = f"{model}/{entry['dataset']}/seed-{seed}"
    return {
        "shards": shards_of(
            {"model": model, "dataset": entry["dataset"], "seed": seed}
        ),
        "basis": f"results/activations/{model}/basis.safetensors",
        "images": f"results/data/{entry['dataset']}/seed-{seed}/images.csv",
        "components": f"results/explanations/{of_seed}/{entry['texts']}/components.safetensors",
        "names": f"results/explanations/{of_seed}/{entry['texts']}/components.parquet",
        "texts": f"results/text/{model}/{entry['texts']}.safetensors",
    }


def components_asked(wildcards):
    """The same for the entry that a job is about, of the first seed."""
    return components_of(asked(wildcards), model_of(wildcards), SEEDS[0])


def query_files(wildcards):
    """The file that a query, or a neighbours' entry, asks about: topics, a picture, or the manifest that names it."""
    kind, entry = kind_asked(wildcards), asked(wildcards)
    key = f"{kind}.{wildcards[kind]}"
    if "topics" in entry:
        return {"topics": existing(entry["topics"], f"{key}.topics")}
    if "image" in entry:
        path = found(entry["image"])
        own = DATASETS[entry["dataset"]].get("manifest")
        if own and not Path(path).is_file():  # as the user's own manifest names it
            path = os.path.join(os.path.dirname(found(own)), entry["image"])
        if Path(path).is_file():
            return {"image": path}
        return {"manifest": f"results/data/{entry['dataset']}/manifest.csv"}
    return {}


def concepts_of(edits):
    """All texts of the concepts of an intervention's edits, in order."""
    return [text for edit in edits for text in edit.get("concept", [])]


def intervention_files(wildcards):
    """What an intervention is worked out from."""
    entry = INTERVENTIONS[wildcards.intervention]
    files = components_of(entry, wildcards.model, wildcards.seed)
    files["classes"] = (
        f"results/text/{wildcards.model}/classes-{entry['dataset']}.safetensors"
    )
    files["manifest"] = f"results/data/{entry['dataset']}/manifest.csv"
    if concepts_of(entry["edits"]):
        place = f"{wildcards.intervention}/{wildcards.model}"
        files["concepts"] = f"results/interventions/{place}/concepts.safetensors"
    return files


DONE = {
    "keep": "kept",
    "remove": "removed",
    "amplify": "amplified",
    "invert": "inverted",
}


def query_said(wildcards):
    """What a query asks, in words for a title."""
    entry = asked(wildcards)
    said = entry["text"] if "text" in entry else Path(entry["image"]).name
    return f"'{said if len(said) < 60 else said[:58] + ' …'}'"


def neighbours_said(wildcards):
    """What a sheet of neighbours shows, in words for a title."""
    entry = asked(wildcards)
    place = f"head {entry.get('head')} of layer {entry.get('layer')}"
    if "component" in entry:
        place = f"component {entry['component']} of {place}"
    if "image" not in entry:
        return f"The ends of {place} of {entry['model']}"
    seen = place if "layer" in entry else "the whole embedding"
    return f"Nearest to '{Path(entry['image']).name}' by {seen} of {entry['model']}"


def scores_said(wildcards):
    """What the scores of a sheet of neighbours are, in words for the small print."""
    entry = asked(wildcards)
    if "component" in entry:
        itself = "; black frame: the picture itself" if "image" in entry else ""
        return f"\nprojections on the component{itself}"
    return "\ncosines with the picture about the mean image; texts: projections on it"


def edit_said(wildcards):
    """Of an intervention's last edit: its units, these with what was done to them, and the rule for their number."""
    edit = INTERVENTIONS[wildcards.intervention]["edits"][-1]
    units = "heads" if "heads" in edit else "components"
    if "concept" not in edit:
        return units, f"{units} {DONE[edit['do']]}", ""
    picked = f"{100 * edit['share']:g} % of the {edit['rank_by']}"
    what = f"the concept's {units} {DONE[edit['do']]}"
    return units, what, picked if edit["number"] is None else ""


def interventions_by_model(pattern, names=INTERVENTIONS, **wildcards):
    """A pattern's files for every intervention and each of its models."""
    return [
        path
        for name in names
        for path in expand(
            pattern,
            intervention=name,
            model=INTERVENTIONS[name]["models"],
            **wildcards,
        )
    ]
