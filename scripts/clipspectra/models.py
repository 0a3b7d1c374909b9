"""Loading any open_clip model the one way: architecture and weights in, model, preprocessing and tokenizer out."""

import difflib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from huggingface_hub import snapshot_download
from open_clip.factory import _find_checkpoint_in_dir
from open_clip.pretrained import download_pretrained, download_pretrained_from_hf

from clipspectra import InputError, devices


@dataclass
class LoadedModel:
    """An open_clip model in eval mode with what belongs to it.

    preprocess: picture (PIL) -> tensor [3, height, width]; tokenizer: list of texts -> [text, context]
    image_size: (height, width) that the tower takes; sha256: of the weights' file, None for random weights
    precision: of forward passes, see load; autocast(): the context to run them in
    """

    model: torch.nn.Module
    preprocess: Callable
    tokenizer: Callable
    image_size: tuple[int, int]
    device: torch.device
    sha256: str | None
    precision: str = "fp32"

    def autocast(self):
        return devices.autocast(self.device, self.precision)


def load(architecture, pretrained, *, device="cpu", precision="fp32", sha256=None, revision=None, cache=None):
    """Load an open_clip model in eval mode.

    architecture: open_clip name ("ViT-B-16"); path of an open_clip model config (JSON); "hf-hub:owner/name" or
      "local-dir:path", which bring their own weights
    pretrained: open_clip tag, path of a checkpoint, or None for random weights
    device: torch device, or "auto" for the best one here
    precision: "fp32"; "tf32"; "bf16" or "fp16", which is the autocast of forward passes, the weights stay float32
    sha256: what the digest of the weights' file must be; revision: commit, branch or tag of the hub's repository
    cache: folder for weights from the hub, None for the hub's own

    Raises InputError, naming the nearest choices, for an unknown architecture or tag, a missing or damaged file,
    weights that cannot be fetched or do not fit, or a device that is not there.
    """
    device = devices.choose(device)
    devices.set_precision(precision)
    name = _register(architecture)
    if name.startswith("hf-hub:"):
        name = _from_hub(name.removeprefix("hf-hub:"), revision, cache)
    if name.startswith("local-dir:"):
        weights, options = _checkpoint_in(Path(name.removeprefix("local-dir:"))), {}
    else:
        weights, options = _weights(name, pretrained, revision, cache)
    digest = file_sha256(weights) if weights else None
    if sha256 not in (None, digest):
        raise InputError(
            f"{pretrained or architecture} is damaged or another file: its sha256 is {digest}, expected {sha256}. "
            "Fetch it again, or change sha256 in the config."
        )
    source = None if name.startswith("local-dir:") else weights and str(weights)
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=source, device=device, **options)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"The weights {pretrained or architecture} (sha256 {digest}) are damaged or do not fit {name}: {reason}"
        ) from error
    model.eval().requires_grad_(False)
    height, width = (
        (model.visual.image_size,) * 2 if isinstance(model.visual.image_size, int) else model.visual.image_size
    )
    return LoadedModel(model, preprocess, tokenizer, (height, width), device, digest, precision)


def file_sha256(path):
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _register(architecture):
    """The open_clip name of an architecture; a config file is registered under its own stem."""
    path = Path(architecture)
    if path.suffix == ".json":
        try:
            config = json.loads(path.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise InputError(f"The model config {path} cannot be read: {error}.") from error
        missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(config)
        if missing:
            raise InputError(f"{path} is no open_clip model config: it lacks {', '.join(sorted(missing))}.")
        open_clip.add_model_config(path)
        return path.stem
    if architecture.startswith(("hf-hub:", "local-dir:")):
        return architecture
    if architecture not in open_clip.list_models():
        nearest = ", ".join(difflib.get_close_matches(architecture, open_clip.list_models())) or "none close"
        raise InputError(f"open_clip has no architecture '{architecture}'; nearest: {nearest}.")
    return architecture


def _weights(name, pretrained, revision, cache):
    """(the weights' file or None, what goes with it) of a tag, fetched if need be, or of a checkpoint."""
    if pretrained is None:
        return None, {}
    config = open_clip.get_pretrained_cfg(name, pretrained)
    if not config:
        if not os.path.isfile(pretrained):
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
            raise InputError(f"'{pretrained}' is neither a file nor a tag of {name}; its tags: {tags}.")
        return pretrained, {}
    try:
        if config.get("hf_hub"):
            repository, file = os.path.split(config["hf_hub"])
            path = download_pretrained_from_hf(repository, filename=file or None, revision=revision, cache_dir=cache)
        else:
            path = download_pretrained(config, cache_dir=cache)
    except Exception as error:
        raise _not_fetched(f"The weights '{pretrained}' of {name}", revision, error) from error
    # The tag's own preprocessing, which a bare file does not know.
    known = {"image_mean": "mean", "image_std": "std", "image_interpolation": "interpolation"}
    known["image_resize_mode"] = "resize_mode"
    options = {option: config[key] for option, key in known.items() if config.get(key) is not None}
    # open_clip itself only warns of a tag that was trained with QuickGELU, and the numbers are wrong.
    return path, options | {"force_quick_gelu": config.get("quick_gelu", False)}


def _from_hub(repository, revision, cache):
    """ "local-dir:" of a hub repository's snapshot, fetched if need be: its config, tokenizer and weights."""
    try:
        folder = snapshot_download(
            repository, revision=revision, cache_dir=cache, allow_patterns=["*.json", "*.txt", "*.model"]
        )
        download_pretrained_from_hf(repository, revision=revision, cache_dir=cache)
    except Exception as error:
        raise _not_fetched(f"The model hf-hub:{repository}", revision, error) from error
    return f"local-dir:{folder}"


def _not_fetched(what, revision, error):
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    of = f" at revision {revision}" if revision else ""
    return InputError(f"{what}{of} cannot be fetched, and the cache lacks it: {reason}")


def _checkpoint_in(folder):
    """The file that open_clip takes from a folder of a model."""
    if not (folder / "open_clip_config.json").is_file():
        raise InputError(f"The model folder {folder} has no open_clip_config.json.")
    path = _find_checkpoint_in_dir(folder)
    if path is None:
        raise InputError(f"The model folder {folder} has no weights.")
    return path
