# The config, read strictly, checked against its schema, and with what follows from it; no rules here.
import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import update_config, validate

REPOSITORY = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parent
ENVIRONMENT = "../envs/environment.yaml"
PYTHON = sys.executable

sys.path.append(str(REPOSITORY / "scripts"))
import clipspectra
from clipspectra import InputError
from clipspectra.data import strict_yaml
from clipspectra.explanations.catalogue import CONTROLS

if not Path(clipspectra.__file__).is_relative_to(REPOSITORY / "scripts"):
    raise WorkflowError(
        f"clipspectra is also installed in {Path(clipspectra.__file__).parents[1]}, which would be used in place of this "
        "folder's scripts/clipspectra; uninstall it (pip uninstall clipspectra), or use another environment."
    )
for path in (str(REPOSITORY), PYTHON):
    if repr(path) != f"'{path}'":  # as Snakemake writes paths into the commands of jobs: with repr
        raise WorkflowError(
            f"The path {path} has an apostrophe, a backslash or an invisible character, so Snakemake cannot run jobs "
            "there; move the clone, or its .venv, to a path without. Blanks do no harm."
        )

# Snakemake runs notebooks with the jupyter beside Python, which is not on the path if Snakemake was started by its own.
os.environ.update(PATH=os.pathsep.join([os.path.dirname(PYTHON), *os.get_exec_path()]))

# Snakemake puts this one as it stands into the commands that run scripts and jobs; where it has a blank it must be quoted.
sys.executable = shlex.quote(PYTHON)

if not workflow.modifier.skip_configfile:
    # Read again: Snakemake takes the second of two equal keys, 007 for 7, and shares what an anchor stands for.
    strict_config = {}
    try:
        for path in workflow.configfiles:
            update_config(strict_config, strict_yaml.load(path))
    except InputError as error:
        raise WorkflowError(f"Config, {error}") from None
    update_config(strict_config, workflow.config_settings.config)
    config.clear()
    config.update(strict_config)

# Where Jupyter is, jsonschema builds the grammars of all addresses at import: a third of Snakemake's start, for nothing here.
sys.modules.setdefault("rfc3987_syntax", None)
try:
    validate(config, "../config/schema.yaml")
except WorkflowError as error:
    # jsonschema's own report prints the whole config
    problem = error.__context__
    where = ".".join(map(str, problem.absolute_path)) or "top level"
    hint = problem.schema.get("description", "")
    hint = f" (expected: {hint})" if hint and where != "top level" else ""
    if problem.validator == "additionalProperties":
        hint = f" (known keys: {', '.join(problem.schema['properties'])})"
    values = problem.instance.values() if isinstance(problem.instance, dict) else [problem.instance]
    is_unquoted = any(isinstance(value, (bool, int, float)) for value in values)
    if problem.validator in ("type", "oneOf", "anyOf") and is_unquoted:
        hint += "; a number, yes or no that is meant as text needs quotes"
    if problem.validator == "required" and "'pretrained'" in problem.message:
        hint += "; a folder that brings its own weights is local-dir:path"
    lines = {path: strict_yaml.line_of(path, problem.absolute_path) for path in workflow.configfiles}
    places = "".join(f" (line {line} of {path})" for path, line in lines.items() if line)
    raise WorkflowError(f"Config, {where}: {problem.message[:300]}{hint}{places}") from None

for folder in (".", "results", ".snakemake"):
    if os.path.exists(folder) and not os.access(folder, os.W_OK):
        raise WorkflowError(f"No permission to write in {Path(folder).resolve()}; name another place with --directory.")


