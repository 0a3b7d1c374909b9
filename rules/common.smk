# Helpers of all rules; no rules here.
import functools
import hashlib
import itertools
import re

from clipspectra.code_digest import code_digest, commit_of
from clipspectra.data.files import manifest_files, manifest_names, stamp, visible_files
from clipspectra.data.tar_names import expected_sum, read_sums, tar_files
from clipspectra.towers.model_files import files_of, weights_in


def any_of(names):
    """Regular expression that matches these names only (none, if there are none)."""
    return "|".join(re.escape(str(name)) for name in names) or "(?!)"


wildcard_constraints:
    model=any_of(ALL_MODELS),
    dataset=any_of(DATASETS),
    texts=any_of(TEXTS),
    seed=any_of(SEEDS),
    intervention=any_of(INTERVENTIONS),
    transfer=any_of(TRANSFERS),
    comparison=any_of(COMPARISONS),
    queries=any_of(config["queries"]),
    neighbours=any_of(config["neighbours"]),
    spatial=any_of(config["spatial"]),
    method=r"[a-z_]+",
    shard=r"\d+",
    shards=r"\d+",


def code(script):
    """Digest of the core's modules that a script reaches: an edited module reruns the rules that depend on it."""
    return code_digest(REPOSITORY / "scripts" / f"{script}.py")


# --- The user's files


# What is read in place stays on this machine, whatever storage the results are kept in (docs/storage.md): the user's
# files, and datasets, whose manifests stand beside their images.
MANIFEST = local("results/data/{dataset}/manifest.csv")


def locate(path):
    """A path of the config: in the working directory, else in the repository (for the files that come with it)."""
    path = os.path.expanduser(path)
    if path.startswith("results/"):
        return path
    if Path(path).exists() or not (REPOSITORY / path).exists():
        return local(path)
    return local(str(REPOSITORY / path))


def existing(path, key, digest=None):
    """A file that the config names under a key, located. A file below results/ may yet be made by a rule."""
    path = locate(path)
    if not path.startswith("results/") and not Path(path).exists():
        digest = f", sha256 {digest}" if digest else ""
        raise WorkflowError(f"Config, {key}: {path} is not there{digest}.")
    return path


for name, dataset in DATASETS.items():
    if "manifest" in dataset:
        existing(dataset["manifest"], f"datasets.{name}.manifest")


def files_stamp(*sources):
    """Stamp, as a function of the wildcards, of what these give as inputs: a file replaced by an older one is noticed.

    It may depend on the wildcards only: Snakemake ignores changes of params that use a job's inputs.
    """

    def stamp_of(wildcards):
        files = [path for source in sources for path in source(wildcards).values()]
        paths = [path for part in files for path in ([part] if isinstance(part, str) else part)]
        return stamp(path for path in paths if not path.startswith("results/"))

    return stamp_of


# --- Models


def request_kind(wildcards):
    """Which of REQUESTS a job works on."""
    return next(kind for kind in REQUESTS if kind in wildcards.keys())


def request(wildcards):
    """The entry of the config that a job works on, one of REQUESTS."""
    kind = request_kind(wildcards)
    return config[kind][wildcards[kind]]


def model_name(wildcards):
    """Name of a job's model: its wildcard, or what its request names."""
    if "model" in wildcards.keys():
        return wildcards.model
    return request(wildcards)["model"]


