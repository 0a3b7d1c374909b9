"""What a model is built as and how its pictures are prepared, from whatever says so: names, tags, configs."""

import difflib
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.transform import PreprocessCfg

from clipspectra import InputError
from clipspectra.checkpoints import read_json
from clipspectra.layouts import is_siglip, is_transformers
from clipspectra.model_files import OPEN_CLIP_CONFIG, PREPROCESSOR_CONFIG, TRANSFORMERS_CONFIG
from clipspectra.transformers_configs import clip_config, preprocessing_of, siglip_config, tower_config

# Who decides between claims of how a model is used, the first one first.
CONFIG, LIKE, FILES, LAYOUT, PUBLISHED, DEFAULT = range(6)
KEYS = ("mean", "std", "interpolation", "resize_mode")
ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model")
# Keys of a model config that change no number of a loaded model.
SILENT = {
    *("hf_model_pretrained", "hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode", "timm_model_pretrained"),
    *("timm_drop", "timm_drop_path", "patch_dropout", "output_tokens", "init_logit_bias", "init_logit_scale"),
    *("custom_text", "nonscalar_logit_scale", "quick_gelu", "multimodal_cfg", "vision_cfg", "text_cfg"),
}


@dataclass
class Description:
    """How to build a model and to prepare its pictures; `settle` chooses between the claims.

    name: of the architecture; config: open_clip's model config; source: what says so
    claims: (rank, source, {"mean": …, "std": …, "interpolation": …, "resize_mode": …, "activation": …}, any of these)
    heads: (heads of the image tower, of the text tower, epsilon of the norms, source) where transformers' config says
    published: whether it is an architecture of open_clip, which has tags; of_file: whether a file brings the weights
    """

    name: str
    config: dict
    source: str
    claims: list = field(default_factory=list)
    heads: tuple | None = None
    published: bool = False
    of_file: bool = False
    used: dict = field(default_factory=dict)
    sources: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)

    def claim(self, rank, source, values):
        """Note what a source says of preprocessing and activation; of what it leaves out, others decide."""
        values = {key: value for key, value in values.items() if value is not None}
        for key in ("mean", "std"):
            if key in values:
                values[key] = tuple(float(part) for part in values[key])
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
            other = described_by_folder(folder)
            ours, theirs = _compared(self.config), _compared(other.config)
            for key in [key for key in ours if ours[key] != theirs.get(key)]:
                raise InputError(
                    f"{folder / OPEN_CLIP_CONFIG}, which lies beside the weights, has {key} {theirs.get(key)}; "
                    f"{self.source} has {ours[key]}. Take architecture: local-dir:{folder}, or mend the config."
                )
            self.claims += other.claims
        elif (folder / TRANSFORMERS_CONFIG).is_file():
            config = read_json(folder / TRANSFORMERS_CONFIG)
            if config.get("model_type") in ("clip", "siglip"):
                self._take_transformers(folder, config)

    def _take_transformers(self, folder, config):
        """Take what config.json and preprocessor_config.json of transformers say."""
        vision, text = (tower_config(config, part) for part in ("vision_config", "text_config"))
        source = str(folder / TRANSFORMERS_CONFIG)
        if vision["hidden_act"] != text["hidden_act"] or vision["hidden_act"] not in ACTIVATIONS:
            raise InputError(
                f"{source} has the activations {vision['hidden_act']} and {text['hidden_act']}; open_clip has one of "
                f"{', '.join(ACTIVATIONS)} for both towers."
            )
        self.claim(FILES, source, {"activation": ACTIVATIONS[vision["hidden_act"]]})
        self.heads = (*(part["num_attention_heads"] for part in (vision, text)), vision["layer_norm_eps"], source)
        if (folder / PREPROCESSOR_CONFIG).is_file():
            path = folder / PREPROCESSOR_CONFIG
            self.claim(FILES, str(path), preprocessing_of(read_json(path), vision["image_size"], path))

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
        self.claim(DEFAULT, "open_clip's default", {key: getattr(PreprocessCfg(), key) for key in KEYS})
        self.claim(DEFAULT, self.source, {"activation": own})
        claims, ranks = sorted(self.claims, key=lambda claim: claim[0]), {}
        for key in (*KEYS, "activation"):
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
        if self.of_file and self.published and ranks["activation"] == DEFAULT and sibling in open_clip.list_models():
            self.notes.append(
                f"nothing says whether these weights need QuickGELU; {own} is taken. OpenAI's, MetaCLIP's and DFN's "
                f"weights need it: set quick_gelu, or name {sibling}."
            )
        self.config["quick_gelu"] = activation == "quick_gelu"

    def _claim_published(self):
        """Where all published weights of an architecture prepare pictures one way, so do others; else note it."""
        tags = open_clip.list_pretrained_tags_by_model(self.name)
        ways = {tag: _of_tag(open_clip.get_pretrained_cfg(self.name, tag)) for tag in tags}
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
        """Turn a built model's GELUs into the tanh form where that is the activation."""
        if self.used["activation"] == "gelu_tanh":
            for module in model.modules():
                if isinstance(module, torch.nn.GELU):
                    module.approximate = "tanh"

    def check_heads(self, model):
        """Raise InputError if the config of transformers beside the weights has other heads or norms than the model."""
        if self.heads is None:
            return
        text, visual = getattr(model, "text", model).transformer.resblocks[0], model.visual
        image = visual.trunk.blocks[0] if hasattr(visual, "trunk") else visual.transformer.resblocks[0]
        norm = getattr(image, "norm1", None) or image.ln_1
        *theirs, source = self.heads
        ours = [image.attn.num_heads, text.attn.num_heads, norm.eps]
        kinds = ("heads of the image tower", "heads of the text tower", "layer_norm_eps")
        for what, here, there in zip(kinds, ours, theirs):
            if here != there:
                raise InputError(
                    f"{source}, which lies beside the weights, has {there} {what}; {self.name} has {here}."
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
            "heads_from": Path(self.heads[-1] if self.heads else self.source).name,
        }


