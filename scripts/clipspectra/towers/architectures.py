"""How a model is built and its images are preprocessed, as names, tags and configs specify it."""

import difflib
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.transform import PreprocessCfg

from clipspectra import InputError
from clipspectra.towers.checkpoints import read_json
from clipspectra.towers.layouts import is_siglip, is_transformers
from clipspectra.towers.model_files import OPEN_CLIP_CONFIG, TRANSFORMERS_CONFIG, VOCABULARIES
from clipspectra.towers.tower import image_size
from clipspectra.towers.transformers_configs import (
    clip_config,
    config_sizes,
    image_processor,
    model_sizes,
    read_activation,
    read_preprocessing,
    siglip_config,
    transformers_config,
)

# Ranks of the sources that specify how a model is used; the first takes precedence.
CONFIG, LIKE, FILES, LAYOUT, PUBLISHED, DEFAULT = range(6)
PREPROCESSING_KEYS = ("mean", "std", "interpolation", "resize_mode")
ALL_PREPROCESSING_KEYS = (*PREPROCESSING_KEYS, "fill_color")  # of the border that resize_mode "longest" adds
INTERPOLATIONS, RESIZE_MODES = ("bicubic", "bilinear"), ("shortest", "longest", "squash")
# Keys of a model config that do not change what a loaded model computes.
IGNORED_KEYS = {
    *("hf_model_pretrained", "timm_model_pretrained"),
    *("timm_drop", "timm_drop_path", "patch_dropout", "output_tokens", "init_logit_bias", "init_logit_scale"),
    *("custom_text", "nonscalar_logit_scale", "quick_gelu", "multimodal_cfg", "vision_cfg", "text_cfg"),
}


