"""What a model is built as and how its pictures are prepared, from whatever says so: names, tags, configs."""

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
from clipspectra.towers.transformers_configs import (
    activation_of,
    clip_config,
    image_processor,
    preprocessing_of,
    siglip_config,
    sizes_of_config,
    sizes_of_model,
    transformers_config,
)

# Who decides between claims of how a model is used, the first one first.
CONFIG, LIKE, FILES, LAYOUT, PUBLISHED, DEFAULT = range(6)
KEYS = ("mean", "std", "interpolation", "resize_mode")
ALL_KEYS = (*KEYS, "fill_color")  # of the border that resize_mode longest adds
INTERPOLATIONS, RESIZE_MODES = ("bicubic", "bilinear"), ("shortest", "longest", "squash")
# Keys of a model config that change no number of a loaded model.
SILENT = {
    *("hf_model_pretrained", "timm_model_pretrained"),
    *("timm_drop", "timm_drop_path", "patch_dropout", "output_tokens", "init_logit_bias", "init_logit_scale"),
    *("custom_text", "nonscalar_logit_scale", "quick_gelu", "multimodal_cfg", "vision_cfg", "text_cfg"),
}


@dataclass
class Description:
    """How to build a model and to prepare its pictures; `settle` chooses between the claims.

    name: of the architecture; config: open_clip's model config; source: what says so
    claims: (rank, source, {"mean": …, "std": …, "interpolation": …, "resize_mode": …, "activation": …}, any of these)
    sizes: (source, {what: number}) that a config of transformers says of the model, beyond the shapes of its weights
    published: whether it is an architecture of open_clip, which has tags; of_file: whether a file brings the weights
    loose: whether it is a folder of transformers, which may lack its processor; decided: whether more than the
      architecture says the activation
    """

    name: str
    config: dict
    source: str
    claims: list = field(default_factory=list)
    sizes: tuple | None = None
    published: bool = False
    of_file: bool = False
    loose: bool = False
    decided: bool = False
    used: dict = field(default_factory=dict)
    sources: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)

    def claim(self, rank, source, values):
        """Note what a source says of preprocessing and activation; of what it leaves out, others decide."""
        values = {key: value for key, value in values.items() if value is not None}
        for key in {"mean", "std"} & set(values):
            parts = values[key] if isinstance(values[key], list | tuple) else [values[key]] * 3
            if len(parts) != 3 or not all(isinstance(part, int | float) for part in parts):
                raise InputError(f"{source} has {key} {values[key]}; it must be three numbers.")
            if not all(0 <= part <= 1 and (part or key == "mean") for part in parts):
                raise InputError(f"{source} has {key} {values[key]}; channels go from 0 to 1, and so do these.")
            values[key] = tuple(map(float, parts))
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
            raise InputError(f"'{tag}' is no tag of {self.name} to be like; its tags: {tags}.")
        self.claim(rank, f"the tag {tag}", _of_tag(config))

    def take_beside(self, path):
        """Take what configs beside a weights' file say. Raises InputError where they describe another model."""
        self.of_file = True
        folder = Path(path).parent
        if (folder / OPEN_CLIP_CONFIG).is_file():
            self._check_alike(describe_json(folder / OPEN_CLIP_CONFIG), folder)
        self.take_transformers(folder)

    def _check_alike(self, other, folder):
        """Take the claims of another description, of the folder that weights lie in, if it is of the same model."""
        ours, theirs = _compared(self.config), _compared(other.config)
        for key in [key for key in ours if ours[key] != theirs.get(key)]:
            raise InputError(
                f"{other.source}, which lies beside the weights, has {key} {theirs.get(key)}; {self.source} has "
                f"{ours[key]}. Take architecture: local-dir:{folder}, or mend the config."
            )
        self.claims += other.claims
        activation = "quick_gelu" if other.config.get("quick_gelu") else "gelu"
        self.claim(FILES, other.source, {"activation": activation})

    def take_transformers(self, folder):
        """Take what transformers wrote into a folder: the activation and sizes of a model, the images' preparation."""
        config, size = transformers_config(folder), self.config["vision_cfg"].get("image_size", 224)
        if config is not None:
            source = str(folder / TRANSFORMERS_CONFIG)
            self.claim(FILES, source, {"activation": activation_of(config, source)})
            self.sizes = source, sizes_of_config(config)
            size = self.sizes[1]["px as image size"]
        processor = image_processor(folder)
        if processor is not None:
            path, content = processor
            model_type = (config or {}).get("model_type", "clip")
            self.claim(FILES, str(path), preprocessing_of(content, model_type, size, path))

    def take_layout(self, checkpoint):
        """Take what a checkpoint's own layout tells: OpenAI's and transformers' SigLIPs have one activation."""
        if checkpoint.openai:
            default = {key: getattr(PreprocessCfg(), key) for key in KEYS}
            self.claim(LAYOUT, "OpenAI's own layout", default | {"activation": "quick_gelu"})
        elif is_transformers(checkpoint.tensors) and is_siglip(checkpoint.tensors):
            self.claim(LAYOUT, "transformers' SigLIP", {"activation": "gelu_tanh"})

    def settle(self):
        """Choose: `used` has each key's value, `sources` who said so, `notes` what nothing decided.

        Raises InputError where the activation beside the weights is not the architecture's, and no key decides.
        """
        own = "quick_gelu" if self.config.get("quick_gelu") else "gelu"
        if self.of_file and self.published:
            self._claim_published()
        self.claim(DEFAULT, "open_clip's default", {key: getattr(PreprocessCfg(), key) for key in ALL_KEYS})
        self.claim(DEFAULT, self.source, {"activation": own})
        claims, ranks = sorted(self.claims, key=lambda claim: claim[0]), {}
        for key in (*ALL_KEYS, "activation"):
            ranks[key], self.sources[key], self.used[key] = next(
                (rank, source, values[key]) for rank, source, values in claims if key in values
            )
        activation = self.used["activation"]
        if self.of_file and ranks["activation"] == FILES and {own, activation} == {"gelu", "quick_gelu"}:
            raise InputError(
                f"{self.sources['activation']}, which lies beside the weights, has the activation {activation}; "
                f"{self.source} has {own}. Set quick_gelu: {str(activation == 'quick_gelu').lower()} to take it."
            )
        sibling = f"{self.name}-quickgelu"
        if self.of_file and self.published and ranks["activation"] == PUBLISHED:
            self.notes.append(
                "nothing beside these weights says their activation; QuickGELU is taken, which all published weights "
                f"of {self.name} need. If they were trained without it, set quick_gelu: false."
            )
        if self.of_file and self.published and ranks["activation"] == DEFAULT and sibling in open_clip.list_models():
            self.notes.append(
                f"nothing says whether these weights need QuickGELU; {own} is taken. OpenAI's, MetaCLIP's and DFN's "
                f"weights need it: set quick_gelu, or name {sibling}."
            )
        if activation == "quick_gelu" != own and self.config["vision_cfg"].get("timm_model_name"):
            raise InputError(f"{self.name} has an image tower of timm, which has no QuickGELU.")
        if self.loose and not any(ranks[key] < DEFAULT for key in ("mean", "std")):
            self.notes.append(
                f"nothing beside {self.source} says how pictures are prepared; open_clip's default is taken. Set mean "
                "and std, or put the preprocessor_config.json there."
            )
        self.config["quick_gelu"], self.decided = activation == "quick_gelu", ranks["activation"] < DEFAULT

    def _claim_published(self):
        """Where all published weights of an architecture prepare pictures one way, so do others; else note it."""
        tags = open_clip.list_pretrained_tags_by_model(self.name)
        ways = {tag: _of_tag(open_clip.get_pretrained_cfg(self.name, tag)) for tag in tags}
        if ways and all(way["activation"] for way in ways.values()) and not self.config.get("quick_gelu"):
            self.claim(PUBLISHED, f"all published weights of {self.name}", {"activation": "quick_gelu"})
        ways = {tag: {key: way[key] for key in KEYS if way.get(key) is not None} for tag, way in ways.items()}
        first = next(iter(ways.values()), {})
        if all(way == first for way in ways.values()):
            self.claim(PUBLISHED, f"all published weights of {self.name}", first)
        elif not set(KEYS) <= {key for _, _, values in self.claims for key in values}:
            differing = [key for key in KEYS if len({way.get(key) for way in ways.values()}) > 1]
            self.notes.append(
                f"published weights of {self.name} differ in {' and '.join(differing)}, and nothing says which way "
                "these are; open_clip's default is taken. Set 'like' to a tag, or the values."
            )

    def set_activation(self, model):
        """Give a built model's GELUs the form that was decided on; see in `used` what each tower has in the end."""
        if self.decided and self.used["activation"] != "quick_gelu":
            for module in model.modules():
                if isinstance(module, torch.nn.GELU):
                    module.approximate = "tanh" if self.used["activation"] == "gelu_tanh" else "none"
        texts = model.text if hasattr(model, "text") else model.transformer
        image, text = _activations(model.visual), _activations(texts)
        self.used["activation"] = image if image == text else f"image {image}, text {text}"

    def check_sizes(self, model):
        """Raise InputError if a config of transformers beside the weights is of another model than the one built.

        The same for a timm tower that takes other images than its preprocessing makes.
        """
        patches = getattr(getattr(model.visual, "trunk", None), "patch_embed", None)
        takes, makes = getattr(patches, "img_size", None), model.visual.image_size
        makes = tuple(makes) if isinstance(makes, tuple | list) else (makes, makes)
        if takes is not None and tuple(takes) != makes and getattr(patches, "strict_img_size", True):
            raise InputError(f"{self.source} has images of {makes[0]} px, but its timm tower takes {takes[0]} px.")
        if self.sizes is None:
            return
        source, theirs = self.sizes
        ours = sizes_of_model(model)
        for what, there in theirs.items():
            if ours.get(what) != there:
                raise InputError(
                    f"{source}, which lies beside the weights, has {there} {what}; {self.name} has {ours.get(what)}."
                )

    def packages(self):
        """Packages beside open_clip's own that the texts of the model need."""
        text = self.config["text_cfg"]
        return ("transformers", "sentencepiece") if text.get("hf_tokenizer_name") or text.get("hf_model_name") else ()

    def table(self, image_size):
        """What was used, one row of a table: texts and numbers."""
        text = self.config["text_cfg"]
        names = {key: ", ".join(map(str, self.used[key])) for key in ("mean", "std")}
        said = dict.fromkeys([self.sources[key] for key in KEYS])
        tokenizer = text.get("hf_tokenizer_name") or "open_clip's BPE"
        tokenizer = Path(tokenizer).name if Path(tokenizer).is_dir() else tokenizer  # no machine's path
        return {
            "architecture": self.name,
            "image_size": f"{image_size[0]} × {image_size[1]}",
            **{key: names.get(key, self.used[key]) for key in KEYS},
            "preprocessing_from": "; ".join(Path(source).name for source in said),
            "activation": self.used["activation"],
            "activation_from": Path(self.sources["activation"]).name,
            "tokenizer": tokenizer,
            "context": text.get("context_length", CLIPTextCfg.context_length),
            "text_heads": "" if text.get("hf_model_name") else text.get("heads", CLIPTextCfg.heads),
            # no weight's shape tells the number of heads
            "heads_from": Path(self.sizes[0] if self.sizes else self.source).name,
        }


