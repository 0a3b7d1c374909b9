"""Which source decides the preprocessing and the activation of a model, and which tokenizer reads its texts."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from siglip_small import SIGLIP
from tokenizers_small import cached, tokenizer_files

from clipspectra import InputError
from clipspectra.towers import models
from clipspectra.towers.architectures import CONFIG, LIKE, describe_name
from clipspectra.towers.transformers_configs import read_preprocessing

ROOT = Path(__file__).parents[2]
ARCHITECTURE, WEIGHTS = ROOT / "tests/golden/model_config.json", ROOT / "tests/golden/model.safetensors"


def settled(name, like=None, **values):
    """The Description of an architecture with weights from a file, nothing else known."""
    description = describe_name(name)
    description.from_file = True
    if like:
        description.take_tag(like, LIKE)
    description.claim(CONFIG, "the config", values)
    description.settle()
    return description


@pytest.mark.parametrize(
    ("name", "mean", "resize_mode", "notes"),
    [
        ("ViT-B-16-SigLIP", 0.5, "squash", []),
        ("ViT-L-14-CLIPA", 0.485, "squash", []),
        ("MobileCLIP-B", 0.0, "shortest", []),
        ("PE-Core-B-16", 0.5, "squash", []),
        ("ViT-H-14-378", 0.48145466, "squash", ["QuickGELU is used, which all published weights"]),
        ("ViT-B-32", 0.48145466, "shortest", ["need QuickGELU; gelu is used"]),
        ("ViT-B-32-quickgelu", 0.48145466, "shortest", []),
        ("ViT-L-14", 0.48145466, "shortest", ["differ in mean and std", "need QuickGELU"]),
        ("EVA02-B-16", 0.48145466, "shortest", []),
    ],
)
def test_a_file_alone_gets_the_preprocessing_of_all_published_weights(name, mean, resize_mode, notes):
    description = settled(name)
    assert (description.used["mean"][0], description.used["resize_mode"]) == (mean, resize_mode)
    assert len(description.notes) == len(notes)
    assert all(expected in note for expected, note in zip(notes, description.notes))


def test_like_and_keys_of_the_config_take_precedence():
    like = settled("ViT-L-14", like="laion2b_s32b_b82k")
    assert like.used["mean"] == (0.5, 0.5, 0.5)
    assert like.sources["mean"] == "the tag laion2b_s32b_b82k"
    assert like.used["activation"] == "gelu"
    assert not like.notes
    assert settled("ViT-L-14", like="openai").used["activation"] == "quick_gelu"
    keys = settled("ViT-L-14", like="openai", mean=[0.1, 0.2, 0.3], activation="gelu")
    assert (keys.used["mean"], keys.used["activation"], keys.notes) == ((0.1, 0.2, 0.3), "gelu", [])
    with pytest.raises(InputError, match="'openia', set as 'like', is not a tag of ViT-L-14; its tags: openai"):
        settled("ViT-L-14", like="openia")


def write_beside(folder, config, **preprocessing):
    """Write a weights file with an open_clip_config.json beside it."""
    save_file(load_file(WEIGHTS), folder / "weights.safetensors")
    content = {"model_cfg": config, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return folder / "weights.safetensors"


def test_a_config_beside_the_weights_is_honoured_and_checked(tmp_path):
    config = json.loads(ARCHITECTURE.read_text())
    path = write_beside(tmp_path, config, mean=[0.5] * 3, std=[0.5] * 3, resize_mode="squash", interpolation="bilinear")
    loaded, from_folder = models.load(ARCHITECTURE, path), models.load(f"local-dir:{tmp_path}")
    assert (loaded.used["mean"], loaded.used["preprocessing_from"]) == ("0.5, 0.5, 0.5", "open_clip_config.json")
    image = Image.effect_noise((90, 50), 60).convert("RGB")
    assert torch.equal(loaded.preprocess(image), from_folder.preprocess(image))
    write_beside(tmp_path, config | {"quick_gelu": True})
    with pytest.raises(InputError, match=r"has the activation quick_gelu; .* has gelu. Set quick_gelu: true"):
        models.load(ARCHITECTURE, path)
    quick = models.load(ARCHITECTURE, path, quick_gelu=True)
    tokens = quick.tokenizer(["a cat", "two dogs"])
    expected = models.load(f"local-dir:{tmp_path}").model.encode_text(tokens)
    assert torch.equal(quick.model.encode_text(tokens), expected)
    assert not torch.allclose(loaded.model.encode_text(tokens), expected, atol=1e-3)
    changed = config | {"vision_cfg": config["vision_cfg"] | {"head_width": 2}}
    write_beside(tmp_path, changed)
    with pytest.raises(InputError, match=r"beside the weights, has vision_cfg.head_width 2; .* has "):
        models.load(ARCHITECTURE, path)


SQUARE = {"height": 32, "width": 32}


@pytest.mark.parametrize(
    ("model_type", "processor", "expected"),
    [
        ("clip", {"size": 32, "crop_size": 32}, ("bicubic", "shortest", 0.48145466)),
        (
            "clip",
            {"size": {"shortest_edge": 32}, "crop_size": SQUARE, "resample": 2},
            ("bilinear", "shortest", 0.48145466),
        ),
        ("clip", {"size": SQUARE, "do_center_crop": False, "image_mean": [0.1] * 3}, ("bicubic", "squash", 0.1)),
        ("siglip", {"size": SQUARE}, ("bicubic", "squash", 0.5)),
        ("clip", {"image_processor_type": "SiglipImageProcessorFast", "size": 32}, ("bicubic", "squash", 0.5)),
        ("clip", {"image_processor_type": "ViTImageProcessor", "size": 32}, ("bilinear", "squash", 0.5)),
        ("clip", {"size": 32, "crop_size": 32, "do_normalize": False}, ("bicubic", "shortest", 0.0)),
        ("clip", {"size": 36, "crop_size": 32}, None),
        ("clip", {"size": {"shortest_edge": 32, "longest_edge": 64}, "crop_size": 32}, None),
        ("clip", {"size": 32, "crop_size": 32, "do_rescale": False}, None),
        ("clip", {"size": 32, "crop_size": 32, "rescale_factor": 1 / 127.5}, None),
        ("clip", {"size": 32, "crop_size": 32, "do_resize": False}, None),
        ("clip", {"size": 32, "crop_size": 32, "resample": 1}, None),
        ("clip", {"size": "large"}, None),
        ("clip", {"image_processor_type": "OwlViTImageProcessor"}, None),
    ],
)
def test_processors_of_transformers(model_type, processor, expected):
    if expected is None:
        with pytest.raises(InputError, match="p.json has preprocessing that is not|p.json is the config of a Owl"):
            read_preprocessing(processor, model_type, 32, "p.json")
    else:
        values = read_preprocessing(processor, model_type, 32, "p.json")
        assert (values["interpolation"], values["resize_mode"], values["mean"][0]) == expected


@pytest.fixture
def trained(tmp_path):
    """A folder as transformers 5 writes it: a CLIP with its own vocabulary, and its processor in one file."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = sizes | {"vocab_size": 9, "max_position_embeddings": 8, "bos_token_id": 2, "eos_token_id": 3}
    config = transformers.CLIPConfig(vision_config=sizes | {"image_size": 32, "patch_size": 8}, text_config=text)
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    processor = {"image_processor_type": "CLIPImageProcessor", "image_mean": [0.4] * 3, "size": {"shortest_edge": 32}}
    content = {"processor_class": "CLIPProcessor", "image_processor": processor | {"crop_size": SQUARE}}
    (tmp_path / "processor_config.json").write_text(json.dumps(content))
    return tmp_path


