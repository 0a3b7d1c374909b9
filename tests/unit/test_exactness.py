"""The decomposition against the model itself and against brute force in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from clipspectra import InputError
from clipspectra.activations import StoredActivations, layer_sums
from clipspectra.arrays import save_arrays
from clipspectra.contributions import activations, contributions, head_basis, reduced_coordinates
from clipspectra.hooks import observe
from clipspectra.segment import patch_evidence
from clipspectra.spectral import Moments, Reduced, explain_components, principal_components

VARIANTS = {
    "plain": {},
    "quick gelu": {"quick_gelu": True},
    "layer scale": {"ls_init_value": 0.3},
    "without ln_pre": {"no_ln_pre": True},
    "LayerNorm after pooling": {"final_ln_after_pool": True},
}


def tiny(quick_gelu=False, **options):
    """A small float64 CLIP with every parameter random, biases and LayerNorm included."""
    torch.manual_seed(0)
    vision = CLIPVisionCfg(image_size=32, layers=3, width=48, head_width=12, patch_size=8, **options)
    text = CLIPTextCfg(context_length=16, vocab_size=64, width=16, heads=2, layers=1)
    model = CLIP(24, vision, text, quick_gelu=quick_gelu).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture
def images():
    return torch.randn(5, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def brute_force_heads(model, images):
    """Heads by source token, written out token by token from the formulas, [image, layer, pos, head, d_embed]."""
    visual, states = model.visual, []
    handles = [
        block.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
        for block in visual.transformer.resblocks
    ]
    final = []
    handles.append(visual.transformer.register_forward_hook(lambda *call: final.append(call[2][:, 0])))
    embedding = model.encode_image(images)
    for handle in handles:
        handle.remove()
    norm = embedding.norm(dim=-1)
    mean, std = final[0].mean(-1), (final[0].var(-1, unbiased=False) + visual.ln_post.eps).sqrt()
    layers, parts = [], 2 * len(states) + 1
    for block, state in zip(visual.transformer.resblocks, states):
        attention, x = block.attn, block.ln_1(state)
        heads, d_head, tokens = attention.num_heads, attention.head_dim, x.shape[1]
        q, k, v = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
        result = torch.zeros(len(images), tokens, heads, visual.proj.shape[1], dtype=torch.float64)
        for head in range(heads):
            part = slice(head * d_head, (head + 1) * d_head)
            weights = (q[:, :1, part] @ k[:, :, part].transpose(1, 2) / d_head**0.5).softmax(-1)[:, 0]
            for token in range(tokens):
                read = weights[:, token, None] * v[:, token, part]
                added = read @ attention.out_proj.weight[:, part].T + attention.out_proj.bias / heads / tokens
                added = block.ls_1(added)
                centred = added - mean[:, None] / parts / heads / tokens
                normed = centred / std[:, None] * visual.ln_post.weight + visual.ln_post.bias / parts / heads / tokens
                result[:, token, head] = normed @ visual.proj / norm[:, None]
        layers.append(result)
    return torch.stack(layers, dim=1)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@torch.no_grad()
def test_brute_force_in_float64(options, images):
    model = tiny(**options)
    expected = brute_force_heads(model, images)
    normalised = model.encode_image(images, normalize=True)
    found, per_token = contributions(model, images), contributions(model, images, per_token=True)
    torch.testing.assert_close(per_token.heads, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(found.heads, expected.sum(2), atol=1e-12, rtol=0)
    torch.testing.assert_close(found.total(), normalised, atol=1e-12, rtol=0)
    torch.testing.assert_close(per_token.total(), normalised, atol=1e-12, rtol=0)
    classifier = torch.randn(24, 7, dtype=torch.float64)
    logits = torch.einsum("ilphe,ec->ipc", expected, classifier)[:, 1:]
    top = (normalised @ classifier).argmax(1)
    evidence = logits[torch.arange(5), :, top] - logits.mean(-1)
    torch.testing.assert_close(patch_evidence(model, images, classifier), evidence, atol=1e-12, rtol=0)


@torch.no_grad()
def test_hooks_leave_nothing(images):
    model = tiny()
    before, modules = model.encode_image(images), {name: dict(vars(part)) for name, part in model.named_modules()}
    with pytest.raises(ZeroDivisionError), observe(model.visual, on_attention=lambda *_: 1 / 0, on_final=print):
        model.encode_image(images)
    contributions(model, images)
    assert all(vars(part).keys() == modules[name].keys() for name, part in model.named_modules())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert torch.equal(model.encode_image(images), before)


@torch.no_grad()
def test_output_is_the_same_bit_for_bit_under_observation(images):
    model, images = tiny().float(), images.float()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        bare = model.encode_image(images)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    with observe(model.visual, on_attention=lambda *_: None):
        observed = model.encode_image(images)
    assert torch.equal(observed, bare)
    torch.testing.assert_close(model.encode_image(images), observed, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"pool_type": "avg"}, "pools by 'avg'"),
        ({"attentional_pool": True, "attn_pooler_heads": 4}, "pools with attention"),
        ({"block_type": "custom", "scale_heads": True}, "CustomResidualAttentionBlock"),
    ],
)
def test_towers_without_an_exact_decomposition_are_refused(options, reason, images):
    with pytest.raises(InputError, match=reason):
        contributions(tiny(**options), images)


@torch.no_grad()
def test_spectrum_from_merged_moments_equals_dense(images):
    model = tiny()
    many = torch.randn(90, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found, every_basis = activations(model, many), head_basis(model.visual)
    q = reduced_coordinates(found.z, found.scalars)
    dense = contributions(model, many).heads
    texts = np.random.default_rng(0).normal(size=(40, 24))
    for layer, head in ((0, 1), (2, 3)):
        rows, basis = q[:, layer, head].numpy(), every_basis[layer, head].numpy()
        np.testing.assert_allclose(Reduced(rows, basis).dense(), dense[:, layer, head], atol=1e-12)
        parts = [Moments.of(Reduced(part, basis)) for part in np.split(rows, [7, 40, 41])]
        merged = parts[0].merge(parts[1]).merge(parts[2]).merge(parts[3])
        centred = (dense[:, layer, head] - dense[:, layer, head].mean(0)).numpy()
        singular, components = principal_components(merged)
        expected = np.linalg.svd(centred)[1]
        np.testing.assert_allclose(singular, expected[: len(singular)], atol=1e-10 * expected[0])
        np.testing.assert_allclose(components @ components.T, np.eye(len(components)), atol=1e-10)
        whole, shuffled = (explain_components(Reduced(r, basis), texts) for r in (rows, rows[::-1]))
        np.testing.assert_array_equal(whole.top_text, shuffled.top_text)
        np.testing.assert_allclose(
            whole.reconstruct(dense[:, layer, head]), shuffled.reconstruct(dense[:, layer, head])
        )


def test_a_head_that_always_says_the_same_has_no_components():
    found = explain_components(np.ones((20, 6)), np.random.default_rng(0).normal(size=(9, 6)))
    assert found.rank == 0
    np.testing.assert_allclose(found.reconstruct(np.ones((3, 6))), 1)


def test_rank_is_capped_and_small_pools_are_enough():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(50, 2)) @ rng.normal(size=(2, 8))
    found = explain_components(data, rng.normal(size=(3, 8)), texts_per_pole=5, threshold=1.0)
    assert found.rank == 2
    assert found.top_text.shape == (2, 3)


@torch.no_grad()
def test_stored_activations_are_read_as_they_were(tmp_path, images):
    model = tiny().float()
    basis = head_basis(model.visual)
    save_arrays(tmp_path / "basis.safetensors", {"basis": basis.numpy()}, {})
    paths = []
    for shard, part in enumerate(images.float().split(3)):
        found = activations(model, part)
        arrays = {name: getattr(found, name).numpy() for name in ("z", "scalars", "mlps", "embedding")}
        paths.append(tmp_path / f"{shard}.safetensors")
        save_arrays(paths[-1], arrays | {"fit": np.array([1, 0, 1][: len(part)], np.uint8)}, {})
    stored = StoredActivations(paths, tmp_path / "basis.safetensors")
    expected = contributions(model, images.float())
    parts = torch.cat([expected.heads.sum(2), expected.mlps], dim=1)
    np.testing.assert_allclose(np.concatenate(list(stored.parts())), parts, atol=1e-6)
    np.testing.assert_allclose(stored.fit_means(), parts[stored.fit].mean(0), atol=1e-6)
    fit = stored.fit_moments(1)[2]
    assert fit.count == 3
    np.testing.assert_allclose(fit.embedded_mean(), expected.heads[stored.fit, 1, 2].mean(0), atol=1e-6)
    everything = layer_sums(*(np.concatenate([a, a]) for a in (arrays["z"], arrays["scalars"])), basis.numpy())
    np.testing.assert_array_equal(everything[:2], everything[2:])