@dataclass
class Description:
    """How to build a model and preprocess its images; `settle` chooses between the claims.

    name: of the architecture; config: open_clip's model config; source: where the config is from
    claims: (rank, source, values); values: any of mean, std, interpolation, resize_mode, fill_color and activation
    sizes: (source, {quantity: number}) that a config of transformers specifies, beyond the shapes of the weights
    published: whether it is an architecture of open_clip, which has tags
    from_file: whether the weights come from a file; from_transformers: whether the model is a folder of transformers,
      which may lack its processor; activation_known: whether more than the architecture specifies the activation
    """

    name: str
    config: dict
    source: str
    claims: list = field(default_factory=list)
    sizes: tuple | None = None
    published: bool = False
    from_file: bool = False
    from_transformers: bool = False
    activation_known: bool = False
    used: dict = field(default_factory=dict)
    sources: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)

    @property
    def config_activation(self):
        """The activation in the model config."""
        return "quick_gelu" if self.config.get("quick_gelu") else "gelu"

    def claim(self, rank, source, values):
        """Record the preprocessing and activation of a source; values that are None are left to other sources."""
        values = {key: value for key, value in values.items() if value is not None}
        for key in {"mean", "std"} & set(values):
            channels = values[key] if isinstance(values[key], list | tuple) else [values[key]] * 3
            if len(channels) != 3 or not all(isinstance(channel, int | float) for channel in channels):
                raise InputError(f"{source} has {key} {values[key]}; it must be three numbers.")
            if not all(0 <= channel <= 1 and (channel or key == "mean") for channel in channels):
                raise InputError(f"{source} has {key} {values[key]}; each must be between 0 and 1, and std above 0.")
            values[key] = tuple(map(float, channels))
        for key, known in {"interpolation": INTERPOLATIONS, "resize_mode": RESIZE_MODES}.items():
            if values.get(key, known[0]) not in known:
                raise InputError(f"{source} has {key} {values[key]}; it must be one of {', '.join(known)}.")
        if values:
            self.claims.append((rank, source, values))

    def take_tag(self, tag, rank=FILES):
        """Take the preprocessing and activation of a published tag of the architecture."""
        config = open_clip.get_pretrained_cfg(self.name, tag)
        if not config:
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(self.name)) or "none"
            raise InputError(f"'{tag}', set as 'like', is not a tag of {self.name}; its tags: {tags}.")
        self.claim(rank, f"the tag {tag}", _tag_values(config))

    def take_configs_beside(self, path):
        """Take the claims of configs beside a weights file. Raises InputError where they describe another model."""
        self.from_file = True
        folder = Path(path).parent
        if (folder / OPEN_CLIP_CONFIG).is_file():
            self._take_config_beside(describe_json(folder / OPEN_CLIP_CONFIG), folder)
        self.take_transformers(folder)

    def _take_config_beside(self, description, folder):
        """Take the claims of the Description in the folder of the weights, if it is of the same model."""
        ours, theirs = _comparable_config(self.config), _comparable_config(description.config)
        for key in [key for key in ours if ours[key] != theirs.get(key)]:
            raise InputError(
                f"{description.source}, beside the weights, has {key} {theirs.get(key)}; {self.source} has "
                f"{ours[key]}. Set architecture: local-dir:{folder}, or correct the config."
            )
        self.claims += description.claims
        self.claim(FILES, description.source, {"activation": description.config_activation})

    def take_transformers(self, folder):
        """Take what transformers wrote into a folder: the model's activation and sizes, and its preprocessing."""
        config, size = transformers_config(folder), self.config["vision_cfg"].get("image_size", 224)
        if config is not None:
            source = str(folder / TRANSFORMERS_CONFIG)
            self.claim(FILES, source, {"activation": read_activation(config, source)})
            self.sizes = source, config_sizes(config)
            size = self.sizes[1]["px as the image size"]
        processor = image_processor(folder)
        if processor is not None:
            path, content = processor
            model_type = (config or {}).get("model_type", "clip")
            self.claim(FILES, str(path), read_preprocessing(content, model_type, size, path))

    def take_layout(self, checkpoint):
        """Take what a checkpoint's layout fixes: OpenAI's models and transformers' SigLIPs each have one activation."""
        if checkpoint.openai:
            default = {key: getattr(PreprocessCfg(), key) for key in PREPROCESSING_KEYS}
            self.claim(LAYOUT, "OpenAI's own layout", default | {"activation": "quick_gelu"})
        elif is_transformers(checkpoint.tensors) and is_siglip(checkpoint.tensors):
            self.claim(LAYOUT, "transformers' SigLIP", {"activation": "gelu_tanh"})

    def settle(self):
        """Choose between the claims: `used` has the values, `sources` their sources, `notes` what nothing decides.

        Raises InputError where the activation beside the weights is not the architecture's, and no key decides.
        """
        default = self.config_activation
        if self.from_file and self.published:
            self._claim_published()
        defaults = {key: getattr(PreprocessCfg(), key) for key in ALL_PREPROCESSING_KEYS}
        self.claim(DEFAULT, "open_clip's default", defaults)
        self.claim(DEFAULT, self.source, {"activation": default})
        claims, ranks = sorted(self.claims, key=lambda claim: claim[0]), {}
        for key in (*ALL_PREPROCESSING_KEYS, "activation"):
            ranks[key], self.sources[key], self.used[key] = next(
                (rank, source, values[key]) for rank, source, values in claims if key in values
            )
        activation = self.used["activation"]
        if self.from_file and ranks["activation"] == FILES and {default, activation} == {"gelu", "quick_gelu"}:
            raise InputError(
                f"{self.sources['activation']}, beside the weights, has the activation {activation}; "
                f"{self.source} has {default}. Set quick_gelu: {str(activation == 'quick_gelu').lower()} to use it."
            )
        quickgelu_name = f"{self.name}-quickgelu"
        if self.from_file and self.published and ranks["activation"] == PUBLISHED:
            self.notes.append(
                "no file beside these weights specifies their activation; QuickGELU is used, which all published "
                f"weights of {self.name} need. If these were trained without it, set quick_gelu: false."
            )
        undecided = ranks["activation"] == DEFAULT and all(rank != LIKE for rank, *_ in claims)  # a tag has its own
        if self.from_file and self.published and undecided and quickgelu_name in open_clip.list_models():
            self.notes.append(
                f"nothing specifies whether these weights need QuickGELU; {default} is used. OpenAI's, MetaCLIP's and "
                f"DFN's weights need it: set quick_gelu, or set architecture to {quickgelu_name}."
            )
        if activation == "quick_gelu" != default and self.config["vision_cfg"].get("timm_model_name"):
            raise InputError(f"{self.name} has an image tower of timm, which does not support QuickGELU.")
        if self.from_transformers and not any(ranks[key] < DEFAULT for key in ("mean", "std")):
            self.notes.append(
                f"no file beside {self.source} specifies the preprocessing; open_clip's default is used. Set mean and "
                "std, or put the preprocessor_config.json there."
            )
        self.config["quick_gelu"], self.activation_known = activation == "quick_gelu", ranks["activation"] < DEFAULT

    def _claim_published(self):
        """Claim the preprocessing and activation of all published weights, or note that these differ."""
        tags = open_clip.list_pretrained_tags_by_model(self.name)
        published = [_tag_values(open_clip.get_pretrained_cfg(self.name, tag)) for tag in tags]
        if published and all(values["activation"] for values in published) and not self.config.get("quick_gelu"):
            self.claim(PUBLISHED, f"all published weights of {self.name}", {"activation": "quick_gelu"})
        published = [
            {key: values[key] for key in PREPROCESSING_KEYS if values[key] is not None} for values in published
        ]
        first = next(iter(published), {})
        if all(values == first for values in published):
            self.claim(PUBLISHED, f"all published weights of {self.name}", first)
        elif not set(PREPROCESSING_KEYS) <= {key for _, _, values in self.claims for key in values}:
            differing = [key for key in PREPROCESSING_KEYS if len({values.get(key) for values in published}) > 1]
            self.notes.append(
                f"published weights of {self.name} differ in {' and '.join(differing)}, and nothing specifies which "
                "these weights need; open_clip's default is used. Set 'like' to a tag, or set the values."
            )

    def set_activation(self, model):
        """Set the GELUs of a built model to the chosen activation, and record in `used` what each tower has."""
        if self.activation_known and self.used["activation"] != "quick_gelu":
            for module in model.modules():
                if isinstance(module, torch.nn.GELU):
                    module.approximate = "tanh" if self.used["activation"] == "gelu_tanh" else "none"
        text_tower = model.text if hasattr(model, "text") else model.transformer
        image, text = _activations(model.visual), _activations(text_tower)
        self.used["activation"] = image if image == text else f"image {image}, text {text}"

    def check_sizes(self, model):
        """Raise InputError if a config of transformers beside the weights describes another model than the one built,
        or if a timm tower takes another image size than the preprocessing produces."""
        patch_embed = getattr(getattr(model.visual, "trunk", None), "patch_embed", None)
        tower_size, size = getattr(patch_embed, "img_size", None), image_size(model.visual)
        if tower_size is not None and tuple(tower_size) != size and getattr(patch_embed, "strict_img_size", True):
            raise InputError(f"{self.source} has images of {size[0]} px, but its timm tower takes {tower_size[0]} px.")
        if self.sizes is None:
            return
        source, sizes = self.sizes
        built = model_sizes(model)
        for quantity, number in sizes.items():
            if built.get(quantity) != number:
                raise InputError(
                    f"{source}, beside the weights, has {number} {quantity}; {self.name} has {built.get(quantity)}."
                )

    def packages(self):
        """Packages beyond those of open_clip that the model's tokenizer or text tower needs."""
        text = self.config["text_cfg"]
        return ("transformers", "sentencepiece") if text.get("hf_tokenizer_name") or text.get("hf_model_name") else ()

    def table(self, image_size):
        """The settings used, as one row of a table: texts and numbers."""
        text = self.config["text_cfg"]
        names = {key: ", ".join(map(str, self.used[key])) for key in ("mean", "std")}
        sources = dict.fromkeys(self.sources[key] for key in PREPROCESSING_KEYS)
        tokenizer = text.get("hf_tokenizer_name") or "open_clip's BPE"
        tokenizer = Path(tokenizer).name if Path(tokenizer).is_dir() else tokenizer  # without the path on this machine
        return {
            "architecture": self.name,
            "image_size": f"{image_size[0]} × {image_size[1]}",
            **{key: names.get(key, self.used[key]) for key in PREPROCESSING_KEYS},
            "preprocessing_from": "; ".join(Path(source).name for source in sources),
            "activation": self.used["activation"],
            "activation_from": Path(self.sources["activation"]).name,
            "tokenizer": tokenizer,
            "context": text.get("context_length", CLIPTextCfg.context_length),
            "text_heads": "" if text.get("hf_model_name") else text.get("heads", CLIPTextCfg.heads),
            # the shapes of weights do not determine the number of heads
            "heads_from": Path(self.sizes[0] if self.sizes else self.source).name,
        }


