# What jobs ask a cluster for, worked out from the model, the images and the texts; no rules here.
# How the numbers compare with what jobs took is in docs/cluster.md.
from clipspectra.towers.sizes import model_size

# (images, classes) of the datasets that come in archives.
KNOWN_SIZES = {
    "imagenet": (50_000, 1000),
    "imagenet_segmentation": (4_276, 445),
    "pascal_voc": (2_913, 20),
    "waterbirds": (11_788, 2),
    "cifar10": (60_000, 10),
    "cifar100": (60_000, 100),
}
UNKNOWN_IMAGES, UNKNOWN_TEXTS = 100_000, 20_000
IN_A_TAR = 10_000  # images, img2dataset's own choice
START = 700  # MB of the two Snakemakes around a job's work, and of Python with numpy
TORCH = 1000  # MB of torch and open_clip
TABLE = 1.1e-3  # MB of an image's row in the tables of images
TABLE_ROWS = 100_000  # of a table of images in memory at a time, where jobs read it by pieces
CORE_SPEED, GPU_SPEED = 20e9, 2e12  # operations a second: a third of a core's, a sixth of an A100's


# --- How much there is to do


@functools.cache
def images_in(dataset):
    """At most how many images of a dataset the jobs of all seeds use."""
    source = DATASETS[dataset]
    kind = next((kind for kind in SOURCE_KINDS if kind in source), None)
    images, classes = KNOWN_SIZES.get(kind, (UNKNOWN_IMAGES, None))
    if kind == "demo":
        images = source["demo"]["images"] + source["demo"]["validation"]
        images += 2 * source["demo"]["pairs"] * len(source["factors"])
    elif kind == "folder":
        names = [path.relative_to(source["folder"]).parts[0] for path in files_in(source["folder"])]
        images, classes = len(names), len(set(names))
    elif kind == "manifest":
        images = len(manifest_names(locate(source["manifest"]), "image")) or images
    elif kind == "webdataset":
        images = IN_A_TAR * len(TARS[dataset])
    drawn = [role["per_class"] for role in source["roles"].values()]
    if classes and "all" not in drawn and not source["pairs"]:
        images = min(images, classes * sum(drawn) * len(SEEDS))
    return images


@functools.cache
def texts_in(pool):
    """About how many texts a pool has, as a bound: by the lines of its file, where it is there."""
    if TEXTS[pool].get("demo"):
        return 5_000
    path = Path(locate(TEXTS[pool].get("file", "")))
    if not path.is_file() or path.suffix == ".parquet":
        return UNKNOWN_TEXTS
    with path.open("rb") as file:
        return sum(1 for _ in file)


@functools.cache
def size_of_model(name):
    """Size of a model of the config; files that are not there are for the job that reads them to report."""
    try:
        files = files_of_model(name)
    except WorkflowError:
        files = {"beside": []}
    weights = [path for path in [files.get("pretrained"), *files["beside"]] if path and is_weights(path)]
    return model_size(str(files.get("architecture", ALL_MODELS[name]["architecture"])), weights)


def is_weights(path):
    """Whether a file holds a model's weights, by its name; one that a rule has yet to make does not count."""
    return Path(path).suffix in MODEL_ENDINGS[1:] and Path(path).is_file()


def entry_of(wildcards):
    """The entry of the config that a job works on, with what its wildcards say."""
    kinds = {"intervention": INTERVENTIONS, "transfer": TRANSFERS, "comparison": COMPARISONS}
    kinds |= {kind: config[kind] for kind in REQUESTS}
    return next((entries[wildcards[kind]] for kind, entries in kinds.items() if kind in wildcards.keys()), {}) | dict(
        wildcards.items()
    )


def sizes(wildcards):
    """(size of a job's model, images, texts): of the largest model, and of all datasets and pools, where it has several."""
    entry = entry_of(wildcards)
    models = entry["models"] if "comparison" in entry else [entry.get("model", next(iter(MODELS)))]
    datasets = [entry[key] for key in ("dataset", "from", "to") if key in entry]
    pool = entry["texts"] if isinstance(entry.get("texts"), str) else FIRST_TEXTS
    largest = max((size_of_model(name) for name in models), key=lambda size: size.parameters)
    return largest, sum(map(images_in, datasets)), texts_in(pool)


# --- What that takes: megabytes and minutes


def model_memory(size):
    """Of a loaded model: its weights in full precision, and once more while they are read."""
    return START + TORCH + 8e-6 * size.parameters


def model_needs(wildcards):
    """Of a job that loads a model, and embeds texts or some images."""
    size, _, texts = sizes(wildcards)
    if "dataset" in wildcards.keys():  # the texts of classes
        prompts = DATASETS[wildcards["dataset"]]["prompts"]
        templates = sum(80 if part["templates"] == "openai" else len(part["templates"]) for part in prompts.values())
        texts = 1000 * templates
    memory = model_memory(size) + 16e-6 * texts * size.d_embed
    return memory, 5 + texts * 2 * size.text_parameters * 30 / CORE_SPEED / config["threads"] / 60


