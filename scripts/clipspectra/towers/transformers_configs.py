"""Read the configs of a CLIP or SigLIP of transformers as open_clip's model configs and preprocessing."""

import re
from pathlib import Path

import open_clip
import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, SimpleTokenizer
from open_clip.model import CLIPTextCfg, _build_vision_tower

from clipspectra import InputError
from clipspectra.towers.checkpoints import read_json
from clipspectra.towers.model_files import PREPROCESSOR_CONFIG, PROCESSOR_CONFIG, TRANSFORMERS_CONFIG
from clipspectra.towers.tower import image_size

# Activations: names in transformers -> names here.
ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}

# Defaults of CLIP and SigLIP, which transformers leaves out of a config.json.
_COMMON = {"image_size": 224, "num_hidden_layers": 12, "num_channels": 3}
_VISION = _COMMON | {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
_TEXT = _COMMON | {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
_DEFAULTS = {
    ("clip", "vision_config"): _VISION | {"patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    ("clip", "text_config"): _TEXT
    | {"vocab_size": 49408, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    ("siglip", "vision_config"): _VISION
    | {"patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
    ("siglip", "text_config"): _VISION
    | {"vocab_size": 32000, "max_position_embeddings": 64, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
}


def transformers_config(folder):
    """The config.json of transformers in a folder if it describes a CLIP or a SigLIP, else None."""
    path = Path(folder) / TRANSFORMERS_CONFIG
    config = read_json(path) if path.is_file() else {}
    return config if config.get("model_type") in ("clip", "siglip") else None


def tower_config(config, section):
    """A tower's section of a config.json with its defaults; the older `_dict` form takes precedence."""
    given = (config.get(section) or {}) | (config.get(f"{section}_dict") or {})
    return _DEFAULTS[config["model_type"], section] | given


def read_activation(config, source):
    """The activation of both towers. Raises InputError for one that open_clip's towers lack."""
    vision, text = (tower_config(config, section)["hidden_act"] for section in ("vision_config", "text_config"))
    known = ACTIVATIONS if config["model_type"] == "clip" else {"gelu", "gelu_new", "gelu_pytorch_tanh"}
    if vision != text or vision not in known:
        raise InputError(f"{source} has the activations {vision} and {text}; both must be one of {', '.join(known)}.")
    return ACTIVATIONS[vision]


def clip_config(folder, config):
    """(name, open_clip's model config) of a CLIP of transformers in a folder."""
    vision, text = (tower_config(config, section) for section in ("vision_config", "text_config"))
    towers = {
        "vision_cfg": vision | {"head_width": vision["hidden_size"] // vision["num_attention_heads"]},
        "text_cfg": text | {"heads": text["num_attention_heads"], "context_length": text["max_position_embeddings"]},
    }
    names = {"vision_cfg": ("image_size", "patch_size", "head_width")}
    names["text_cfg"] = ("vocab_size", "heads", "context_length")
    result = {"embed_dim": config.get("projection_dim", 512)}
    for tower, values in towers.items():
        result[tower] = {name: values[name] for name in names[tower]}
        result[tower] |= {"width": values["hidden_size"], "layers": values["num_hidden_layers"]}
        # open_clip rounds width × ratio down
        result[tower] |= {"mlp_ratio": (values["intermediate_size"] + 0.5) / values["hidden_size"]}
        result[tower] |= {"norm_kwargs": {"eps": values["layer_norm_eps"]}}
    result["quick_gelu"] = vision["hidden_act"] == "quick_gelu"
    eos = text.get("eos_token_id", 49407)
    if not isinstance(eos, int):
        raise InputError(f"{Path(folder) / TRANSFORMERS_CONFIG} has eos_token_id {eos}; it must be one number.")
    if eos not in (2, text["vocab_size"] - 1):  # 2 stands for the largest token, which ends OpenAI's texts
        result["text_cfg"] |= {"pool_type": "eos", "eos_id": eos}
    if not _has_openai_vocabulary(Path(folder), text["vocab_size"]):
        result["text_cfg"]["hf_tokenizer_name"] = str(folder)
    return Path(folder).name, result


def _has_openai_vocabulary(folder, size):
    """Whether a folder's tokenizer has the vocabulary of OpenAI's CLIP, that of open_clip's own tokenizer."""
    if size != CLIPTextCfg.vocab_size:
        return False
    if (folder / "tokenizer.json").is_file():
        vocabulary = read_json(folder / "tokenizer.json").get("model", {}).get("vocab")
    elif (folder / "vocab.json").is_file():
        vocabulary = read_json(folder / "vocab.json")
    else:
        return True
    return vocabulary == SimpleTokenizer().encoder


def config_sizes(config):
    """{quantity: number} in a config.json, of those that the shapes of weights do not determine and a few others."""
    result = {}
    for section, tower in (("vision_config", "image"), ("text_config", "text")):
        values = tower_config(config, section)
        result |= {
            f"layers in the {tower} tower": values["num_hidden_layers"],
            f"heads per layer in the {tower} tower": values["num_attention_heads"],
            f"as the width of the {tower} tower": values["hidden_size"],
            f"as layer_norm_eps of the {tower} tower": values["layer_norm_eps"],
        }
    return result | {"px as the image size": tower_config(config, "vision_config")["image_size"]}


def model_sizes(model):
    """{quantity: number} of an open_clip model, with the keys of config_sizes; {} if its image tower is not a ViT."""
    visual, result = model.visual, {}
    trunk = getattr(visual, "trunk", None)
    image_blocks = getattr(trunk, "blocks", None) or getattr(getattr(visual, "transformer", None), "resblocks", None)
    text_blocks = getattr(getattr(getattr(model, "text", model), "transformer", None), "resblocks", None)
    if image_blocks is None or text_blocks is None:
        return {}
    for blocks, tower in ((image_blocks, "image"), (text_blocks, "text")):
        norm = getattr(blocks[0], "norm1", None) or blocks[0].ln_1
        result |= {
            f"layers in the {tower} tower": len(blocks),
            f"heads per layer in the {tower} tower": blocks[0].attn.num_heads,
            f"as the width of the {tower} tower": norm.normalized_shape[0],
            f"as layer_norm_eps of the {tower} tower": norm.eps,
        }
    return result | {"px as the image size": image_size(visual)[0]}


def siglip_config(folder, config):
    """(name, open_clip's model config) of the architecture with the sizes of a SigLIP of transformers."""
    vision, text = (tower_config(config, section) for section in ("vision_config", "text_config"))
    sizes = (vision["image_size"], text["vocab_size"], text["max_position_embeddings"])
    for name in open_clip.list_models():
        candidate = open_clip.get_model_config(name)
        vision_cfg, text_cfg = candidate["vision_cfg"], candidate["text_cfg"]
        candidate_sizes = (vision_cfg.get("image_size"), text_cfg.get("vocab_size"), text_cfg.get("context_length"))
        if "SigLIP" not in name or sizes != candidate_sizes or text_cfg["width"] != text["hidden_size"]:
            continue
        with torch.device("meta"):
            trunk = _build_vision_tower(candidate["embed_dim"], vision_cfg).trunk
        shape = (trunk.embed_dim, len(trunk.blocks), trunk.patch_embed.patch_size[0])
        if shape == (vision["hidden_size"], vision["num_hidden_layers"], vision["patch_size"]):
            return name, candidate
    raise InputError(
        f"{Path(folder) / TRANSFORMERS_CONFIG} describes a SigLIP whose sizes no architecture of open_clip has: "
        f"{vision['hidden_size']} wide, {vision['num_hidden_layers']} layers, {vision['image_size']} px."
    )


# Defaults of transformers' image processors, for keys that their config leaves out.
_OPENAI = {"image_mean": OPENAI_DATASET_MEAN, "image_std": OPENAI_DATASET_STD}
_HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_PROCESSORS = {
    "clip": _OPENAI | {"resample": 3, "do_center_crop": True},
    "siglip": _HALF | {"resample": 3, "do_center_crop": False},
    "vit": _HALF | {"resample": 2, "do_center_crop": False},
}


def image_processor(folder):
    """(path, config) of the image processor of transformers in a folder, from either of its files; or None."""
    for name in (PREPROCESSOR_CONFIG, PROCESSOR_CONFIG):
        path = Path(folder) / name
        if path.is_file():
            config = read_json(path)
            config = config.get("image_processor", {}) if name == PROCESSOR_CONFIG else config
            if config:
                return path, config
    return None


def read_preprocessing(config, model_type, image_size, path):
    """The preprocessing in an image processor's config. Raises InputError for steps that open_clip does not support.

    model_type: clip or siglip, used where the config does not name its processor
    """
    name = config.get("image_processor_type") or config.get("feature_extractor_type") or model_type
    kind = re.sub("(image_?processor|featureextractor).*", "", name.lower())
    if kind not in _PROCESSORS:
        raise InputError(
            f"{path} is the config of a {name}, which is not supported; set mean, std, interpolation and resize_mode."
        )
    config = _PROCESSORS[kind] | {key: value for key, value in config.items() if value is not None}
    square = {"height": image_size, "width": image_size}
    size, crop = config.get("size", image_size), config.get("crop_size", image_size)
    if isinstance(size, int):
        size = {"shortest_edge": size} if kind == "clip" else {"height": size, "width": size}
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    cropped = config["do_center_crop"]
    shortest = size == {"shortest_edge": image_size} and cropped and crop == square
    squash = size == square and (not cropped or crop == square)
    scaled = config.get("do_rescale", True) and abs(config.get("rescale_factor", 1 / 255) * 255 - 1) < 1e-6
    interpolation = {2: "bilinear", 3: "bicubic"}.get(config["resample"])
    if not (shortest or squash) or not scaled or not config.get("do_resize", True) or interpolation is None:
        shown = {key: config.get(key) for key in ("size", "crop_size", "do_resize", "do_rescale", "resample")}
        raise InputError(
            f"{path} has preprocessing that is not supported for images of {image_size} px: {shown}. Correct it, or "
            "remove it and set mean, std, interpolation and resize_mode."
        )
    values = {"mean": config["image_mean"], "std": config["image_std"]}
    if not config.get("do_normalize", True):
        values = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    return values | {"interpolation": interpolation, "resize_mode": "shortest" if shortest else "squash"}
