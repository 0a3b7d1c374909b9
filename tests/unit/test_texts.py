"""Texts without their padding have the embeddings that open_clip gives them with it, and cost less."""

import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from open_clip import CLIP, CoCa, CustomTextCLIP, SimpleTokenizer
from open_clip.coca_model import MultimodalCfg
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import HFTokenizer
from tokenizers_small import tokenizer_files

from clipspectra import InputError
from clipspectra.data import texts

CONTEXT = 16
VISION = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
TEXT = {"context_length": CONTEXT, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
LENGTHS = ["a cat", "", "a photo of a cat", "cat " * 40, "a", "a!~ of!~", "of a photo of a photo"]
LENGTHS += ["cat " * 14, "cat " * 13]
TOKENIZER = SimpleTokenizer(context_length=CONTEXT)


class OtherCLIP(CLIP):
    """Not open_clip's own, so nothing is known of its text tower."""


CUSTOM_BLOCK = {"scale_heads": True, "scale_attn_inner": True, "scale_attn": True, "scale_fc": True, "qk_norm": True}
# name -> (class, changes to the text tower, whether padding can be left out)
TOWERS = {
    "CLIP": (CLIP, {}, True),
    "CLIP, end token by its id": (CLIP, {"pool_type": "eos", "eos_id": 49407}, True),
    "MobileCLIP-B, PE": (CustomTextCLIP, {"proj_bias": True}, True),
    "custom block": (CustomTextCLIP, CUSTOM_BLOCK | {"pool_type": "eos", "eos_id": 49407}, True),
    "CoCa": (CoCa, {"embed_cls": True, "output_tokens": True}, True),
    "causal, last position": (CustomTextCLIP, {"pool_type": "last"}, False),
    "CLIPA": (CLIP, {"pool_type": "last", "no_causal_mask": True}, False),
    "MobileCLIP-S1": (CustomTextCLIP, {"no_causal_mask": True}, False),
    "SigLIP": (CustomTextCLIP, {"pool_type": "last", "no_causal_mask": True, "proj_bias": True}, False),
    "another class": (OtherCLIP, {}, False),
}
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
BERT |= {"max_position_embeddings": 40}
# the text tower's model in transformers -> (its config, tokenizer of tokenizers_small, pooler)
TRANSFORMERS = {
    "roberta": (BERT | {"pad_token_id": 1}, "roberta-base", "mean_pooler"),
    "bert": (BERT | {"pad_token_id": 0}, "bert-base-uncased", "cls_pooler"),
    "xlm-roberta": (BERT | {"pad_token_id": 1}, "xlm-roberta-base", "cls_last_hidden_state_pooler"),
    "mt5": (
        {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "pad_token_id": 0},
        "mt5-base",
        "mean_pooler",
    ),
    "m2m_100": (
        {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "pad_token_id": 1}
        | {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32},
        "nllb-200",
        "cls_pooler",
    ),
}


def loaded_model(model_class, text, tokenizer):
    """What embed_texts needs of a LoadedModel: a model in float64, all parameters random, and its tokenizer."""
    torch.manual_seed(0)
    text, vision = CLIPTextCfg(**TEXT | text), CLIPVisionCfg(**VISION)
    if model_class is CoCa:
        multimodal = MultimodalCfg(context_length=CONTEXT, vocab_size=64, width=16, heads=2, layers=1)
        vision.attentional_pool, vision.attn_pooler_heads = True, 2
        model = CoCa(24, multimodal, text, vision)
    else:
        model = model_class(24, vision, text)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return SimpleNamespace(model=model, tokenizer=tokenizer, device=torch.device("cpu"))


def check(loaded, needed, monkeypatch):
    """Compare with open_clip's own embeddings; needed: the tokens of each text that are to reach the tower."""
    tower = getattr(loaded.model, "text", loaded.model)
    embedding = tower.token_embedding if hasattr(tower, "token_embedding") else tower.transformer.get_input_embeddings()
    shapes = []
    with torch.no_grad():
        padded = loaded.model.encode_text(loaded.tokenizer(LENGTHS), normalize=True)
        embedding.register_forward_pre_hook(lambda module, arguments: shapes.append(tuple(arguments[0].shape)))
        for batch_tokens in (1, 40, 10000):
            monkeypatch.setattr(texts, "BATCH_TOKENS", batch_tokens)
            torch.testing.assert_close(texts.embed_texts(loaded, LENGTHS, bar=False), padded.float(), atol=6e-8, rtol=0)
    longest_first = sorted(needed, reverse=True)
    assert shapes[: len(needed)] == [(1, length) for length in longest_first]
    assert shapes[-1] == (len(needed), longest_first[0])
    assert sum(rows * length for rows, length in shapes[len(needed) : -1]) <= len(needed) * longest_first[0]
    torch.testing.assert_close(loaded.model.encode_text(loaded.tokenizer(LENGTHS), normalize=True), padded)


def filled(tokens, pad):
    """The number of tokens of each text before the padding at its end."""
    return [max(place + 1 for place, token in enumerate(row) if token != pad) for row in tokens.tolist()]


@pytest.mark.parametrize("name", TOWERS)
def test_texts_are_embedded_without_padding_where_it_changes_nothing(name, monkeypatch):
    model_class, text, exact = TOWERS[name]
    loaded = loaded_model(model_class, text, TOKENIZER)
    needed = filled(loaded.tokenizer(LENGTHS), pad=0)
    assert {2, CONTEXT - 1, CONTEXT} <= set(needed)
    if name == "CoCa":
        needed = [min(length + 1, CONTEXT) for length in needed]
    check(loaded, needed if exact else [CONTEXT] * len(needed), monkeypatch)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_towers_of_transformers_mask_padding(name, monkeypatch, tmp_path):
    config, tokenizer, pooler = TRANSFORMERS[name]
    for file, content in tokenizer_files(tokenizer).items():
        content = json.dumps(content) if isinstance(content, dict) else content
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name, "vocab_size": 300} | config))
    tokenizer = HFTokenizer(str(tmp_path), context_length=CONTEXT)
    text = {"hf_model_name": str(tmp_path), "hf_model_pretrained": False, "hf_pooler_type": pooler}
    loaded = loaded_model(CustomTextCLIP, text, tokenizer)
    needed = filled(tokenizer(LENGTHS), config["pad_token_id"])
    assert min(needed) < 4
    assert max(needed) == CONTEXT
    check(loaded, needed, monkeypatch)


def test_a_tokenizer_of_another_model_is_named():
    loaded = loaded_model(CLIP, {"vocab_size": 64}, TOKENIZER)
    with pytest.raises(InputError, match=r"yields token 49407, but the model has 64 tokens: it needs the tokenizer"):
        texts.embed_texts(loaded, ["a cat"])


@pytest.mark.parametrize("block", [1, 9, 2000])
def test_a_zero_shot_classifier_is_the_mean_of_each_class(block, monkeypatch):
    monkeypatch.setattr(texts, "BLOCK_PROMPTS", block)
    loaded = loaded_model(CLIP, {}, TOKENIZER)
    names, templates = ["cat", ["dog", "hound", "a very large hound"], "sky", "a"], ["a photo of a {}", "{}"]
    means = []
    for phrases in (["cat"], names[1], ["sky"], ["a"]):
        prompts = [template.replace("{}", phrase) for template in templates for phrase in phrases]
        means.append(loaded.model.encode_text(loaded.tokenizer(prompts), normalize=True).mean(0))
    expected = F.normalize(torch.stack(means, dim=1), dim=0)
    weights = texts.zero_shot_classifier(loaded, names, templates)
    torch.testing.assert_close(weights, expected.float(), atol=2e-7, rtol=0)
