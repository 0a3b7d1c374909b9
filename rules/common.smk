# Helpers of all rules; no rules here.
import functools
import hashlib
import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import update_config, validate

REPOSITORY = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parent
ENVIRONMENT = "../envs/environment.yaml"

sys.path.append(str(REPOSITORY / "scripts"))
from clipspectra import InputError
from clipspectra.code_digest import code_digest
from clipspectra.data import strict_yaml
from clipspectra.data.files import manifest_files, stamp, visible_files
from clipspectra.towers.model_files import files_of, weights_in

if shlex.quote(sys.executable) != sys.executable:
    raise WorkflowError(
        f"The path of Python, {sys.executable}, has a blank or another mark that the shell reads, which Snakemake cannot "
        "run jobs with; move the clone, or its .venv, to a plain path."
    )

if not workflow.modifier.skip_configfile:
    # Read again: Snakemake takes the second of two equal keys, 007 for 7, and shares what an anchor stands for.
    strict = {}
    try:
        for path in workflow.configfiles:
            update_config(strict, strict_yaml.load(path))
    except InputError as error:
        raise WorkflowError(f"Config, {error}") from None
    update_config(strict, workflow.config_settings.config)
    config.clear()
    config.update(strict)

try:
    validate(config, "../config/schema.yaml")
except WorkflowError as error:
    # jsonschema's own report prints the whole config
    problem = error.__context__
    where = ".".join(map(str, problem.absolute_path)) or "top level"
    meant = problem.schema.get("description", "")
    meant = f" (meant here: {meant})" if meant and where != "top level" else ""
    if problem.validator == "additionalProperties":
        meant = f" (there is {', '.join(problem.schema['properties'])})"
    inside = (
        problem.instance.values()
        if isinstance(problem.instance, dict)
        else [problem.instance]
    )
    plain = any(isinstance(value, (bool, int, float)) for value in inside)
    if problem.validator in ("type", "oneOf", "anyOf") and plain:
        meant += "; a number, or yes or no, that is meant as a text needs quotes"
    if problem.validator == "required" and "'pretrained'" in problem.message:
        meant += "; a folder that brings its own weights is local-dir:path"
    lines = {
        path: strict_yaml.line_of(path, problem.absolute_path)
        for path in workflow.configfiles
    }
    at = "".join(f" (line {line} of {path})" for path, line in lines.items() if line)
    raise WorkflowError(
        f"Config, {where}: {problem.message[:300]}{meant}{at}"
    ) from None

if not os.access(".", os.W_OK):
    raise WorkflowError(
        f"No permission to write in {Path.cwd()}; name another place with --directory."
    )