def describe_name(name):
    """The Description of an architecture of open_clip."""
    if Path(name).is_dir():
        raise InputError(f"{name} is a folder; write local-dir:{name} to load the model in it.")
    if name not in open_clip.list_models():
        nearest = ", ".join(difflib.get_close_matches(name, open_clip.list_models())) or "none close"
        raise InputError(f"open_clip has no architecture '{name}'; nearest: {nearest}.")
    return Description(name, open_clip.get_model_config(name), name, published=True)


def describe_json(path):
    """The Description of an open_clip model config, or of an open_clip_config.json, which contains one."""
    content = read_json(path)
    config = content.get("model_cfg", content)
    missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(config if isinstance(config, dict) else ())
    if missing:
        raise InputError(f"{path} is not an open_clip model config: it lacks {', '.join(sorted(missing))}.")
    preprocessing = content.get("preprocess_cfg") or {}
    if not all(isinstance(section, dict) for section in (config["vision_cfg"], config["text_cfg"], preprocessing)):
        raise InputError(f"{path} is not an open_clip model config: vision_cfg and text_cfg must be objects with keys.")
    unknown = sorted(set(preprocessing) - {*ALL_PREPROCESSING_KEYS, "size", "mode"})
    if unknown:
        known = ", ".join(ALL_PREPROCESSING_KEYS)
        raise InputError(f"{path} has preprocess_cfg.{unknown[0]}, which is not known; use {known}.")
    if not isinstance(config.get("quick_gelu", False), bool):
        raise InputError(f"{path} has quick_gelu {config['quick_gelu']!r}; it must be true or false.")
    if preprocessing.get("mode", "RGB") != "RGB":
        raise InputError(f"{path} converts images to {preprocessing['mode']}; only RGB is supported.")
    result = Description(Path(path).stem, config, str(path))
    result.claim(FILES, str(path), {key: preprocessing.get(key) for key in ALL_PREPROCESSING_KEYS})
    return result


