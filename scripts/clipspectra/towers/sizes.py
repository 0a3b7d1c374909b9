"""How big a model is, by its config and files alone. Without torch: rules import it, to ask a cluster for memory."""

import json
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from clipspectra.towers.model_files import OPEN_CLIP_CONFIG


@dataclass(frozen=True)
class Size:
    """Numbers of a model's parameters (of both towers, and of each), layers, heads of a layer, tokens, and widths."""

    parameters: float
    image_parameters: float
    text_parameters: float  # without the embeddings of its vocabulary
    layers: int
    heads: int
    tokens: int
    d_model: int
    d_embed: int


# Taken for a model whose config leaves its towers to another library: a ViT-H-14 is bigger than most.
UNKNOWN = Size(9.9e8, 6.3e8, 3.0e8, 32, 16, 257, 1280, 1024)


def model_size(architecture, weights=()):
    """Size of a model, by the name of its architecture or the place of its config, and the files of its weights."""
    size = _size_of(_config(architecture))
    # A file in half precision has two bytes a parameter.
    return replace(size, parameters=max(size.parameters, sum(Path(path).stat().st_size for path in weights) / 2))


def _config(architecture):
    """open_clip's config of an architecture, by its name, file or folder; {} if there is none to read."""
    places = [Path(architecture), Path(architecture.removeprefix("local-dir:")) / OPEN_CLIP_CONFIG]
    if package := find_spec("open_clip"):  # which Snakemake's own environment may lack
        places.append(Path(package.origin).parent / "model_configs" / f"{architecture.replace('/', '-')}.json")
    for path in places:
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
            return content.get("model_cfg", content)
        except (OSError, ValueError, AttributeError):  # what cannot be read, the job that loads the model reports
            continue
    return {}


def _size_of(config):
    """Size of a model of open_clip's own towers by its config, else UNKNOWN."""
    try:
        image, text = config["vision_cfg"], config["text_cfg"]
        width, layers, side = image["width"], image["layers"], image["image_size"]
        text_parameters = text["layers"] * 12 * text["width"] ** 2
        if isinstance(layers, list):  # a ResNet, with one layer of heads at its end
            image_parameters = width**2 * (3000 + 400 * sum(layers))  # RN50: 38 million, as it has
            layers, heads, width, tokens = 1, width // 2, 32 * width, (side // 32) ** 2 + 1
        else:
            image_parameters = layers * (4 + 2 * image.get("mlp_ratio", 4)) * width**2
            heads, tokens = width // image.get("head_width", 64), (side // image["patch_size"]) ** 2 + 1
        parameters = image_parameters + text_parameters + text["vocab_size"] * text["width"]
        return Size(
            *(parameters, image_parameters, text_parameters),
            *(layers, heads, tokens, width, config["embed_dim"]),
        )
    except (KeyError, TypeError, AttributeError, ZeroDivisionError):
        return UNKNOWN