def test_a_vocabulary_of_the_user_needs_its_tokenizer(trained):
    loaded = models.load(f"local-dir:{trained}")
    assert loaded.used["mean"] == "0.4, 0.4, 0.4"
    with pytest.raises(InputError, match=r"has no tokenizer for the vocabulary of .* \(9 tokens\): put its tokenizer"):
        loaded.tokenizer(["a cat"])
    for name, content in tokenizer_files("bert-base-uncased").items():
        if name != "config.json":
            (trained / name).write_text(content)
    (trained / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    loaded = models.load(f"local-dir:{trained}")
    tokens = loaded.tokenizer(["a photo of a cat"])
    theirs = transformers.CLIPModel.from_pretrained(trained).get_text_features(tokens)
    expected = getattr(theirs, "pooler_output", theirs)
    assert torch.allclose(loaded.model.encode_text(tokens), expected, atol=1e-5)
    assert loaded.model.encode_text(loaded.tokenizer(["a cat", "a photo"])).std(0).max() > 1e-4


def test_a_folder_of_transformers_without_processor_gives_a_warning(trained):
    (trained / "processor_config.json").unlink()
    with pytest.warns(UserWarning, match="specifies the preprocessing; open_clip's default is used"):
        models.load(f"local-dir:{trained}")
    with pytest.raises(InputError, match="brings its own weights, so 'pretrained' .* cannot be set too"):
        models.load(f"local-dir:{trained}", WEIGHTS)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"preprocess_cfg": {"mean": ["a", "b", "c"]}}, "has mean .*; it must be three numbers"),
        ({"preprocess_cfg": {"mean": [123, 117, 104]}}, "has mean .*; each must be between 0 and 1"),
        ({"preprocess_cfg": {"std": [0, 0, 0]}}, "has std .*; .* and std above 0"),
        ({"preprocess_cfg": {"mean": float("nan")}}, "has mean .*; each must be between 0 and 1"),
        ({"preprocess_cfg": {"image_mean": [0.5] * 3}}, "has preprocess_cfg.image_mean, which is not known"),
        ({"preprocess_cfg": {"mean": [0.5, 0.5]}}, "has mean .*; it must be three numbers"),
        (
            {"preprocess_cfg": {"interpolation": "nearest"}},
            "has interpolation nearest; it must be one of bicubic, bilinear",
        ),
        ({"preprocess_cfg": {"resize_mode": "stretch"}}, "has resize_mode stretch; it must be one of shortest"),
        ({"model_cfg": None}, "is not an open_clip model config"),
        ({"model_cfg": {"embed_dim": 3, "vision_cfg": {}, "text_cfg": None}}, "vision_cfg and text_cfg must be object"),
    ],
)
def test_configs_that_cannot_be_right_are_refused(content, sentence, tmp_path):
    config = {"model_cfg": json.loads(ARCHITECTURE.read_text())}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config | content))
    save_file(load_file(WEIGHTS), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=sentence):
        models.load(f"local-dir:{tmp_path}")