def describe_folder(folder):
    """The Description of a folder that open_clip or transformers wrote."""
    folder, builders = Path(folder), {"clip": clip_config, "siglip": siglip_config}
    config = transformers_config(folder)
    if (folder / OPEN_CLIP_CONFIG).is_file():
        result = describe_json(folder / OPEN_CLIP_CONFIG)
        result.name = folder.name
        result.claim(FILES, result.source, {"activation": result.config_activation})
        if image_processor(folder) and not result.claims[:-1]:  # it does not specify the preprocessing itself
            result.take_transformers(folder)
            result.sizes = None
    elif config is not None:
        name, model_config = builders[config["model_type"]](folder, config)
        result = Description(name, model_config, str(folder / TRANSFORMERS_CONFIG), from_transformers=True)
        if name in open_clip.list_models():
            result.published = result.from_file = True
        result.take_transformers(folder)
    else:
        raise InputError(
            f"The model folder {folder} has no {OPEN_CLIP_CONFIG} and no config.json of transformers' CLIP or SigLIP."
        )
    text = result.config["text_cfg"]
    if text.get("hf_tokenizer_name") and any((folder / name).is_file() for name in VOCABULARIES):
        text["hf_tokenizer_name"] = str(folder)
    return result


def _activations(tower):
    """Names of the activations in a tower's blocks, as built."""
    names = set()
    for module in tower.modules():
        name = type(module).__name__
        if (isinstance(module, torch.nn.GELU) and module.approximate == "tanh") or name == "GELUTanh":
            names.add("gelu_tanh")
        elif re.fullmatch(r"(Quick)?GELU(Activation)?|SiLU|ReLU", name):
            names.add({"QuickGELU": "quick_gelu"}.get(name, name.removesuffix("Activation").lower()))
    return " and ".join(sorted(names)) or "none"


def _tag_values(config):
    """Preprocessing and activation of a published tag, None where it does not specify them."""
    activation = "quick_gelu" if config.get("quick_gelu") else None
    return {key: config.get(key) for key in PREPROCESSING_KEYS} | {"activation": activation}


def _comparable_config(config):
    """A model config with its defaults, flat, without keys that do not change what the model computes."""
    vision, text = asdict(CLIPVisionCfg()) | config["vision_cfg"], asdict(CLIPTextCfg()) | config["text_cfg"]
    if vision["timm_model_name"]:  # its name determines the rest
        vision = {key: value for key, value in vision.items() if key.startswith("timm") or key == "image_size"}
    result = {key: value for key, value in config.items() if key not in IGNORED_KEYS}
    for tower, tower_config in (("vision_cfg", vision), ("text_cfg", text)):
        result |= {f"{tower}.{key}": value for key, value in tower_config.items() if key not in IGNORED_KEYS}
    for key in ("vision_cfg.norm_kwargs", "text_cfg.norm_kwargs"):  # the default, given explicitly
        result[key] = None if result.get(key) == {"eps": 1e-5} else result.get(key)
    for key in ("vision_cfg.mlp_ratio", "text_cfg.mlp_ratio"):
        if key in result:
            result[key] = int(result[key.replace("mlp_ratio", "width")] * result[key])
    size = result["vision_cfg.image_size"]
    result["vision_cfg.image_size"] = list(size) if isinstance(size, list | tuple) else [size, size]
    return result