MODEL_ENDINGS = (".json", ".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".npz")


def is_path(value):
    """Whether a model's entry names a file or folder: one that is there, or by its looks; else a name of open_clip."""
    if value is None or value.startswith(("hf-hub:", "local-dir:")):
        return False
    has_ending = Path(value).suffix in MODEL_ENDINGS
    return "/" in value or has_ending or Path(locate(value)).exists()


def model_files(wildcards):
    """The files that a job's model is made of, see files_of_model."""
    return files_of_model(model_name(wildcards))


def files_of_model(name):
    """The files that a model is made of, as far as they are the user's own; open_clip resolves tags."""
    model = ALL_MODELS[name]
    digests = {"pretrained": model.get("sha256")}
    files = {
        key: existing(model[key], f"models.{name}.{key}", digests.get(key))
        for key in ("architecture", "pretrained")
        if is_path(model.get(key))
    }
    try:
        if "pretrained" in files and Path(files["pretrained"]).is_dir():
            files["pretrained"] = local(str(weights_in(files["pretrained"])))
        others = files_of(files.get("architecture", model["architecture"]), files.get("pretrained"))
    except InputError as error:
        raise WorkflowError(f"Config, models.{name}: {error}")
    return files | {"beside": [local(str(path)) for path in others if str(path) not in files.values()]}


MODEL_KEYS = ("architecture", "pretrained", "sha256", "revision", "state_dict", "like", "quick_gelu")
PREPROCESSING_KEYS = ("mean", "std", "interpolation", "resize_mode")


def model_params(wildcards):
    """What identifies a job's model, see arguments_of_model."""
    return arguments_of_model(model_name(wildcards))


def arguments_of_model(name):
    """What identifies a model, whatever machine its files lie on: arguments of models.load."""
    model = ALL_MODELS[name]
    return {
        **{key: model.get(key) for key in MODEL_KEYS},
        "preprocessing": {key: model[key] for key in PREPROCESSING_KEYS if key in model},
        "resize_positions": model["resize_positions"],
        **({"shuffle": True} if model.get("shuffle") else {}),
    }


def model_job(*sources):
    """Parameters of a job that loads a model: what identifies it, and a stamp of its files and of other sources."""
    return {"model": model_params, "files": files_stamp(model_files, *sources)}


# --- Stored results


# All images are stored, or a sample of them and of all fit images the moments.
KEEPS_MOMENTS = config["activations"]["keep"] == "moments"
STORED = {key: config["activations"][key] for key in ("layers", "dtype")}
SHARDS = expand(
    "results/activations/{{model}}/{{dataset}}/{kept}-{shard}-of-{shards}.safetensors",
    kept="sample" if KEEPS_MOMENTS else "shard",
    shard=range(config["shards"]),
    shards=config["shards"],
)
ALL_IMAGES = "results/data/{dataset}/seed-{seed}/images.csv"
SAMPLE = "results/data/{dataset}/seed-{seed}/sample.csv"
IMAGES = SAMPLE if KEEPS_MOMENTS else ALL_IMAGES  # a seed's images that are stored
MOMENTS, DIRECTIONS, POLES = (
    f"results/activations/{{model}}/{{dataset}}/seed-{{seed}}-{kind}.safetensors"
    for kind in ("moments", "directions", "poles")
)


def shards_of(wildcards):
    """All shards of an extraction, in order, for any seed.

    They are not ancient(), although the rows of a seed stay as they are when another one is added: Snakemake 9 would
    not see other reasons to run the jobs behind them (a changed param, edited code) in a run that extends them.
    """
    return expand(SHARDS, model=wildcards["model"], dataset=wildcards["dataset"])


def images_of_all_seeds(wildcards):
    """The tables of the images that any seed uses."""
    return {"images": expand(ALL_IMAGES, dataset=wildcards.dataset, seed=SEEDS)}


def if_moments(**files):
    """These inputs where an extraction keeps moments; else none."""
    return files if KEEPS_MOMENTS else {}


# What is read of a model's activations on the images of a seed.
ACTIVATIONS = {
    "shards": shards_of,
    "basis": "results/activations/{model}/basis.safetensors",
    "images": IMAGES,
    **if_moments(moments=MOMENTS),
}


def other_model(wildcards):
    """The model of the config that a job's model is compared with: the next one; None if there is no other."""
    names = list(MODELS)
    if len(names) < 2 or wildcards.model in SHUFFLED:
        return None
    return names[(names.index(wildcards.model) + 1) % len(names)]


def next_seed(wildcards):
    """The seed of the config that a job's seed is compared with: the next one, and after the last the first."""
    seeds = [str(seed) for seed in SEEDS]
    return seeds[(seeds.index(wildcards.seed) + 1) % len(seeds)]


def other_embeddings(wildcards):
    """The other model's activations on the same images; none without another model."""
    other = other_model(wildcards)
    if other is None:
        return {}
    return {
        "other_shards": shards_of({"model": other, "dataset": wildcards.dataset}),
        "other_basis": f"results/activations/{other}/basis.safetensors",
        **if_moments(other_moments=MOMENTS.format(model=other, dataset=wildcards.dataset, seed=wildcards.seed)),
    }


def similar_images(wildcards):
    """What tells how alike images are where factors are unknown: the other model's embeddings."""
    return {} if factor_names(wildcards) else other_embeddings(wildcards)


def explanation_files(methods, ending):
    """Files of the named methods' explanations, in order, for wildcards yet to be filled in."""
    path = "results/explanations/{{model}}/{{dataset}}/seed-{{seed}}/{{texts}}/{method}{ending}"
    return expand(path, method=methods, ending=ending)


# The options of the config that a method's explanations depend on; those of TextSpan depend on none.
COMPONENT_OPTIONS = ["texts_per_pole", "threshold", "threshold_of", "texts_chosen"]
SPARSE_OPTIONS = ["threshold", "threshold_of", "texts_per_component"]
METHOD_OPTIONS = (
    dict.fromkeys(["components", "weights", "random_texts"], COMPONENT_OPTIONS)
    | dict.fromkeys(["sparse", "random_texts_sparse"], SPARSE_OPTIONS)
    | {"sparse_coherent": [*SPARSE_OPTIONS, "coherence"]}
)


def method_options(methods):
    """{method: its options in the config}."""
    options = config["explanations"]
    return {method: {key: options[key] for key in METHOD_OPTIONS.get(method, [])} for method in methods}


# Methods that name components, at both poles or as sums.
NAMING_METHODS = [method for method in ("weights", "sparse", "sparse_coherent") if method in EXPLAINING_METHODS]
NAMING_METHODS.insert(0, "components")


def naming_methods(wildcards):
    """The methods whose names are judged; of a model with shuffled weights, a control, components alone."""
    return ["components"] if wildcards.model in SHUFFLED else NAMING_METHODS


def names_files(wildcards):
    """What names are judged by, besides the model's own activations and texts."""
    methods, other = naming_methods(wildcards), other_model(wildcards)
    files = {
        "tables": expand(explanation_files(methods, ".parquet"), **wildcards),
        "directions": expand(explanation_files(methods, ".safetensors"), **wildcards),
    }
    if other is not None:
        files |= other_embeddings(wildcards)
        files["other_texts"] = f"results/text/{other}/{wildcards.texts}.safetensors"
    if wildcards.model in SHUFFLED:
        return files
    if wildcards.dataset in CLASSED_DATASETS:
        files["classes"] = f"results/text/{wildcards.model}/classes-{wildcards.dataset}.safetensors"
    if len(SEEDS) > 2 or (len(SEEDS) == 2 and wildcards.seed == str(SEEDS[0])):  # each pair of seeds once
        seed = {**wildcards, "seed": next_seed(wildcards)}
        files["seed_tables"] = expand(explanation_files(methods, ".parquet"), **seed)
        files["seed_directions"] = expand(explanation_files(methods, ".safetensors"), **seed)
    return files


def factor_names(wildcards):
    """Names of a dataset's factor columns."""
    return list(DATASETS[wildcards.dataset]["factors"])
