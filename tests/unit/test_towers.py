"""Every family of towers against brute force in float64: direct effects by automatic differentiation."""

import re
from contextlib import ExitStack, nullcontext
from unittest.mock import patch

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg
from timm.models.vision_transformer import ParallelThingsBlock, ResPostBlock
from torch import nn
from towers_small import SMALL, TEXT, pictures, small

from clipspectra import InputError
from clipspectra.contributions.exact import contributions
from clipspectra.segmentation.maps import patch_evidence
from clipspectra.towers.families import adapt, describe
from clipspectra.towers.hooks import observe

ATTENTION = F.scaled_dot_product_attention
IMAGES = 2


class Gains:
    """Factors of 1 at every place where a contribution enters the sum, created as the forward pass reaches them."""

    def __init__(self):
        self.all = {}

    def __call__(self, name, *shape):
        return self.all.setdefault(name, torch.ones(shape, dtype=torch.float64, requires_grad=True))


def detached(_, inputs):
    return tuple(value.detach() if isinstance(value, torch.Tensor) else value for value in inputs)


def by_head(gains, number, heads):
    """A hook on W_O that gives each head's slice of its input a gain."""
    gain = ("head", number)
    return lambda _, inputs: (inputs[0].unflatten(-1, (heads, -1)) * gains(gain, heads)[:, None]).flatten(-2)


def frozen_norm(x, shape, weight=None, bias=None, eps=1e-5):
    """LayerNorm with its statistics taken as given."""
    mean, variance = x.mean(-1, keepdim=True).detach(), x.var(-1, unbiased=False, keepdim=True).detach()
    return (x - mean) / (variance + eps).sqrt() * weight + bias


def direct_effects(model, image):
    """{name: derivative of e/n by the gain of a contribution along the direct path, [d_embed, *gain]}, and e/n.

    Statistics, attention weights and gates are taken as given, and no layer reads what an earlier one wrote.
    """
    visual, gains = model.visual, Gains()
    trunk = getattr(visual, "trunk", None)
    resnet = hasattr(visual, "layer4")
    blocks = visual.layer4 if resnet else trunk.blocks if trunk is not None else visual.transformer.resblocks
    calls = []

    def attention(query, key, value, *args, **options):
        number = len(calls)
        calls.append(number)
        if number < len(blocks):  # the one after the last block is the pool's
            value = value * gains(("source", number), *value.shape[1:3])[None, :, :, None]
        return ATTENTION(query.detach(), key.detach(), value, *args, **options)

    def scale(name):
        return lambda module, _, output: output * gains(name, 1)

    with ExitStack() as stack:
        for name, replacement in (("scaled_dot_product_attention", attention), ("layer_norm", frozen_norm)):
            stack.enter_context(patch(f"torch.nn.functional.{name}", replacement))
        stack.enter_context(patch("torch.backends.mha.get_fastpath_enabled", lambda: False))

        def hook(module, callback, before=False):
            register = module.register_forward_pre_hook if before else module.register_forward_hook
            stack.callback(register(callback).remove)

        if resnet:
            for number, block in enumerate(blocks):
                hook(block.conv1, detached, before=True)
                hook(block.bn3, scale(("block", number)))
            hook(blocks[0].downsample[0], detached, before=True)
            hook(blocks[0].downsample, scale("start"))
        else:
            for number, block in enumerate(blocks):
                hook(block.attn, detached, before=True)
                if not isinstance(block.attn, nn.MultiheadAttention):
                    out = block.attn.proj if trunk is not None else block.attn.out_proj
                    hook(out, by_head(gains, number, block.attn.num_heads), before=True)
                hook(block.mlp, detached, before=True)
                hook(block.drop_path1 if trunk is not None else block.ls_1, scale(("attention", number)))
                hook(block.drop_path2 if trunk is not None else block.ls_2, scale(("mlp", number)))
            hook(blocks[0], lambda _, inputs: (inputs[0].detach() * gains("start", 1), *inputs[1:]), before=True)
            if trunk is not None and getattr(trunk, "attn_pool", None) is not None:
                hook(trunk.attn_pool.mlp, lambda _, inputs, output: output.detach() * gains("pool mlp", 1))
        embedding = model.encode_image(image, normalize=False)[0]
        embedding = embedding / embedding.norm().detach()
    names = list(gains.all)
    rows = [torch.autograd.grad(value, list(gains.all.values()), retain_graph=True) for value in embedding]
    return {name: torch.stack([row[index] for row in rows]) for index, name in enumerate(names)}, embedding.detach()