def describe_name(name):
    """The Description of an architecture of open_clip."""
    if Path(name).is_dir():
        raise InputError(f"{name} is a folder; write local-dir:{name} to take the model in it.")
    if name not in open_clip.list_models():
        nearest = ", ".join(difflib.get_close_matches(name, open_clip.list_models())) or "none close"
        raise InputError(f"open_clip has no architecture '{name}'; nearest: {nearest}.")
    return Description(name, open_clip.get_model_config(name), name, published=True)


def describe_json(path):
    """The Description of an open_clip model config, or of an open_clip_config.json, which has one inside."""
    content = read_json(path)
    config = content.get("model_cfg", content)
    missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(config if isinstance(config, dict) else ())
    if missing:
        raise InputError(f"{path} is no open_clip model config: it lacks {', '.join(sorted(missing))}.")
    preprocessing = content.get("preprocess_cfg") or {}
    if not all(isinstance(part, dict) for part in (config["vision_cfg"], config["text_cfg"], preprocessing)):
        raise InputError(f"{path} is no open_clip model config: vision_cfg and text_cfg must hold keys.")
    unknown = sorted(set(preprocessing) - {*ALL_KEYS, "size", "mode"})
    if unknown:
        raise InputError(f"{path} has preprocess_cfg.{unknown[0]}, which is not known; there is {', '.join(ALL_KEYS)}.")
    if not isinstance(config.get("quick_gelu", False), bool):
        raise InputError(f"{path} has quick_gelu {config['quick_gelu']!r}; it must be true or false.")
    if preprocessing.get("mode", "RGB") != "RGB":
        raise InputError(f"{path} prepares pictures as {preprocessing['mode']}; only RGB is taken.")
    result = Description(Path(path).stem, config, str(path))
    result.claim(FILES, str(path), {key: preprocessing.get(key) for key in ALL_KEYS})
    return result


