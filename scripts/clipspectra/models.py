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

from clipspectra import InputError, devices


@dataclass
class LoadedModel:
    """An open_clip model in eval mode with what belongs to it.

    preprocess: picture (PIL) -> tensor [3, height, width]; tokenizer: list of texts -> [text, context]
    image_size: (height, width) that the tower takes; sha256: of the weights' file, None for tags and random weights
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


def load(architecture, pretrained, *, device="cpu", precision="fp32", sha256=None):
    """Load an open_clip model in eval mode.

    architecture: open_clip name ("ViT-B-16"), or path of an open_clip model config (JSON)
    pretrained: open_clip tag, path of a checkpoint, or None for random weights
    device: torch device, or "auto" for the best one here
    precision: "fp32"; "tf32"; "bf16" or "fp16", which is the autocast of forward passes, the weights stay float32
    sha256: what the checkpoint file's digest must be

    Raises InputError, naming the nearest choices, for an unknown architecture or tag, a missing or damaged file,
    weights that do not fit, or a device that is not there.
    """
    device = devices.choose(device)
    devices.set_precision(precision)
    name = _register(architecture)
    digest = _check_weights(name, pretrained, sha256)
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(
            name, pretrained=pretrained and str(pretrained), device=device
        )
    except Exception as error:
        what = f"The weights {pretrained} (sha256 {digest})" if digest else f"The weights '{pretrained}'"
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{what} are damaged or do not fit {name}: {reason}") from error
    model.eval().requires_grad_(False)
    height, width = (
        (model.visual.image_size,) * 2 if isinstance(model.visual.image_size, int) else model.visual.image_size
    )
    return LoadedModel(model, preprocess, open_clip.get_tokenizer(name), (height, width), device, digest, precision)


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
    if architecture not in open_clip.list_models():
        nearest = ", ".join(difflib.get_close_matches(architecture, open_clip.list_models())) or "none close"
        raise InputError(f"open_clip has no architecture '{architecture}'; nearest: {nearest}.")
    return architecture


def _check_weights(name, pretrained, expected):
    """sha256 of a checkpoint file, None for a tag or random weights."""
    if pretrained is None:
        return None
    if pretrained in open_clip.list_pretrained_tags_by_model(name):
        return None
    if not os.path.isfile(pretrained):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise InputError(f"'{pretrained}' is neither a file nor a tag of {name}; its tags: {tags}.")
    digest = file_sha256(pretrained)
    if expected not in (None, digest):
        raise InputError(
            f"{pretrained} is damaged or another file: its sha256 is {digest}, expected {expected}. "
            "Fetch it again, or change sha256 in the config."
        )
    return digest
