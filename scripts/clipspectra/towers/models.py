"""Load any open_clip model: from an architecture and weights to a model, its preprocessing and its tokenizer."""

import hashlib
import importlib.util
import os
import re
import warnings
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip import CLIP, CoCa, CustomTextCLIP, SimpleTokenizer
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.pretrained import download_pretrained
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch.overrides import TorchFunctionMode

from clipspectra import InputError
from clipspectra.towers import devices
from clipspectra.towers.architectures import (
    ALL_PREPROCESSING_KEYS,
    CONFIG,
    LIKE,
    describe_folder,
    describe_json,
    describe_name,
)
from clipspectra.towers.checkpoints import read_checkpoint, short_reason
from clipspectra.towers.hub import check_copy, fetch_error, fetch_file, fetch_snapshot, fetch_weights
from clipspectra.towers.layouts import is_kept, load_weights
from clipspectra.towers.model_files import VOCABULARIES, shards_of, weights_in
from clipspectra.towers.tower import image_size


@dataclass
class LoadedModel:
    """An open_clip model in eval mode with its preprocessing and tokenizer.

    preprocess: PIL image -> tensor [3, height, width]
    make_tokenizer: () -> tokenizer; tokenizer: list of texts -> [text, context], built on first use
    image_size: (height, width) that the tower takes; sha256: of the weights file, None for random weights
    precision: of forward passes, see load; autocast(): the context to run them in
    used: the settings it was loaded with, for a table: preprocessing, activation, tokenizer, sizes and their sources
    config: {"model_cfg", "preprocess_cfg"}, what an open_clip_config.json beside its weights says
    """

    model: torch.nn.Module
    preprocess: Callable
    make_tokenizer: Callable
    image_size: tuple[int, int]
    device: torch.device
    sha256: str | None
    precision: str = "fp32"
    used: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)

    @cached_property
    def tokenizer(self):
        return self.make_tokenizer()

    def autocast(self):
        return devices.autocast(self.device, self.precision)


def load(
    architecture,
    pretrained=None,
    *,
    device="cpu",
    precision="fp32",
    sha256=None,
    revision=None,
    cache=None,
    state_dict=None,
    like=None,
    preprocessing=None,
    quick_gelu=None,
    resize_positions=False,
    towers="both",
    shuffle=False,
):
    """Load an open_clip model in eval mode.

    architecture: open_clip name ("ViT-B-16"); path of an open_clip model config (JSON); "hf-hub:owner/name" or
      "local-dir:path", folders of open_clip or of transformers (CLIP, SigLIP), which bring their own weights
    pretrained: open_clip tag, path of a checkpoint, or None for random weights
    device: torch device, or "auto" for the best one available
    precision: of forward passes inside LoadedModel.autocast(), the weights stay float32: "fp32", "tf32", "bf16", "fp16"
    sha256: expected digest of the weights file; revision: commit, branch or tag of the hub repository
    cache: folder for weights and tokenizers from the hub, None for the hub's default
    state_dict: which set of weights to take from a checkpoint that holds several
    like: tag of the architecture whose preprocessing and activation the weights of a file need
    preprocessing: any of mean, std, interpolation, resize_mode; quick_gelu: whether the activation is QuickGELU. Both
      take precedence over `like`, that over configs beside the file, and those over the published tags
    resize_positions: whether position embeddings of another image size or context may be interpolated
    towers: "both", "image" or "text", the tower to keep; the other takes no memory and cannot encode
    shuffle: whether to put the numbers of each weight in random order, always the same: a model of the same shape and
      scale that has learned nothing (Adebayo et al. 2018), as a control

    Float32 weights of safetensors files and of torch.save are mapped: do not change the file while they are in use.
    Warns where published weights of the architecture need different settings and nothing decides between them. Raises
    InputError for an unknown architecture or tag (naming the nearest), a missing or damaged file, weights that cannot
    be fetched or do not fit, a missing package, or a device that is not available.
    """
    architecture, pretrained = str(architecture), None if pretrained is None else str(pretrained)
    device = devices.choose_device(device)
    devices.check_precision(precision)
    description, weights = _describe_and_fetch(architecture, pretrained, revision, cache)
    if like is not None:
        description.take_tag(like, LIKE)
    activation = {None: None, True: "quick_gelu", False: "gelu"}[quick_gelu]
    description.claim(CONFIG, "the config", (preprocessing or {}) | {"activation": activation})
    if weights is None:
        digest, checkpoint = None, None
    else:
        digest = file_sha256(weights)
        if sha256 not in (None, digest):
            raise InputError(
                f"{pretrained or architecture} is damaged or another file: its sha256 is {digest}, expected {sha256}. "
                "Fetch it again, or change sha256 in the config."
            )
        checkpoint = None if str(weights).endswith(".npz") else read_checkpoint(weights, state_dict)
    if checkpoint is not None:
        description.take_layout(checkpoint)
    description.settle()
    model = _build_model(description, cache, empty=checkpoint is not None)
    if checkpoint is not None:
        options = {"resize": resize_positions, "towers": towers}
        load_weights(model, checkpoint.tensors, weights, description.name, **options)
    elif weights is not None:
        _load_big_vision(model, weights)
    description.set_activation(model)
    description.check_sizes(model)
    for note in description.notes:
        warnings.warn(f"{pretrained or architecture}: {note}", stacklevel=2)
    size = image_size(model.visual)
    if towers != "both":
        _keep_tower(model, towers)
    if shuffle:
        _shuffle_weights(model)
    model = model.to(device).eval().requires_grad_(False)
    chosen = {key: description.used[key] for key in ALL_PREPROCESSING_KEYS}
    preprocessing = PreprocessCfg(size=size, **chosen)
    used = {"weights": Path(weights or "random").name, "sha256": digest or ""}
    used |= {"left_out": ", ".join(checkpoint.left_out) if checkpoint else ""}
    used = description.table(size) | used
    preprocess = image_transform_v2(preprocessing, is_train=False)
    make_tokenizer = partial(_build_tokenizer, description, cache)
    config = {"model_cfg": description.config, "preprocess_cfg": chosen}
    return LoadedModel(model, preprocess, make_tokenizer, size, device, digest, precision, used, config)


