"""The configs that transformers writes beside a CLIP or a SigLIP, as open_clip's model configs and preprocessing."""

from pathlib import Path

import open_clip
import torch
from open_clip.model import CLIPTextCfg, _build_vision_tower

from clipspectra import InputError
from clipspectra.model_files import TRANSFORMERS_CONFIG

# What transformers leaves out of a config.json where it is the default: of CLIP, and of SigLIP.
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


def tower_config(config, part):
    """A tower's part of a config.json, with what transformers leaves out."""
    return _DEFAULTS[config["model_type"], part] | (config.get(part) or {})


def clip_config(folder, config):
    """(name, open_clip's model config) of a CLIP of transformers in a folder."""
    vision, text = (tower_config(config, part) for part in ("vision_config", "text_config"))
    sides = {
        "vision_cfg": vision | {"head_width": vision["hidden_size"] // vision["num_attention_heads"]},
        "text_cfg": text | {"heads": text["num_attention_heads"], "context_length": text["max_position_embeddings"]},
    }
    names = {"vision_cfg": ("image_size", "patch_size", "head_width")}
    names["text_cfg"] = ("vocab_size", "heads", "context_length")
    result = {"embed_dim": config.get("projection_dim", 512)}
    for side, values in sides.items():
        result[side] = {name: values[name] for name in names[side]}
        result[side] |= {"width": values["hidden_size"], "layers": values["num_hidden_layers"]}
        result[side] |= {"mlp_ratio": values["intermediate_size"] / values["hidden_size"]}
        result[side] |= {"norm_kwargs": {"eps": values["layer_norm_eps"]}}
    result["quick_gelu"] = vision["hidden_act"] == "quick_gelu"
    if text["vocab_size"] != CLIPTextCfg.vocab_size:  # another vocabulary than OpenAI's: the folder's own tokenizer
        result["text_cfg"]["hf_tokenizer_name"] = str(folder)
        if text.get("eos_token_id", 49407) != 2:  # 2 stands for the largest token, as in OpenAI's
            result["text_cfg"] |= {"pool_type": "eos", "eos_id": text.get("eos_token_id", 49407)}
    return Path(folder).name, result


def siglip_config(folder, config):
    """(name, open_clip's model config) of a SigLIP of transformers: of the architecture that has its sizes."""
    vision, text = (tower_config(config, part) for part in ("vision_config", "text_config"))
    sizes = (vision["image_size"], text["vocab_size"], text["max_position_embeddings"])
    for name in open_clip.list_models():
        ours = open_clip.get_model_config(name)
        text_cfg = ours["text_cfg"]
        theirs = (ours["vision_cfg"].get("image_size"), text_cfg.get("vocab_size"), text_cfg.get("context_length"))
        if "SigLIP" not in name or sizes != theirs or text_cfg["width"] != text["hidden_size"]:
            continue
        with torch.device("meta"):
            trunk = _build_vision_tower(ours["embed_dim"], ours["vision_cfg"]).trunk
        shape = (trunk.embed_dim, len(trunk.blocks), trunk.patch_embed.patch_size[0])
        if shape == (vision["hidden_size"], vision["num_hidden_layers"], vision["patch_size"]):
            return name, ours
    raise InputError(
        f"{Path(folder) / TRANSFORMERS_CONFIG} is a SigLIP of a size that open_clip has no architecture for: "
        f"{vision['hidden_size']} wide, {vision['num_hidden_layers']} layers, {vision['image_size']} px."
    )


def preprocessing_of(config, image_size, path):
    """What a preprocessor_config.json of transformers says. Raises InputError for a way that open_clip has not."""
    size, crop = config.get("size", image_size), config.get("crop_size", image_size)
    size = {"shortest_edge": size} if isinstance(size, int) else size
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    kinds = {2: "bilinear", 3: "bicubic"}
    edge, cropped = size.get("shortest_edge"), config.get("do_center_crop", "shortest_edge" in size)
    whole = {"height": image_size, "width": image_size}
    as_open_clip = size == whole or (edge, cropped, crop) == (image_size, True, whole)
    if config.get("resample", 3) not in kinds or not as_open_clip:
        raise InputError(
            f"{path} prepares pictures in a way that is not taken here (size {size}, crop "
            f"{crop if cropped else 'none'}, resample {config.get('resample')}); the images are {image_size} px."
        )
    values = {"mean": config.get("image_mean"), "std": config.get("image_std")}
    if config.get("do_normalize") is False:
        values = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    return values | {"interpolation": kinds[config.get("resample", 3)], "resize_mode": "shortest" if edge else "squash"}