def test_null_and_one_number_for_all_channels_are_accepted(tmp_path):
    config = {"model_cfg": json.loads(ARCHITECTURE.read_text()), "preprocess_cfg": None}
    save_file(load_file(WEIGHTS), tmp_path / "model.safetensors")
    for preprocessing, mean in ((None, "0.48145466, 0.4578275, 0.40821073"), ({"mean": 0.5}, "0.5, 0.5, 0.5")):
        content = config | {"preprocess_cfg": preprocessing}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
        assert models.load(f"local-dir:{tmp_path}").used["mean"] == mean


def test_activations_are_reported_as_built(tmp_path):
    """Of each tower, where they differ, as SigLIP2's do."""
    path = tmp_path / "small.json"
    path.write_text(json.dumps(SIGLIP))
    assert models.load(path).used["activation"] == "gelu"
    text = SIGLIP["text_cfg"] | {"act_kwargs": {"approximate": "tanh"}}
    path.write_text(json.dumps(SIGLIP | {"text_cfg": text}))
    assert models.load(path).used["activation"] == "image gelu, text gelu_tanh"
    assert models.load(path, quick_gelu=False).used["activation"] == "gelu"
    with pytest.raises(InputError, match="has an image tower of timm, which does not support QuickGELU"):
        models.load(path, quick_gelu=True)
    size = SIGLIP["vision_cfg"] | {"image_size": 64}
    path.write_text(json.dumps(SIGLIP | {"vision_cfg": size}))
    with pytest.raises(InputError, match="has images of 64 px, but its timm tower takes 160 px"):
        models.load(path)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A hub's cache with the tokenizer of every architecture of open_clip that has one there."""
    folder = tmp_path_factory.mktemp("cache")
    for name in {
        open_clip.get_model_config(name)["text_cfg"].get("hf_tokenizer_name") for name in open_clip.list_models()
    }:
        if name:
            cached(folder, name, tokenizer_files(name))
    return folder


HUB = [
    name for name in open_clip.list_models() if open_clip.get_model_config(name)["text_cfg"].get("hf_tokenizer_name")
]


def test_every_architecture_gets_its_tokenizer_from_the_cache(cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert len(HUB) > 40
    for name in HUB:
        description = describe_name(name)
        tokens = models._build_tokenizer(description, str(cache))(["a photo of a cat"])
        assert tokens.shape == (1, description.config["text_cfg"].get("context_length", 77)), name
        assert len(tokens.unique()) > 3, name
    with pytest.raises(InputError, match="The tokenizer timm/ViT-B-16-SigLIP of .* cannot be fetched, and the cache"):
        models._build_tokenizer(describe_name("ViT-B-16-SigLIP"), str(cache / "empty"))


TOWERS = {
    "roberta-ViT-B-32": ("roberta-base", transformers.RobertaConfig),
    "xlm-roberta-base-ViT-B-32": ("xlm-roberta-base", transformers.XLMRobertaConfig),
    "mt5-base-ViT-B-32": ("google/mt5-base", transformers.MT5Config),
    "nllb-clip-base": ("facebook/nllb-200-distilled-600M", transformers.M2M100Config),
}


@pytest.mark.parametrize("name", TOWERS)
def test_text_towers_of_transformers_are_built_without_the_network(name, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository, kind = TOWERS[name]
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    small |= {"d_model": 32, "d_ff": 32, "d_kv": 16, "num_layers": 1, "num_heads": 2, "encoder_layers": 1}
    small |= {"encoder_attention_heads": 2, "decoder_layers": 1, "encoder_ffn_dim": 32, "vocab_size": 90}
    cached(tmp_path, repository, tokenizer_files(repository) | {"config.json": kind(**small).to_dict()})
    description = describe_name(name)
    description.config["vision_cfg"] |= {"layers": 1, "width": 64, "image_size": 32}
    model = models._build_model(description, str(tmp_path)).eval()
    tokens = models._build_tokenizer(description, str(tmp_path))(["a photo of a cat", "a cat"])
    assert model.encode_text(tokens.clamp(max=89)).shape == (2, description.config["embed_dim"])