def _shuffle_weights(model):
    for name, weight in model.named_parameters():  # each by its own name: whichever towers are loaded
        order = np.random.default_rng(list(name.encode())).permutation(weight.numel())
        weight.data = weight.data.flatten()[torch.from_numpy(order)].reshape(weight.shape)


def file_sha256(path):
    """Hex digest of a file; for an index of shards, the digest of the digests of all shards.

    Raises InputError for a damaged file of the hub's cache.
    """
    digests = []
    for shard in shards_of(path):
        with open(shard, "rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        check_copy(shard, digests[-1])
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _describe_and_fetch(architecture, pretrained, revision, cache):
    """(Description, weights file or None) of a model, fetched if needed, after a check for missing packages."""
    if pretrained is not None and architecture.startswith(("hf-hub:", "local-dir:")):
        raise InputError(
            f"{architecture} brings its own weights, so 'pretrained' ({pretrained}) cannot be set too. To load these "
            "weights with that folder's config, set architecture to the folder's open_clip_config.json."
        )
    if architecture.startswith("hf-hub:"):
        repository = architecture.removeprefix("hf-hub:")
        folder = fetch_snapshot(repository, revision, cache, f"The model {architecture}")
        description = describe_folder(folder)
        _check_packages(description)
        return description, fetch_weights(repository, folder, cache, f"The weights of {architecture}")
    if architecture.startswith("local-dir:"):
        folder = Path(architecture.removeprefix("local-dir:"))
        if not folder.is_dir():
            raise InputError(f"The model folder {folder} does not exist.")
        description = describe_folder(folder)
        _check_packages(description)
        return description, weights_in(folder)
    description = describe_json(architecture) if architecture.endswith(".json") else describe_name(architecture)
    _check_packages(description)
    if pretrained is None:
        return description, None
    tag = open_clip.get_pretrained_cfg(description.name, pretrained)
    if tag:
        description.take_tag(pretrained)
        return description, _fetch_tag(description.name, pretrained, tag, revision, cache)
    path = Path(pretrained)
    if path.is_dir():
        path = weights_in(path)
    if not path.is_file():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(description.name)) or "none"
        raise InputError(f"'{pretrained}' is neither a file nor a tag of {description.name}; its tags: {tags}.")
    description.take_configs_beside(path)
    return description, path


def _fetch_tag(name, tag, config, revision, cache):
    """The weights file of a published tag."""
    subject = f"The weights '{tag}' of {name}"
    if config.get("hf_hub"):
        repository, file = os.path.split(config["hf_hub"])
        return fetch_file(repository, _safest_first(file or HF_WEIGHTS_NAME), revision, cache, subject)
    try:
        return download_pretrained(config, cache_dir=cache)
    except Exception as error:
        raise fetch_error(subject, revision, error) from error


def _safest_first(file):
    """Names that a tag's file has on the hub: safetensors, where the repository has it, before pickle."""
    if file == HF_WEIGHTS_NAME:
        return [HF_SAFE_WEIGHTS_NAME, file]
    return [Path(file).stem + ".safetensors", file] if file.endswith((".bin", ".pth")) else [file]