def brute_force(model, image):
    """(heads by source token [layer, pos, head, d_embed], mlps [layer + 1, d_embed]) of one image."""
    effects, embedding = direct_effects(model, image)
    layers = len([name for name in effects if name[0] == "attention"])
    by_source = [effects["source", number].permute(2, 1, 0) for number in range(layers)]  # [pos, head, d_embed]
    attention = [effects["attention", number][:, 0] for number in range(layers)]
    mlps = [effects["start"][:, 0], *(effects["mlp", number][:, 0] for number in range(layers))]
    last = [effects["pool mlp"][:, 0]] if "pool mlp" in effects else []
    shared = (embedding - sum(attention) - sum(mlps) - sum(last)) / (2 * layers + 1)
    heads = []
    for number, (source_effects, total) in enumerate(zip(by_source, attention)):
        pos, count = source_effects.shape[:2]
        summed = source_effects.sum(0)  # [head, d_embed]
        head_effects = effects["head", number].T if ("head", number) in effects else summed
        rest = (total - head_effects.sum(0) + shared) / count  # biases, means and betas
        heads.append(source_effects + (head_effects - summed + rest) / pos)
    return torch.stack(heads), torch.stack([mlp + shared for mlp in mlps] + last)


@pytest.mark.parametrize("name", [name for name in SMALL if name != "ResNet"])
def test_brute_force_in_float64(name):
    model = small(name)
    images = pictures(model, IMAGES)
    expected = [torch.stack(effects) for effects in zip(*(brute_force(model, image[None]) for image in images))]
    with torch.no_grad():
        summed, per_token = contributions(model, images), contributions(model, images, per_token=True)
        normalised = F.normalize(model.encode_image(images, normalize=False), dim=-1)
        torch.testing.assert_close(per_token.heads, expected[0], atol=1e-12, rtol=0)
        torch.testing.assert_close(summed.heads, expected[0].sum(2), atol=1e-12, rtol=0)
        torch.testing.assert_close(summed.mlps, expected[1], atol=1e-12, rtol=0)
        torch.testing.assert_close(summed.total(), normalised, atol=1e-12, rtol=0)
        torch.testing.assert_close(per_token.total(), normalised, atol=1e-12, rtol=0)
        if summed.class_self is not None:
            torch.testing.assert_close(summed.class_self, expected[0][:, :, 0].sum(2), atol=1e-12, rtol=0)
        norms = model.encode_image(images, normalize=False).norm(dim=1)
        torch.testing.assert_close(summed.norm, norms, atol=0, rtol=1e-12)
        classifier = torch.randn(summed.heads.shape[-1], 7, dtype=torch.float64)
        logits = torch.einsum("ilphe,ec->ipc", expected[0], classifier)[:, adapt(model.visual).prefix :]
        top = (normalised @ classifier).argmax(1)
        evidence = logits[torch.arange(IMAGES), :, top] - logits.mean(-1)
        torch.testing.assert_close(patch_evidence(model, images, classifier)[0], evidence, atol=1e-12, rtol=0)


REFUSED = {
    "convnext_base": "no attention heads",
    "MobileCLIP-S1": "not linear in what its attention writes",
    "swin_base_patch4_window7_224": "merges patches between stages",
}