def describe_folder(folder):
    """The Description of a folder that open_clip or transformers wrote."""
    folder, builders = Path(folder), {"clip": clip_config, "siglip": siglip_config}
    config = transformers_config(folder)
    if (folder / OPEN_CLIP_CONFIG).is_file():
        result = describe_json(folder / OPEN_CLIP_CONFIG)
        result.name = folder.name
        activation = "quick_gelu" if result.config.get("quick_gelu") else "gelu"
        result.claim(FILES, result.source, {"activation": activation})
        if image_processor(folder) and not result.claims[:-1]:  # it says nothing of the images itself
            result.take_transformers(folder)
            result.sizes = None
    elif config is not None:
        name, model_config = builders[config["model_type"]](folder, config)
        result = Description(name, model_config, str(folder / TRANSFORMERS_CONFIG), loose=True)
        if name in open_clip.list_models():
            result.published = result.of_file = True
        result.take_transformers(folder)
    else:
        raise InputError(
            f"The model folder {folder} has no {OPEN_CLIP_CONFIG}, and no config.json of a CLIP or SigLIP of "
            "transformers."
        )
    text = result.config["text_cfg"]
    if text.get("hf_tokenizer_name") and any((folder / name).is_file() for name in VOCABULARIES):
        text["hf_tokenizer_name"] = str(folder)
    return result