def _check_packages(description):
    """Raise InputError if a package is missing that the tokenizer or text tower of an architecture needs."""
    missing = [package for package in description.packages() if importlib.util.find_spec(package) is None]
    if missing:
        raise InputError(
            f"{description.name} needs packages for its texts that are not installed: {', '.join(missing)}. Nothing "
            f"was fetched. Run pip install {' '.join(missing)}, or install all of envs/requirements.txt."
        )


def _build_tokenizer(description, cache):
    """The tokenizer of an architecture, from its folder, open_clip, or the hub by way of the cache."""
    text = description.config["text_cfg"]
    context, options = text.get("context_length", 77), text.get("tokenizer_kwargs") or {}
    name = text.get("hf_tokenizer_name")
    subject = f"The tokenizer {name or 'of open_clip'} of {description.name}"
    local = bool(name) and Path(name).is_dir()
    if local and not any((Path(name) / file).is_file() for file in VOCABULARIES):
        raise InputError(
            f"The folder {name} has no tokenizer for the vocabulary of {description.name} "
            f"({text.get('vocab_size')} tokens): put its tokenizer.json there."
        )
    folder = name if local or not name else fetch_snapshot(name, None, cache, subject)
    try:
        if not name:
            return SimpleTokenizer(context_length=context, **options)
        return HFTokenizer(str(folder), context_length=context, tokenizer_mode=text.get("tokenizer_mode"), **options)
    except ImportError as error:
        raise InputError(f"{subject} needs a package that is not installed here: {error}") from error
    except Exception as error:
        if name and not local and not isinstance(error, TypeError):
            raise fetch_error(subject, None, error) from error
        message = f"{subject} cannot be built from its files and tokenizer_kwargs: {short_reason(error)}"
        raise InputError(message) from error


def _build_model(description, cache, *, empty=False):
    """The model of a description, on the CPU in float32, with random weights or empty, for load_weights to fill."""
    config = deepcopy(description.config)
    text, vision = config["text_cfg"], config["vision_cfg"]
    if text.get("hf_model_name"):
        name = text["hf_model_name"]
        if not Path(name).is_dir():
            subject = f"The text tower's config {name} of {description.name}"
            text["hf_model_name"] = str(fetch_snapshot(name, None, cache, subject, ["config.json"]))
        text["hf_model_pretrained"] = False
    if vision.get("timm_model_name"):
        vision["timm_model_pretrained"] = False
    custom = config.pop("custom_text", False) or bool(text.get("hf_model_name"))
    model_class = CoCa if "multimodal_cfg" in config else CustomTextCLIP if custom else CLIP
    try:
        with _EmptyParameters() if empty else nullcontext():
            return model_class(**config)
    except Exception as error:
        raise InputError(f"open_clip cannot build {description.name}: {short_reason(error)}") from error


class _EmptyParameters(TorchFunctionMode):
    """Models built in the `with` block have parameters without values, which take no memory until they are written.

    Buffers, which checkpoints may lack, are computed as usual.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        tensor = args[0] if args else (kwargs or {}).get("tensor")  # as torch.nn.init passes it
        if isinstance(tensor, torch.nn.Parameter) and re.search("[^_]_$", getattr(function, "__name__", "")):
            return tensor  # a function that works in place
        return function(*args, **(kwargs or {}))


def _keep_tower(model, tower):
    """Remove from a model all but one of its towers, "image" or "text"."""
    for name in {key.split(".")[0] for key in model.state_dict()}:
        if not is_kept(name, tower):
            delattr(model, name)

    def refuse(*_, **__):
        raise RuntimeError(f"The model was loaded with its {tower} tower alone (towers={tower!r}).")

    setattr(model, "encode_text" if tower == "image" else "encode_image", refuse)


def _load_big_vision(model, path):
    """Load a .npz of Google's big_vision, the format SigLIP was published in, with open_clip's reader."""
    from open_clip.convert import load_big_vision_weights

    if not zipfile.is_zipfile(path):
        read_checkpoint(path)  # raises an InputError that says what the file is
    try:
        load_big_vision_weights(model, str(path))
    except Exception as error:
        message = f"The weights {path} are not a SigLIP of big_vision of this architecture: {short_reason(error)}"
        raise InputError(message) from error
    with np.load(path) as arrays:
        stored_size = sum(arrays[name].size for name in arrays.files if "opt/" not in name)
    parameters = list(model.parameters())
    block_size = sum(parameter.numel() for parameter in model.text.transformer.resblocks[0].parameters())
    if abs(stored_size - sum(parameter.numel() for parameter in parameters)) >= block_size // 2:
        problem = "so they have more or fewer blocks than the model"
        raise InputError(f"The weights {path} hold {stored_size} numbers, {problem}.")
    if not all(torch.isfinite(parameter).all() for parameter in parameters):
        raise InputError(f"The weights {path} are not all finite numbers.")