def with_whole_numbers(value):
    """A config's value with 3.0 as 3, which the schema takes for a whole number too."""
    if isinstance(value, dict):
        return {key: with_whole_numbers(part) for key, part in value.items()}
    if isinstance(value, list):
        return [with_whole_numbers(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


config.update(with_whole_numbers(dict(config)))

for entry in config["datasets"].values():
    if "folder" in entry:
        entry["folder"] = os.path.expanduser(entry["folder"])

MODELS, DATASETS, TEXTS, SEEDS = (config[key] for key in ("models", "datasets", "texts", "seeds"))
METHODS, INTERVENTIONS, TRANSFERS = config["evaluation"]["methods"], config["interventions"], config["transfer"]
COMPARISONS = config["comparisons"]
# With texts of their own; components first, which the others are compared with.
EXPLAINING_METHODS = [method for method in METHODS if method not in CONTROLS]
EXPLAINING_METHODS.sort(key=lambda method: method != "components")
# Entries about one picture, text or component each, with a model of their own. Their wildcards have the keys' names.
REQUESTS = ("spatial", "queries", "neighbours")

DEMO_DATASETS = [name for name, dataset in DATASETS.items() if "demo" in dataset]
OWN_DATASETS = [name for name in DATASETS if {"folder", "manifest"} & set(DATASETS[name])]
TAR_DATASETS = [name for name in DATASETS if "webdataset" in DATASETS[name]]
ARCHIVED_DATASETS = [name for name in DATASETS if name not in DEMO_DATASETS + OWN_DATASETS + TAR_DATASETS]
# Without fit images there are no means and no components, and segmentation is all that can be scored.
EXPLAINED_DATASETS = [name for name in DATASETS if "fit" in DATASETS[name]["roles"]]
CLASSED_DATASETS = [name for name in EXPLAINED_DATASETS if "prompts" in DATASETS[name]]
FACTORED_DATASETS = [name for name in EXPLAINED_DATASETS if DATASETS[name]["factors"]]
# Where it is known what images have in common: their classes or factors.
KNOWN_DATASETS = [name for name in EXPLAINED_DATASETS if name in CLASSED_DATASETS + FACTORED_DATASETS]
PAIRED_DATASETS = [name for name in FACTORED_DATASETS if DATASETS[name]["pairs"]]
# Where names are judged by pairs of images: a model of each architecture with its weights in random order. No model of
# a config can have its name.
ARCHITECTURES = {model["architecture"]: name for name, model in reversed(MODELS.items())}
SHUFFLED = {f"{name}+shuffled": name for name in ARCHITECTURES.values() if PAIRED_DATASETS}
ALL_MODELS = {**MODELS, **{twin: {**MODELS[name], "shuffle": True} for twin, name in SHUFFLED.items()}}
MASKED_DATASETS = [name for name, dataset in DATASETS.items() if dataset["masks"]]


def check_known(key, names, known, kind):
    """Raise WorkflowError unless the names under a key of the config exist."""
    for name in names:
        if name not in known:
            raise WorkflowError(f"Config, {key}: there is no {kind} '{name}'; known: {', '.join(known) or 'none'}.")


for name, dataset in DATASETS.items():
    if dataset["pairs"] and name not in PAIRED_DATASETS:
        raise WorkflowError(
            f"Config, datasets.{name}.pairs: names are judged by the factors that pairs change, on components of fit "
            "images; give the dataset factors and a role fit, or leave pairs out."
        )


for name in MASKED_DATASETS:
    if "prompts" not in DATASETS[name]:
        raise WorkflowError(
            f"Config, datasets.{name}.masks: segmentation maps the evidence for a class; give the dataset prompts, or "
            "leave masks out."
        )


for kind in (*REQUESTS, "interventions", "comparisons"):
    for name, entry in config[kind].items():
        if kind == "interventions":
            entry.setdefault("models", list(MODELS))
        models = entry["models"] if "models" in entry else [entry["model"]]
        key = f"{kind}.{name}.{'models' if 'models' in entry else 'model'}"
        check_known(key, models, MODELS, "model")
        if kind != "spatial":
            entry.setdefault("texts", next(iter(TEXTS)))
            check_known(f"{kind}.{name}.texts", [entry["texts"]], TEXTS, "text pool")
            key = f"{kind}.{name}.dataset"
            check_known(key, [entry["dataset"]], EXPLAINED_DATASETS, "dataset with fit images")
        if kind == "interventions":
            check_known(key, [entry["dataset"]], CLASSED_DATASETS, "dataset with prompts")


for name, entry in TRANSFERS.items():
    entry.setdefault("models", list(MODELS))
    entry.setdefault("texts", next(iter(TEXTS)))
    check_known(f"transfer.{name}.models", entry["models"], MODELS, "model")
    check_known(f"transfer.{name}.texts", [entry["texts"]], TEXTS, "text pool")
    for end in ("from", "to"):
        check_known(f"transfer.{name}.{end}", [entry[end]], EXPLAINED_DATASETS, "dataset with fit images")
    if entry["from"] == entry["to"]:
        raise WorkflowError(
            f"Config, transfer.{name}: from and to are both '{entry['to']}', so there is nothing to transfer; name two "
            "datasets. How steady components are within one is in results/tables/stability.csv."
        )


check_known("explorer.models", config["explorer"].get("models", []), MODELS, "model")
check_known("explorer.datasets", config["explorer"].get("datasets", []), DATASETS, "dataset")

for name, entry in INTERVENTIONS.items():
    prompts = DATASETS[entry["dataset"]]["prompts"]
    check_known(f"interventions.{name}.about", entry["about"], prompts, "prompt")
    if entry["controls"] and "concept" not in entry["edits"][-1]:
        raise WorkflowError(
            f"Config, interventions.{name}.controls: they are concepts to try in place of that of the last edit, which "
            "has none; give it one, or leave the controls out."
        )
    for number, edit in enumerate(entry["edits"]):
        key = f"Config, interventions.{name}.edits.{number}"
        if edit["do"] == "keep" and not {"heads", "components", "concept"} & set(edit):
            raise WorkflowError(f"{key}: 'keep' goes with heads, components or a concept; hold the MLPs with 'remove'.")
        if not 0 < edit["by"] < 1000:
            raise WorkflowError(f"{key}.by: {edit['by']} is not a factor between 0 and 1000.")
