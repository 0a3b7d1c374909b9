"""The decomposition against the model itself and against brute force in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from towers_small import pictures, small

from clipspectra import InputError
from clipspectra.arrays import save_arrays
from clipspectra.contributions.exact import activations, contributions, head_basis, sum_error
from clipspectra.contributions.moments import Moments, Reduced
from clipspectra.contributions.stored import StoredActivations, layer_sums
from clipspectra.explanations.spectral import explain_components, principal_components
from clipspectra.towers.families import adapt


@pytest.fixture
def model():
    return small("ViT")


@pytest.fixture
def images(model):
    return pictures(model, 5)


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


@torch.no_grad()
def test_token_by_token_in_float64(model, images):
    expected = brute_force_heads(model, images)
    torch.testing.assert_close(contributions(model, images, per_token=True).heads, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(contributions(model, images).heads, expected.sum(2), atol=1e-12, rtol=0)


@torch.no_grad()
def test_stored_parts_add_up_and_tell_their_statistics(model, images):
    found, basis = activations(model, images), head_basis(adapt(model.visual))
    assert sum_error(found, basis) < 1e-12
    assert sum_error(replace(found, z=found.z + 1e-3), basis) > 1e-5
    norm = found.embedding.norm(dim=1)
    torch.testing.assert_close(
        found.scalars, torch.stack([1 / found.std, found.mean / found.std, found.mean**0], 1) / norm[:, None]
    )
    with torch.autocast("cpu", torch.bfloat16):
        cast = activations(model.float(), images.float())
    assert cast.z.dtype == torch.float32
    assert 1e-6 < sum_error(cast, basis) < 0.05


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model: model.train(), "in training mode"),
        (lambda model: model.bfloat16(), "its weights are torch.bfloat16"),
        (lambda model: setattr(model, "visual", torch.compile(model.visual)), "it is compiled"),
        (lambda model: model.visual.compile(), "it is compiled"),
        (lambda model: setattr(model.visual, "proj", None), "lacks the projection"),
    ],
)
def test_what_would_not_be_exact_is_refused(change, reason, model, images):
    change(model)
    with pytest.raises(InputError, match=f"cannot be decomposed exactly: .*{reason}"):
        contributions(model, images)


def test_images_of_another_size_are_refused(model):
    with pytest.raises(InputError, match=r"shape \[2, 3, 32, 40\] do not fit .* \[image, 3, 32, 32\]"):
        contributions(model, torch.zeros(2, 3, 32, 40, dtype=torch.float64))


@torch.no_grad()
def test_spectrum_from_merged_moments_equals_dense(model):
    many = torch.randn(90, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found, every_basis = activations(model, many), head_basis(adapt(model.visual))
    q = found.reduced()
    dense = contributions(model, many).heads
    texts = np.random.default_rng(0).normal(size=(40, 24))
    for layer, head in ((0, 1), (2, 3)):
        rows, basis = q[:, layer, head].numpy(), every_basis[layer, head].numpy()
        np.testing.assert_allclose(Reduced(rows, basis).dense(), dense[:, layer, head], atol=1e-12)
        parts = [Moments.from_data(Reduced(part, basis)) for part in np.split(rows, [7, 40, 41])]
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
def test_stored_activations_are_read_as_they_were(tmp_path, model, images):
    model = model.float()
    basis = head_basis(adapt(model.visual))
    save_arrays(tmp_path / "basis.safetensors", {"basis": basis.numpy()}, {})
    paths = []
    for shard, part in enumerate(images.float().split(3)):
        found = activations(model, part)
        arrays = {name: getattr(found, name).numpy() for name in ("z", "scalars", "mlps", "class_self", "embedding")}
        paths.append(tmp_path / f"{shard}.safetensors")
        arrays |= {"row": np.arange(len(part)), "fit": 1 - np.arange(len(part)) % 2, "eval": np.arange(len(part)) % 2}
        save_arrays(paths[-1], arrays, {})
    stored = StoredActivations(paths, tmp_path / "basis.safetensors")
    expected = contributions(model, images.float())
    parts = torch.cat([expected.heads.sum(2) - expected.class_self, expected.class_self, expected.mlps], dim=1)
    np.testing.assert_allclose(np.concatenate(list(stored.parts())), parts, atol=1e-6)
    np.testing.assert_allclose(stored.fit_means(), parts[stored.fit].mean(0), atol=1e-6)
    fit = stored.fit_moments(1)[2]
    assert fit.count == 3
    np.testing.assert_allclose(fit.embedded_mean(), expected.heads[stored.fit, 1, 2].mean(0), atol=1e-6)
    everything = layer_sums(*(np.concatenate([a, a]) for a in (arrays["z"], arrays["scalars"])), basis.numpy())
    np.testing.assert_array_equal(everything[:2], everything[2:])
