"""Who decides how pictures are prepared and which activation a model has, and which tokenizer reads its texts."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers_small import cached, tokenizer_files

from clipspectra import InputError, models
from clipspectra.architectures import CONFIG, LIKE, described_by_name

ROOT = Path(__file__).parents[2]
ARCHITECTURE, WEIGHTS = ROOT / "tests/golden/model_config.json", ROOT / "tests/golden/model.safetensors"


def settled(name, like=None, **values):
    """The description of a weights' file of an architecture about which nothing else is known."""
    description = described_by_name(name)
    description.of_file = True
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
        ("ViT-H-14-378", 0.48145466, "squash", ["need QuickGELU; gelu is taken"]),
        ("ViT-B-32", 0.48145466, "shortest", ["need QuickGELU; gelu is taken"]),
        ("ViT-B-32-quickgelu", 0.48145466, "shortest", []),
        ("ViT-L-14", 0.48145466, "shortest", ["differ in mean and std", "need QuickGELU"]),
        ("EVA02-B-16", 0.48145466, "shortest", []),
    ],
)
def test_a_file_alone_is_prepared_as_all_published_weights_are(name, mean, resize_mode, notes):
    description = settled(name)
    assert (description.used["mean"][0], description.used["resize_mode"]) == (mean, resize_mode)
    assert len(description.notes) == len(notes)
    assert all(part in note for part, note in zip(notes, description.notes))


def test_a_tag_to_be_like_and_keys_of_the_config_go_first():
    like = settled("ViT-L-14", like="laion2b_s32b_b82k")
    assert like.used["mean"] == (0.5, 0.5, 0.5)
    assert like.sources["mean"] == "the tag laion2b_s32b_b82k"
    assert len(like.notes) == 1  # of the activation, which that tag does not need another one of
    assert settled("ViT-L-14", like="openai").used["activation"] == "quick_gelu"
    own = settled("ViT-L-14", like="openai", mean=[0.1, 0.2, 0.3], activation="gelu")
    assert (own.used["mean"], own.used["activation"], own.notes) == ((0.1, 0.2, 0.3), "gelu", [])
    with pytest.raises(InputError, match="'openia' is no tag of ViT-L-14 to be like; its tags: openai"):
        settled("ViT-L-14", like="openia")


def beside(folder, config, **preprocessing):
    """A weights' file with an open_clip_config.json beside it."""
    save_file(load_file(WEIGHTS), folder / "weights.safetensors")
    content = {"model_cfg": config, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return folder / "weights.safetensors"


def test_a_config_beside_the_weights_is_honoured_and_checked(tmp_path):
    config = json.loads(ARCHITECTURE.read_text())
    path = beside(tmp_path, config, mean=[0.5] * 3, std=[0.5] * 3, resize_mode="squash", interpolation="bilinear")
    loaded, same = models.load(ARCHITECTURE, path), models.load(f"local-dir:{tmp_path}")
    assert (loaded.used["mean"], loaded.used["preprocessing_from"]) == ("0.5, 0.5, 0.5", "open_clip_config.json")
    picture = Image.effect_noise((90, 50), 60).convert("RGB")
    assert torch.equal(loaded.preprocess(picture), same.preprocess(picture))
    beside(tmp_path, config | {"quick_gelu": True})
    with pytest.raises(InputError, match=r"has the activation quick_gelu; .* has gelu. Set quick_gelu: true"):
        models.load(ARCHITECTURE, path)
    quick = models.load(ARCHITECTURE, path, quick_gelu=True)
    tokens = quick.tokenizer(["a cat", "two dogs"])
    expected = models.load(f"local-dir:{tmp_path}").model.encode_text(tokens)
    assert torch.equal(quick.model.encode_text(tokens), expected)
    assert not torch.allclose(loaded.model.encode_text(tokens), expected, atol=1e-3)
    other = config | {"vision_cfg": config["vision_cfg"] | {"head_width": 2}}
    beside(tmp_path, other)
    with pytest.raises(InputError, match=r"beside the weights, has vision_cfg.head_width 2; .* has "):
        models.load(ARCHITECTURE, path)


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
        description = described_by_name(name)
        tokens = models._tokenizer(description, str(cache))(["a photo of a cat"])
        assert tokens.shape == (1, description.config["text_cfg"].get("context_length", 77)), name
        assert len(tokens.unique()) > 3, name
    with pytest.raises(
        InputError, match="The tokenizer timm/ViT-B-16-SigLIP of .* cannot be fetched, and the cache lacks"
    ):
        models._tokenizer(described_by_name("ViT-B-16-SigLIP"), str(cache / "empty"))


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
    description = described_by_name(name)
    description.config["vision_cfg"] |= {"layers": 1, "width": 64, "image_size": 32}
    model = models._built(description, str(tmp_path)).eval()
    tokens = models._tokenizer(description, str(tmp_path))(["a photo of a cat", "a cat"])
    assert model.encode_text(tokens.clamp(max=89)).shape == (2, description.config["embed_dim"])
