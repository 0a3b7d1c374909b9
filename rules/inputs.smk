# Input functions: what jobs read of the user's files and of other jobs' results; no rules here.
ARCHIVE_KINDS = (
    *("imagenet", "imagenet_segmentation", "pascal_voc", "waterbirds"),
    *("cifar10", "cifar100"),
)
SOURCE_KINDS = ("demo", "folder", "manifest", "webdataset", *ARCHIVE_KINDS)


def archive_entries(dataset):
    """(kind of source, {name: its entry in the config}) of a dataset that comes in archives."""
    kind = next(kind for kind in ARCHIVE_KINDS if kind in DATASETS[dataset])
    return kind, DATASETS[dataset][kind]


def expected_digest(entry):
    """The digest that an archive, or a text pool, must have: {"md5": hex}, {"sha256": hex} or {}."""
    return {kind: entry[kind] for kind in ("md5", "sha256") if kind in entry}


# What is fetched, by the name it is kept under.
DOWNLOADS = {
    entry["url"].rsplit("/", 1)[-1]: entry
    for dataset in ARCHIVED_DATASETS
    for entry in archive_entries(dataset)[1].values()
    if "path" not in entry
}


def archive_files(wildcards):
    """The archives of a dataset: what is fetched, and the user's own files as far as they are there."""
    entries = archive_entries(wildcards.dataset)[1]
    own = {name: locate(entry["path"]) for name, entry in entries.items() if "path" in entry}
    fetched = {
        name: local(f"results/data/archives/{entry['url'].rsplit('/', 1)[-1]}")
        for name, entry in entries.items()
        if name not in own
    }
    return fetched | {name: path for name, path in own.items() if Path(path).exists()}


def missing_archives(wildcards):
    """{key of the config: path} of the user's archives that are not there: reported by the job, so that dry runs still work."""
    kind, entries = archive_entries(wildcards.dataset)
    return {
        f"datasets.{wildcards.dataset}.{kind}.{name}.path": entry["path"]
        for name, entry in entries.items()
        if "path" in entry and not Path(locate(entry["path"])).exists()
    }


# {dataset: {name: tar file}}, checked before anything runs.
TARS = {}
for name in TAR_DATASETS:
    try:
        TARS[name] = {tar.name: tar for tar in tar_files(DATASETS[name]["webdataset"]["shards"])}
    except InputError as error:
        raise WorkflowError(f"Config, datasets.{name}.webdataset.shards: {error}.") from None


@functools.cache
def tar_digests(dataset):
    """{name of a tar file: the digest it must have, see expected_digest}, from the config or the file that it names."""
    sums, key = DATASETS[dataset]["webdataset"].get("sha256", {}), f"datasets.{dataset}.webdataset.sha256"
    try:
        sums = sums if isinstance(sums, dict) else read_sums(existing(sums, key))
        return {name: expected_sum(tar, sums) for name, tar in TARS[dataset].items()}
    except InputError as error:
        raise WorkflowError(f"Config, {key}: {error}.") from None


@functools.cache
def located_tars(dataset):
    """The tar files of a dataset, in order, with the paths where they are, or will be once they are fetched."""
    folder = f"results/data/archives/{dataset}"
    return [
        tar._replace(place=f"{folder}/{tar.name}" if tar.is_remote else str(locate(tar.place)))
        for tar in TARS[dataset].values()
    ]


def tar_inputs(wildcards):
    """The tar files of a dataset that are fetched, and the file of its classes. The user's own may not be there yet."""
    tars = zip(TARS[wildcards.dataset].values(), located_tars(wildcards.dataset))
    files = {"fetched": [local(located.place) for tar, located in tars if tar.is_remote]}
    if classes := DATASETS[wildcards.dataset]["webdataset"].get("classes"):
        files["classes"] = existing(classes, f"datasets.{wildcards.dataset}.webdataset.classes")
    return files


def sample_options(wildcards):
    """Which files of a sample are its picture and mask, and what is read of its .json."""
    source = DATASETS[wildcards.dataset]["webdataset"]
    return {key: source[key] for key in ("image", "mask", "columns") if key in source}


def own_manifest_file(wildcards):
    """The user's manifest as an input: an edit is noticed."""
    manifest = DATASETS[wildcards.dataset].get("manifest")
    key = f"datasets.{wildcards.dataset}.manifest"
    return {"own": existing(manifest, key)} if manifest else {}


def files_in(folder):
    """The files of a dataset's folder; empty if it cannot be read, which the job that reads it reports."""
    try:
        return visible_files(folder)
    except OSError:
        return []


def folder_digest(wildcards):
    """Digest of the names in a dataset's folder: an added or removed picture is noticed."""
    folder = DATASETS[wildcards.dataset].get("folder")
    names = map(os.fsencode, files_in(folder)) if folder else []
    return hashlib.sha256(b"\n".join(names)).hexdigest()[:12]


@functools.cache
def pictures_stamp(dataset, column="image"):
    """Stamp of the images, or masks, of a dataset of one's own: one that is replaced under its old name is noticed."""
    source = DATASETS[dataset]
    if "webdataset" in source:
        return stamp(tar.place for tar in located_tars(dataset) if not tar.place.startswith("results/"))
    if "folder" in source:
        return stamp(files_in(source["folder"]) if column == "image" else [])
    return stamp(manifest_files(locate(source["manifest"]), column) if "manifest" in source else [])


def pool_file(wildcards):
    """The file of a text pool, the user's or downloaded; the demo's pool has none."""
    pool = TEXTS[wildcards.texts]
    if "url" in pool:
        return {"pool": local(f"results/data/texts/{wildcards.texts}.txt")}
    key = f"texts.{wildcards.texts}"
    if "generated" in pool:
        words = "config/words.yaml" if pool["generated"] is True else pool["generated"]
        return {"words": existing(words, f"{key}.generated")}
    return {"pool": existing(pool["file"], f"{key}.file")} if "file" in pool else {}


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