@pytest.mark.parametrize("architecture", sorted({architecture for architecture, _ in SMALL.values()} | set(REFUSED)))
def test_the_table_of_models_is_correct(architecture):
    """The table names the families tested here, and what it refuses is refused in a model too."""
    row = describe(architecture)
    config = open_clip.get_model_config(architecture)
    if architecture not in REFUSED:
        assert row["supported"] == "yes"
        families = {adapt(small(name).visual).family for name in SMALL if SMALL[name][0] == architecture}
        assert row["adapter"] in families
        return
    assert row["supported"] == "no"
    assert REFUSED[architecture] in row["reason"]
    with torch.device("meta"):
        model = CLIP(config["embed_dim"], config["vision_cfg"], CLIPTextCfg(**TEXT)).eval()
    with pytest.raises(InputError, match=re.escape(row["reason"])):
        contributions(model, torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("block", [ResPostBlock, ParallelThingsBlock])
def test_blocks_of_timm_in_another_order_are_refused(block, monkeypatch):
    architecture, changes = SMALL["timm, average"]
    monkeypatch.setitem(SMALL, "other", (architecture, changes | {"block_fn": block}))
    with pytest.raises(InputError, match=f"no adapter knows its blocks, {block.__name__}"):
        adapt(small("other").visual)


def test_a_subclass_of_a_timm_tower_is_refused():
    """Such as DeiT's distilled one, which averages two tokens at the end."""
    visual = small("timm, average").visual
    visual.trunk.__class__ = type("Distilled", (type(visual.trunk),), {})
    with pytest.raises(InputError, match="no adapter knows timm's Distilled"):
        adapt(visual)


def test_resnet_in_float64():
    """Each pool head and token over all sources, and each source over all heads and tokens."""
    model = small("ResNet")
    images, pool = pictures(model, IMAGES), model.visual.attnpool
    summed, per_token = contributions(model, images), contributions(model, images, per_token=True)
    for number, image in enumerate(images):
        effects, embedding = direct_effects(model, image[None])
        norm = summed.norm[number]
        bias = ((pool.c_proj.bias + pool.c_proj.weight @ pool.v_proj.bias) / norm).detach()
        by_token = effects["source", 0].permute(2, 1, 0)  # [pos, head, d_embed]
        by_token = by_token + (embedding - by_token.sum((0, 1))) / (by_token.shape[0] * by_token.shape[1])
        torch.testing.assert_close(per_token.heads[number].sum(0), by_token, atol=1e-12, rtol=0)
        torch.testing.assert_close(summed.heads[number].sum(0), by_token.sum(0), atol=1e-12, rtol=0)
        blocks = [effects["block", block][:, 0] + bias / 3 for block in range(2)]
        sources = torch.stack([embedding - sum(blocks), *blocks])
        torch.testing.assert_close(summed.heads[number].sum(1), sources, atol=1e-12, rtol=0)
        torch.testing.assert_close(summed.total()[number], embedding, atol=1e-12, rtol=0)
        assert not summed.mlps[number].any()


@pytest.mark.parametrize("name", SMALL)
@patch("torch.autocast", lambda *args, **options: nullcontext())  # does not support the meta device
@torch.no_grad()
def test_nothing_is_computed_on_another_device(name):
    """On the meta device, which does not mix with tensors of the CPU, as a GPU would not."""
    model = small(name, torch.float32)
    on_cpu = contributions(model, pictures(model, 2, torch.float32))
    images, model = pictures(model, 2, torch.float32).to("meta"), model.to("meta")
    for per_token in (False, True):
        on_meta = contributions(model, images, per_token=per_token)
        assert on_meta.heads.shape[-2:] == on_cpu.heads.shape[-2:]
        assert on_meta.total().device.type == "meta"
    assert patch_evidence(model, images, torch.empty(on_cpu.heads.shape[-1], 7, device="meta"))[0].shape[0] == 2


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_attention_of_one_token_is_a_row_of_all(name):
    """It is computed in another way where the heads' keys lie side by side."""
    model, states = small(name), []
    with observe(adapt(model.visual), on_layer=lambda _, state: states.append(state)):
        model.encode_image(pictures(model, 2))
    for state in states:
        whole = state.attention(slice(None))
        torch.testing.assert_close(state.attention(slice(0, 1)), whole[:, :, :1], atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_hooks_change_and_leave_nothing(name):
    """Bit for bit where torch uses the same kernels, also after an exception, and with two models at once."""
    model, vit = small(name, torch.float32), small("ViT", torch.float32)
    images, vit_images, tower = pictures(model, 3, torch.float32), pictures(vit, 3, torch.float32), adapt(model.visual)
    attributes = {path: set(vars(module)) for path, module in model.named_modules()}
    with patch("torch.backends.mha.get_fastpath_enabled", lambda: False):
        bare, vit_bare = model.encode_image(images), vit.encode_image(vit_images)
        layers, vit_layers = [], []
        with (
            observe(tower, on_layer=lambda number, _: layers.append(number)),
            observe(adapt(vit.visual), on_layer=lambda number, _: vit_layers.append(number)),
        ):
            observed = model.encode_image(images)
            assert torch.equal(vit.encode_image(vit_images), vit_bare)
    assert (layers, vit_layers) == (list(range(len(tower.layers))), [0, 1, 2])
    if name == "ResNet":  # its pool is computed for one query
        torch.testing.assert_close(F.normalize(observed), F.normalize(bare), atol=2e-6, rtol=0)
    else:
        assert torch.equal(observed, bare)
    with pytest.raises(ZeroDivisionError), observe(tower, on_layer=lambda *_: 1 / 0, on_mlp=print):
        model.encode_image(images)
    contributions(model, images)
    assert {path: set(vars(module)) for path, module in model.named_modules()} == attributes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with patch("torch.backends.mha.get_fastpath_enabled", lambda: False):
        assert torch.equal(model.encode_image(images), bare)
