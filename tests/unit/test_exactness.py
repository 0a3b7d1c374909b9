"""The decomposition against the model and against brute force in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from stored_small import save_images
from towers_small import pictures, small

from clipspectra import InputError
from clipspectra.arrays import save_arrays
from clipspectra.contributions.exact import activations, contributions, head_basis, sum_errors
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
    layers, part_count = [], 2 * len(states) + 1
    for block, state in zip(visual.transformer.resblocks, states):
        attention, x = block.attn, block.ln_1(state)
        heads, d_head, tokens = attention.num_heads, attention.head_dim, x.shape[1]
        share_count = part_count * heads * tokens
        q, k, v = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
        result = torch.zeros(len(images), tokens, heads, visual.proj.shape[1], dtype=torch.float64)
        for head in range(heads):
            columns = slice(head * d_head, (head + 1) * d_head)
            weights = (q[:, :1, columns] @ k[:, :, columns].transpose(1, 2) / d_head**0.5).softmax(-1)[:, 0]
            for token in range(tokens):
                read = weights[:, token, None] * v[:, token, columns]
                added = read @ attention.out_proj.weight[:, columns].T + attention.out_proj.bias / heads / tokens
                centred = block.ls_1(added) - mean[:, None] / share_count
                normed = centred / std[:, None] * visual.ln_post.weight + visual.ln_post.bias / share_count
                result[:, token, head] = normed @ visual.proj / norm[:, None]
        layers.append(result)
    return torch.stack(layers, dim=1)


@torch.no_grad()
def test_token_by_token_in_float64(model, images):
    expected = brute_force_heads(model, images)
    torch.testing.assert_close(contributions(model, images, per_token=True).heads, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(contributions(model, images).heads, expected.sum(2), atol=1e-12, rtol=0)


@torch.no_grad()
def test_stored_parts_add_up_and_scalars_are_the_statistics(model, images):
    batch, basis = activations(model, images), head_basis(adapt(model.visual))
    assert sum_errors(batch, basis).max() < 1e-12
    assert sum_errors(replace(batch, z=batch.z + 1e-3), basis).min() > 1e-5
    norm, ones = batch.embedding.norm(dim=1), torch.ones_like(batch.mean)
    scalars = torch.stack([1 / batch.std, batch.mean / batch.std, ones], dim=1) / norm[:, None]
    torch.testing.assert_close(batch.scalars, scalars)
    with torch.autocast("cpu", torch.bfloat16):
        cast = activations(model.float(), images.float())
    assert cast.z.dtype == torch.float32
    assert 1e-6 < sum_errors(cast, basis).max() < 0.05


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
    images = torch.randn(90, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    q, bases = activations(model, images).reduced(), head_basis(adapt(model.visual))
    dense = contributions(model, images).heads
    texts = np.random.default_rng(0).normal(size=(40, 24))
    for layer, head in ((0, 1), (2, 3)):
        rows, basis = q[:, layer, head].numpy(), bases[layer, head].numpy()
        np.testing.assert_allclose(Reduced(rows, basis).dense(), dense[:, layer, head], atol=1e-12)
        chunks = [Moments.from_data(Reduced(chunk, basis)) for chunk in np.split(rows, [7, 40, 41])]
        merged = chunks[0].merge(chunks[1]).merge(chunks[2]).merge(chunks[3])
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


def test_a_constant_head_has_no_components():
    explanation = explain_components(np.ones((20, 6)), np.random.default_rng(0).normal(size=(9, 6)))
    assert explanation.rank == 0
    np.testing.assert_allclose(explanation.reconstruct(np.ones((3, 6))), 1)


def test_rank_is_capped_and_small_pools_are_enough():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(50, 2)) @ rng.normal(size=(2, 8))
    explanation = explain_components(data, rng.normal(size=(3, 8)), texts_per_pole=5, threshold=1.0)
    assert explanation.rank == 2
    assert explanation.top_text.shape == (2, 3)


@torch.no_grad()
def test_stored_activations_are_read_as_they_were(tmp_path, model, images):
    model = model.float()
    basis = head_basis(adapt(model.visual))
    save_arrays(tmp_path / "basis.safetensors", {"basis": basis.numpy()}, {})
    paths, row = [], np.arange(len(images))
    ids = save_images(tmp_path / "images.csv", np.where(row % 3 % 2, "eval", "fit"))
    for shard, shard_images in enumerate(images.float().split(3)):
        batch, part = activations(model, shard_images), slice(3 * shard, 3 * shard + 3)
        names = ("z", "scalars", "mlps", "class_self", "embedding")
        arrays = {name: getattr(batch, name).numpy() for name in names}
        arrays |= {"row": row[part], "picture_id": ids[part]}
        paths.append(tmp_path / f"{shard}.safetensors")
        save_arrays(paths[-1], arrays, {})
    stored = StoredActivations(paths, tmp_path / "basis.safetensors", tmp_path / "images.csv")
    expected = contributions(model, images.float())
    parts = torch.cat([expected.heads.sum(2) - expected.class_self, expected.class_self, expected.mlps], dim=1)
    np.testing.assert_allclose(np.concatenate(list(stored.parts())), parts, atol=1e-6)
    np.testing.assert_allclose(stored.fit_means(), parts[stored.fit].mean(0), atol=1e-6)
    fit = stored.fit_moments(1)[2]
    assert fit.count == 3
    np.testing.assert_allclose(fit.embedded_mean(), expected.heads[stored.fit, 1, 2].mean(0), atol=1e-6)
    sums = layer_sums(*(np.concatenate([a, a]) for a in (arrays["z"], arrays["scalars"])), basis.numpy())
    np.testing.assert_array_equal(sums[:2], sums[2:])