def whole(value):
    """A config's value with 3.0 as 3, which the schema takes for a whole number too."""
    if isinstance(value, dict):
        return {key: whole(part) for key, part in value.items()}
    if isinstance(value, list):
        return [whole(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


config.update(whole(dict(config)))

for entry in config["datasets"].values():
    if "folder" in entry:
        entry["folder"] = os.path.expanduser(entry["folder"])

MODELS, DATASETS, TEXTS = config["models"], config["datasets"], config["texts"]
SEEDS = config["seeds"]
MODEL_MEMORY = "12GB"  # loading ViT-H-14 takes its weights twice, 8 GB
MODEL_CACHE = config["cache"] or ""  # resources are numbers and texts
METHODS = config["evaluation"]["methods"]
# The reference implementation's names of methods, for exports.
ALGORITHMS = {"svd_data_approx": "components", "text_span": "textspan"}
# Methods that tell principal components, whose movers are known where there are factors.
OF_COMPONENTS = [
    method
    for method in ("components", "sparse", "sparse_coherent")
    if method in METHODS
]
DEMO_DATASETS = [name for name, dataset in DATASETS.items() if "demo" in dataset]
OWN_DATASETS = [
    name for name in DATASETS if {"folder", "manifest"} & set(DATASETS[name])
]
ARCHIVED_DATASETS = [
    name for name in DATASETS if name not in DEMO_DATASETS + OWN_DATASETS
]
# Without fit images there are no means and no components, and segmentation is all that can be scored.
EXPLAINED_DATASETS = [name for name in DATASETS if "fit" in DATASETS[name]["roles"]]
FACTORED_DATASETS = [name for name in EXPLAINED_DATASETS if DATASETS[name]["factors"]]
MASKED_DATASETS = [name for name, dataset in DATASETS.items() if dataset["masks"]]

SEGMENTATION_PICTURES = (
    {
        "pictures": directory(
            "results/segmentation/{model}/{dataset}/seed-{seed}/pictures"
        )
    }
    if config["segmentation"]["save_images"]
    else {}
)

# Entries that are about one thing each, with a model of their own. Their wildcards have the keys' names.
ASKED = ("spatial", "queries", "neighbours")


def any_of(names):
    """Regular expression that matches these names only (none, if there are none)."""
    return "|".join(re.escape(str(name)) for name in names) or "(?!)"


wildcard_constraints:
    model=any_of(MODELS),
    dataset=any_of(DATASETS),
    texts=any_of(TEXTS),
    seed=any_of(SEEDS),
    intervention=any_of(config["interventions"]),
    method=r"[a-z_]+",
    shard=r"\d+",
    shards=r"\d+",


def code(script):
    """Digest of the core's modules that a script reaches, as code_digest finds them."""
    return code_digest(REPOSITORY / "scripts" / f"{script}.py")


def found(path):
    """A path of the config: in the working directory, else in the repository (for the files that come with it)."""
    path = os.path.expanduser(path)
    return (
        path
        if Path(path).exists() or not (REPOSITORY / path).exists()
        else str(REPOSITORY / path)
    )


def is_path(value):
    """Whether a model's entry names a file or folder: one that is there, or by its looks; else a name of open_clip."""
    if value is None or value.startswith(("hf-hub:", "local-dir:")):
        return False
    looks = "/" in value or Path(value).suffix in {
        *(".json", ".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".npz")
    }
    return looks or Path(found(value)).exists()


def existing(path, key, digest=None):
    """A file that the config names under a key, as `found` finds it. A file below results/ may yet be made by a rule."""
    path = found(path)
    if not path.startswith("results/") and not Path(path).exists():
        digest = f", sha256 {digest}" if digest else ""
        raise WorkflowError(f"Config, {key}: {path} is not there{digest}.")
    return path


for name, dataset in DATASETS.items():
    if "manifest" in dataset:
        existing(dataset["manifest"], f"datasets.{name}.manifest")


def archives_of(dataset):
    """(kind of source, {name: its entry in the config}) of a dataset that comes in archives."""
    kinds = (
        "imagenet",
        "imagenet_segmentation",
        "pascal_voc",
        "waterbirds",
        "cifar10",
        "cifar100",
    )
    kind = next(kind for kind in kinds if kind in DATASETS[dataset])
    return kind, DATASETS[dataset][kind]


def digest_of(entry):
    """The digest that an archive, or a text pool, must have: {"md5": hex}, {"sha256": hex} or {}."""
    return {kind: entry[kind] for kind in ("md5", "sha256") if kind in entry}


# What is fetched, by the name it is kept under.
DOWNLOADS = {
    entry["url"].rsplit("/", 1)[-1]: entry
    for dataset in ARCHIVED_DATASETS
    for entry in archives_of(dataset)[1].values()
    if "path" not in entry
}


def archive_files(wildcards):
    """The archives of a dataset: what is fetched, and the user's own files as far as they are there."""
    entries = archives_of(wildcards.dataset)[1]
    own = {
        name: found(entry["path"]) for name, entry in entries.items() if "path" in entry
    }
    fetched = {
        name: f"results/data/archives/{entry['url'].rsplit('/', 1)[-1]}"
        for name, entry in entries.items()
        if name not in own
    }
    return fetched | {name: path for name, path in own.items() if Path(path).exists()}


def missing_archives(wildcards):
    """{key of the config: path} of the user's archives that are not there: for the job to say, so that plans go on."""
    kind, entries = archives_of(wildcards.dataset)
    return {
        f"datasets.{wildcards.dataset}.{kind}.{name}.path": entry["path"]
        for name, entry in entries.items()
        if "path" in entry and not Path(found(entry["path"])).exists()
    }


def own_manifest_file(wildcards):
    """The user's manifest as an input: an edit is noticed."""
    manifest = DATASETS[wildcards.dataset].get("manifest")
    key = f"datasets.{wildcards.dataset}.manifest"
    return {"own": existing(manifest, key)} if manifest else {}


def pictures_in(folder):
    """The files of a dataset's folder; none of one that cannot be read, which the job that reads it says."""
    try:
        return visible_files(folder)
    except OSError:
        return []


def folder_digest(wildcards):
    """Digest of the names in a dataset's folder: an added or removed picture is noticed."""
    folder = DATASETS[wildcards.dataset].get("folder")
    names = map(os.fsencode, pictures_in(folder)) if folder else []
    return hashlib.sha256(b"\n".join(names)).hexdigest()[:12]


@functools.cache
def own_pictures(dataset, column="image"):
    """Stamp of the images, or masks, of a dataset of one's own: one that is replaced under its old name is noticed."""
    source = DATASETS[dataset]
    if "folder" in source:
        return stamp(pictures_in(source["folder"]) if column == "image" else [])
    return stamp(
        manifest_files(found(source["manifest"]), column)
        if "manifest" in source
        else []
    )


def own_files(*sources):
    """Stamp, as a function of the wildcards, of what these give as inputs: a file replaced by an older one is noticed.

    Of the wildcards alone: Snakemake does not compare what follows from a job's inputs.
    """

    def stamp_of(wildcards):
        files = [path for source in sources for path in source(wildcards).values()]
        paths = [
            path
            for part in files
            for path in ([part] if isinstance(part, str) else part)
        ]
        return stamp(path for path in paths if not path.startswith("results/"))

    return stamp_of


def kind_asked(wildcards):
    """Which of ASKED a job is about."""
    return next(kind for kind in ASKED if kind in wildcards.keys())


def asked(wildcards):
    """The entry of the config that a job is about, of those that are about one thing."""
    kind = kind_asked(wildcards)
    return config[kind][wildcards[kind]]


def model_of(wildcards):
    """Name of a job's model: its wildcard, or what the entry that it is about says."""
    return wildcards.model if "model" in wildcards.keys() else asked(wildcards)["model"]


def model_files(wildcards):
    """The files that a model is made of, as far as they are the user's own; a tag is open_clip's business."""
    name = model_of(wildcards)
    model = MODELS[name]
    digests = {"pretrained": model.get("sha256")}
    files = {
        key: existing(model[key], f"models.{name}.{key}", digests.get(key))
        for key in ("architecture", "pretrained")
        if is_path(model.get(key))
    }
    try:
        if Path(files.get("pretrained", "")).is_dir() and "pretrained" in files:
            files["pretrained"] = str(weights_in(files["pretrained"]))
        others = files_of(
            files.get("architecture", model["architecture"]), files.get("pretrained")
        )
    except InputError as error:
        raise WorkflowError(f"Config, models.{name}: {error}")
    return files | {
        "beside": [str(path) for path in others if str(path) not in files.values()]
    }


MODEL_KEYS = (
    "architecture",
    "pretrained",
    "sha256",
    "revision",
    "state_dict",
    "like",
    "quick_gelu",
)
PREPROCESSING_KEYS = ("mean", "std", "interpolation", "resize_mode")


def model_params(wildcards):
    """What identifies a model, whatever machine its files lie on: arguments of models.load."""
    model = MODELS[model_of(wildcards)]
    return {
        **{key: model.get(key) for key in MODEL_KEYS},
        "preprocessing": {
            key: model[key] for key in PREPROCESSING_KEYS if key in model
        },
        "resize_positions": model["resize_positions"],
    }


def shards_of(wildcards):
    """All shards of an extraction, in order."""
    return expand(
        "results/activations/{model}/{dataset}/seed-{seed}/shard-{shard}-of-{shards}.safetensors",
        shard=range(config["shards"]),
        shards=config["shards"],
        **wildcards,
    )


def explanations_of(methods, ending):
    """Files of the named methods' explanations, in order, for wildcards yet to be filled in."""
    path = "results/explanations/{{model}}/{{dataset}}/seed-{{seed}}/{{texts}}/{method}.{ending}"
    return expand(path, method=methods, ending=ending)


def explanation_of(wildcards, ending):
    """A file of the explanation that an export's algorithm stands for."""
    (path,) = expand(
        explanations_of([ALGORITHMS[wildcards.algorithm]], ending), **wildcards
    )
    return path


def factor_names(wildcards):
    """Names of a dataset's factor columns."""
    return list(DATASETS[wildcards.dataset]["factors"])


def factor_phrases(wildcards):
    """{factor: {value: phrases}} of a dataset, as far as the config has them."""
    factors = DATASETS[wildcards.dataset]["factors"]
    return factors if isinstance(factors, dict) else {factor: {} for factor in factors}


def pool_file(wildcards):
    """The file of a text pool, the user's or downloaded; the demo's pool has none."""
    pool = TEXTS[wildcards.texts]
    if "url" in pool:
        return {"pool": f"results/data/texts/{wildcards.texts}.txt"}
    key = f"texts.{wildcards.texts}"
    if "generated" in pool:
        words = "config/words.yaml" if pool["generated"] is True else pool["generated"]
        return {"words": existing(words, f"{key}.generated")}
    return {"pool": existing(pool["file"], f"{key}.file")} if "file" in pool else {}


def spatial_file(wildcards):
    """The picture of one's own that texts are mapped on."""
    key = f"spatial.{wildcards.spatial}.image"
    return {"image": existing(asked(wildcards)["image"], key)}


def training_start(wildcards):
    """The checkpoint that a demo model's training continues, if any."""
    start = config["demo_training"][wildcards.checkpoint]["start"]
    return f"results/demo_models/{start}.safetensors" if start else []


def figures_to_open():
    """What a successful run says at its end."""
    made = [
        path
        for path in rules.figures.input
        if path.endswith(".png") and Path(path).exists()
    ]
    names = "\n".join(f"  {path}" for path in made)
    figures = f"Figures to open (each also as .pdf):\n{names}\n" if made else ""
    return f"Done. {figures}Tables: results/tables/"