def pass_needs(wildcards, tower_passes=1, kept_layers=1):
    """Of a job that passes a dataset's images through a model's image tower."""
    size, images, _ = sizes(wildcards)
    in_layer = size.tokens * size.d_model * 320 + size.heads * size.tokens**2 * 12  # bytes of an image
    if config["gpu"]:  # which has these in its own memory
        in_layer = 0
    memory = model_memory(size) + 1e-6 * config["batch_size"] * (3e6 + in_layer * kept_layers) + TABLE * images
    speed = config["gpu"] * GPU_SPEED or config["threads"] * CORE_SPEED
    seconds = images * (tower_passes * 2 * size.image_parameters * size.tokens / speed + 0.01)
    return memory, 10 + seconds / 60


def extraction_needs(wildcards):
    """Of a shard of an extraction, which holds a piece of the tables of images, and its own rows of them."""
    (memory, minutes), images = pass_needs(wildcards), images_in(wildcards["dataset"])
    memory -= TABLE * max(0, images - images / config["shards"] - TABLE_ROWS)
    return memory, 10 + (minutes - 10) / config["shards"]


def sums_memory(size):
    """Of a model's sums over images: moments of all heads, and with the embedding."""
    width = size.d_model / size.heads + 3
    return 8e-6 * size.layers * size.heads * width * (width + size.d_embed)


def moments_needs(wildcards):
    """Of a shard of an extraction that keeps moments, or poles of two kinds of components: all seeds', and a batch's."""
    memory, minutes = extraction_needs(wildcards)
    return memory + (2 * len(SEEDS) + 4) * sums_memory(sizes(wildcards)[0]), minutes


def sums_needs(wildcards):
    """Of a job that reads and writes sums over images."""
    size = sizes(wildcards)[0]
    return START + 500 + 4 * sums_memory(size), 5 + size.layers * size.heads / 100


def segmentation_needs(wildcards):
    """Of a segmentation by all methods: those that go back through the tower keep what every layer computed."""
    size = sizes(wildcards)[0]
    return pass_needs(wildcards, 2 * len(config["segmentation"]["methods"]), max(1, size.layers / 3))


def file_needs(wildcards):
    """Of a job that reads or writes every picture of a dataset; the user's own folder or table is listed as a whole."""
    images = images_in(wildcards["dataset"])
    rows = images if wildcards["dataset"] in OWN_DATASETS else min(images, TABLE_ROWS)
    return START + 500 + TABLE * rows, 5 + 0.02 * images / 60


def analysis_needs(wildcards):
    """Of a job on the stored activations of all heads."""
    size, images, texts = sizes(wildcards)
    if KEEPS_MOMENTS:
        images = min(images, 4 * config["activations"]["sample"])  # of each of four roles
    heads, d_head = size.layers * size.heads, size.d_model / size.heads
    arrays = 4 * (texts + images) * size.d_embed + 3 * heads * d_head * size.d_embed + 2 * images * size.heads * d_head
    return START + 8e-6 * arrays, 5 + heads * (1e-4 * texts + 3e-4 * images) / 60


# --- Requests


def limit_of(resource):
    """The most of a resource that the profile, or --resources, lets a job have; None for no limit."""
    limit = workflow.global_resources.get(resource)
    return limit.value if limit is not None else None


def resource_amount(needs, position, resource, unit, advice):
    """A resource as a function for Snakemake: what a job needs and a quarter, and as much again on each further attempt.

    Raises WorkflowError for a job that needs more than it may have; that further attempts do not is up to Snakemake.
    """

    def amount(wildcards, attempt, rulename):
        need, limit = int(1.25 * needs(wildcards)[position]) + 1, limit_of(resource)
        if limit is not None and need > limit:
            about = ", ".join(f"{key} {value}" for key, value in wildcards.items())
            raise WorkflowError(
                f"A job of {rulename} ({about}) needs {need} {unit}, and the profile lets no job have more than {limit}; "
                f"{advice}, or raise {resource} in the profile's resources if the partition has more."
            )
        return need * attempt

    return amount


def request_for(needs):
    """The memory and time of a rule's resources, by a function that works out what a job needs."""
    return {
        "mem_mb": resource_amount(needs, 0, "mem_mb", "MB of memory", "lower batch_size"),
        "runtime": resource_amount(needs, 1, "runtime", "minutes", "raise shards, threads or gpu"),
    }


# Numbers only: of a text, the jobs of a group must all ask for the same. So scripts take the device from the config.
PASSING = {"gpu": config["gpu"], "batch_size": config["batch_size"]}
MODEL_RESOURCES = request_for(model_needs)
PASS_RESOURCES = request_for(pass_needs) | PASSING
EXTRACTION_RESOURCES = request_for(extraction_needs) | PASSING
MOMENTS_RESOURCES = request_for(moments_needs) | PASSING
SUMS_RESOURCES = request_for(sums_needs)
SEGMENTATION_RESOURCES = request_for(segmentation_needs) | PASSING
ANALYSIS_RESOURCES = request_for(analysis_needs)
FILES_RESOURCES = request_for(file_needs)