def _activations(tower):
    """Names of the activations in a tower's blocks, as they are in the end."""
    names = set()
    for module in tower.modules():
        name = type(module).__name__
        if (isinstance(module, torch.nn.GELU) and module.approximate == "tanh") or name == "GELUTanh":
            names.add("gelu_tanh")
        elif re.fullmatch(r"(Quick)?GELU(Activation)?|SiLU|ReLU", name):
            names.add({"QuickGELU": "quick_gelu"}.get(name, name.removesuffix("Activation").lower()))
    return " and ".join(sorted(names)) or "none"


def _of_tag(config):
    """What a published tag says of preprocessing and activation."""
    return {key: config.get(key) for key in KEYS} | {"activation": "quick_gelu" if config.get("quick_gelu") else None}


def _compared(config):
    """A model config with its defaults, flat, without what changes no number."""
    vision, text = asdict(CLIPVisionCfg()) | config["vision_cfg"], asdict(CLIPTextCfg()) | config["text_cfg"]
    if vision["timm_model_name"]:  # whose name says the rest
        vision = {key: value for key, value in vision.items() if key.startswith("timm") or key == "image_size"}
    result = {key: value for key, value in config.items() if key not in SILENT}
    for prefix, side in (("vision_cfg", vision), ("text_cfg", text)):
        result |= {f"{prefix}.{key}": value for key, value in side.items() if key not in SILENT}
    for key in ("vision_cfg.norm_kwargs", "text_cfg.norm_kwargs"):  # the default, written out
        result[key] = None if result.get(key) == {"eps": 1e-5} else result.get(key)
    for key in ("vision_cfg.mlp_ratio", "text_cfg.mlp_ratio"):
        if key in result:
            result[key] = int(result[key.replace("mlp_ratio", "width")] * result[key])
    size = result["vision_cfg.image_size"]
    result["vision_cfg.image_size"] = list(size) if isinstance(size, list | tuple) else [size, size]
    return result
