"""Which files a model is loaded from. Without torch: the rules import it too."""

import json
from pathlib import Path

from clipspectra import InputError

# Files beside weights that describe the model and its preprocessing.
OPEN_CLIP_CONFIG, TRANSFORMERS_CONFIG = "open_clip_config.json", "config.json"
PREPROCESSOR_CONFIG, PROCESSOR_CONFIG = "preprocessor_config.json", "processor_config.json"
# Files that can each hold a tokenizer's vocabulary, and the other files of a tokenizer.
VOCABULARIES = (
    *("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
)
TOKENIZER = (*(*VOCABULARIES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),)
BESIDE = (OPEN_CLIP_CONFIG, TRANSFORMERS_CONFIG, PREPROCESSOR_CONFIG, PROCESSOR_CONFIG)
# Names of the weights in a folder, in open_clip's order of preference, with transformers' indexes of shards.
USUAL_NAMES = [
    f"{stem}.{ending}"
    for stem in ("open_clip_model", "open_clip_pytorch_model", "model", "pytorch_model")
    for ending in ("safetensors", "safetensors.index.json", "bin", "bin.index.json", "pth")
]
ENDINGS = ("safetensors", "bin", "pth", "pt", "ckpt")


def choose_weights(names, where):
    """The name of the weights, or of the index of their shards, among the names of a folder's files.

    where: the folder, in words. Raises InputError for none or several.
    """
    usual = [name for name in USUAL_NAMES if name in names]
    others = sorted(name for name in names if "/" not in name and name.endswith(tuple(f".{end}" for end in ENDINGS)))
    if not usual and len(others) != 1:
        listed = f"several weights files, {', '.join(others)}; name one" if others else "no weights"
        raise InputError(f"{where} has {listed}.")
    return (usual or others)[0]


def weights_in(folder):
    """The weights of a model's folder: a file, or the index of its shards. Raises InputError for none or several."""
    names = [path.name for path in Path(folder).iterdir() if path.is_file()]
    return Path(folder) / choose_weights(names, f"The model folder {folder}")


def shards_of(path, must_exist=True):
    """The files that hold a checkpoint's tensors: itself, or those that an index (*.index.json) names, in order.

    Raises InputError for a damaged index, and for files that do not exist if they must.
    """
    path = Path(path)
    if not path.name.endswith(".index.json"):
        return [path]
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        if not all(isinstance(name, str) for name in names):
            raise TypeError
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not an index of shards: it lacks a weight_map of file names.") from error
    if any(Path(name).name != name for name in names):
        raise InputError(f"{path} names shards outside its folder; such an index is not trusted.")
    absent = [name for name in names if not (path.parent / name).is_file()]
    if absent and must_exist:
        raise InputError(f"{path} names {absent[0]}, which does not exist.")
    return [path.parent / name for name in names]


def files_of(architecture, pretrained):
    """All existing files of the user that a model is loaded from; none for a published tag."""
    files, weights = [], None
    if architecture.startswith("local-dir:"):
        folder = Path(architecture.removeprefix("local-dir:"))
        files += [folder / name for name in (*BESIDE, *TOKENIZER)]
        weights = weights_in(folder) if folder.is_dir() else None
    elif Path(architecture).is_file():
        files += [Path(architecture), *_files_of_named_folders(Path(architecture))]
    if pretrained and Path(pretrained).is_file():
        weights = Path(pretrained)
    if weights:
        files += [weights, *shards_of(weights), *(weights.parent / name for name in BESIDE)]
    return list(dict.fromkeys(path for path in files if path.is_file()))


def _files_of_named_folders(config):
    """Files of the folders that a model config names for its tokenizer and its text tower."""
    try:
        content = json.loads(config.read_text(encoding="utf-8-sig"))
        text = content.get("model_cfg", content).get("text_cfg", {})
        folders = [Path(text[key]) for key in ("hf_tokenizer_name", "hf_model_name") if text.get(key)]
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):  # the job that reads the config reports it
        return []
    return [folder / name for folder in folders for name in (*BESIDE, *TOKENIZER)]