def described_by_name(name):
    """The Description of an architecture of open_clip."""
    if name not in open_clip.list_models():
        nearest = ", ".join(difflib.get_close_matches(name, open_clip.list_models())) or "none close"
        raise InputError(f"open_clip has no architecture '{name}'; nearest: {nearest}.")
    return Description(name, open_clip.get_model_config(name), name, published=True)


def described_by_json(path):
    """The Description of an open_clip model config, or of an open_clip_config.json, which has one inside."""
    content = read_json(path)
    config = content.get("model_cfg", content)
    missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(config)
    if missing:
        raise InputError(f"{path} is no open_clip model config: it lacks {', '.join(sorted(missing))}.")
    result = Description(Path(path).stem, config, str(path))
    preprocessing = content.get("preprocess_cfg", {})
    result.claim(FILES, str(path), {key: preprocessing.get(key) for key in KEYS})
    return result


def described_by_folder(folder):
    """The Description of a folder that open_clip or transformers wrote."""
    folder = Path(folder)
    if (folder / OPEN_CLIP_CONFIG).is_file():
        result = described_by_json(folder / OPEN_CLIP_CONFIG)
        result.name = folder.name
        activation = "quick_gelu" if result.config.get("quick_gelu") else "gelu"
        result.claim(FILES, str(folder / OPEN_CLIP_CONFIG), {"activation": activation})
    elif (folder / TRANSFORMERS_CONFIG).is_file():
        config = read_json(folder / TRANSFORMERS_CONFIG)
        builders = {"clip": clip_config, "siglip": siglip_config}
        if config.get("model_type") not in builders:
            raise InputError(
                f"{folder / TRANSFORMERS_CONFIG} is of a {config.get('model_type')}, which is not taken; only clip and "
                "siglip of transformers are, and folders with an open_clip_config.json."
            )
        name, model_config = builders[config["model_type"]](folder, config)
        result = Description(name, model_config, str(folder / TRANSFORMERS_CONFIG))
        result._take_transformers(folder, config)
    else:
        raise InputError(f"The model folder {folder} has no {OPEN_CLIP_CONFIG}, and no config.json of transformers.")
    text = result.config["text_cfg"]
    if text.get("hf_tokenizer_name") and any((folder / name).is_file() for name in TOKENIZER_FILES):
        text["hf_tokenizer_name"] = str(folder)
    return result


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
    size = result["vision_cfg.image_size"]
    result["vision_cfg.image_size"] = list(size) if isinstance(size, list | tuple) else [size, size]
    return {key: value for key, value in result.items() if not (isinstance(value, float) and math.isnan(value))}
