"""Edits in the running model and in its weights: equal to edits of its own sum, in float64, and gone afterwards."""

import re
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from stored_small import stored_small
from torch.nn import functional as F
from towers_small import SMALL, pictures, small

from clipspectra import InputError
from clipspectra.concepts.interventions import Edits, Intervention, check_units
from clipspectra.concepts.references import Reference, load_edit, save_edit
from clipspectra.contributions.exact import activations, contributions, head_basis
from clipspectra.editing import edited, folded_weights
from clipspectra.editing.outcomes import compare
from clipspectra.towers.families import adapt
from clipspectra.towers.tower import weights_digest

UNITS = [(0, 0, 1), (0, 0, 0), (1, 1), (1, 0, 1)]
EDIT = Intervention().scale(0.0, UNITS[:2]).scale(-1.0, UNITS[2:]).scale(2.5, [(1, 0)])


def reference_of(model, images, intervention):
    """Means over images, and random orthonormal directions in place of components."""
    batch, rng = activations(model, images), np.random.default_rng(3)
    q, exact = batch.reduced().numpy(), contributions(model, images)
    units = [(*head, number) for head, factors in intervention.heads.items() for number in factors.components]
    size = batch.embedding.shape[1]
    directions = {head: np.linalg.qr(rng.normal(size=(size, 3)))[0].T for head in intervention.heads}
    components = {unit: directions[unit[:2]][unit[2]] for unit in units}
    means = {(layer, head): q[:, layer, head].mean(0) for layer, head in intervention.heads}
    mlps = exact.mlps.sum(1).mean(0).numpy()
    return Reference(weights_digest(model.visual), 0, means, components, mlps=mlps), exact


def edited_by_hand(exact, intervention, reference):
    """The dense contributions, edited one by one and added up, as the model's own output is scaled."""
    heads, mlps = exact.heads.numpy().copy(), exact.mlps.sum(1).numpy()
    for (layer, head), factors in intervention.heads.items():
        centred = heads[:, layer, head] - heads[:, layer, head].mean(0)
        change = (factors.rest - 1) * centred
        for number, factor in factors.components.items():
            direction = reference.components[layer, head, number]
            change = change + (factor - factors.rest) * np.outer(centred @ direction, direction)
        heads[:, layer, head] += change
    mlps = mlps + (intervention.mlps - 1) * (mlps - mlps.mean(0))
    return (heads.sum((1, 2)) + mlps) * exact.norm.numpy()[:, None]


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_a_live_edit_equals_the_edit_of_the_models_own_sum(name):
    """Every family in float64, in batches of any size, and nothing is left behind, in float32 to the last bit."""
    model, intervention = small(name), EDIT.scale_mlps(0.3)
    images, bare = pictures(model, 5), small(name, torch.float32)
    reference, exact = reference_of(model, images, intervention)
    expected = edited_by_hand(exact, intervention, reference)
    with edited(model, intervention, reference):
        output = torch.cat([model.encode_image(part, normalize=False) for part in (images[:3], images[3:])])
        normalised = model.encode_image(images, normalize=True)
    np.testing.assert_allclose(output, expected, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_allclose(normalised, F.normalize(torch.from_numpy(expected), dim=-1), atol=1e-12)

    images = images.float()
    before, attributes = bare.encode_image(images), {path: set(vars(part)) for path, part in bare.named_modules()}
    reference = replace(reference, weights=weights_digest(bare.visual))
    with edited(bare, intervention, reference):
        in_float32 = bare.encode_image(images, normalize=True)
    torch.testing.assert_close(in_float32.double(), normalised, atol=2e-5, rtol=0)
    assert torch.equal(bare.encode_image(images), before)
    assert {path: set(vars(part)) for path, part in bare.named_modules()} == attributes
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in bare.modules())


@pytest.mark.parametrize("first", [0, 1], ids=["all layers", "last layers"])
def test_a_live_edit_equals_the_edit_of_stored_arrays(tmp_path, first):
    """Through its file, with early layers of which only the sum was stored; and its gradients are those of the sum."""
    study = stored_small(tmp_path, first=first)
    study.stored.weights = weights_digest(study.model.visual)
    intervention = Intervention().scale_mlps(0.0).edited({"do": "remove", "all_but_last": 1}, [], study.stored)
    intervention = intervention.scale(0.0, [(2, 1)]).scale(-1, [(1, 0, 2), (2, 0, 1)])
    save_edit(
        tmp_path / "edit.safetensors", intervention, Reference.of(study.stored, study.explanations, intervention), {}
    )
    loaded, reference = load_edit(tmp_path / "edit.safetensors")
    assert loaded == intervention
    expected = Edits(study.stored, study.explanations).embeddings(intervention)
    images = study.images[study.stored.images["row"].to_numpy()].requires_grad_()
    with edited(study.model, loaded, reference):
        output = study.model.encode_image(images, normalize=True)
        (gradient,) = torch.autograd.grad(output[:, 0].sum(), images)
        with torch.no_grad():
            step = 1e-6 * torch.randn_like(images)
            ahead, behind = (study.model.encode_image(images + side * step, normalize=True) for side in (1, -1))
    np.testing.assert_allclose(output.detach(), expected, atol=1e-12)
    torch.testing.assert_close((gradient * step).sum() * 2, (ahead - behind)[:, 0].sum(), rtol=1e-4, atol=1e-12)


def test_what_a_live_edit_cannot_be_is_refused(tmp_path):
    model = small("ViT", torch.float32)
    images = pictures(model, 2, torch.float32)
    reference, _ = reference_of(model, images, EDIT)
    other = small("ViT", torch.float32)
    other.visual.conv1.weight.data[0, 0, 0, 0] += 0.1
    for wrong in (other, small("QuickGELU", torch.float32)):
        with pytest.raises(InputError, match="belongs to other weights"), edited(wrong, EDIT, reference):
            pass
    with (
        pytest.raises(InputError, match="its weights are torch.float16"),
        edited(deepcopy(model).half(), EDIT, reference),
    ):
        pass
    with edited(model, EDIT, reference):
        with pytest.raises(InputError, match="in use by another `with` block"), edited(model, EDIT, reference):
            pass
        with pytest.raises(InputError, match="in use by another `with` block"):
            activations(model, images)
        with pytest.raises(InputError, match="do not fit the model"):
            model.encode_image(images[..., :16])
        with pytest.raises(InputError, match="inner states are not"):
            model.visual.forward_intermediates(images)
        inside = model.encode_image(images)
    plain = model.encode_image(images)
    assert not torch.allclose(inside, plain)
    with pytest.raises(ZeroDivisionError), edited(model, EDIT, reference):
        model.encode_image(images[:1])
        raise ZeroDivisionError
    assert torch.equal(model.encode_image(images), plain)

    with pytest.raises(InputError, match="The images are of type Image"), edited(model, EDIT, reference):
        model.visual(Image.new("RGB", (32, 32)))
    with edited(model, EDIT, reference):
        copy = deepcopy(model)
        with ThreadPoolExecutor(1) as pool, pytest.raises(InputError, match="in another thread"):
            pool.submit(model.encode_image, images).result()
        model.train()
        with pytest.raises(InputError, match="changed inside the `with` block"):
            model.encode_image(images)
        model.eval()
        with torch.no_grad():
            model.visual.proj.mul_(1.0)
        with pytest.raises(InputError, match="changed inside the `with` block"):
            model.encode_image(images)
    with pytest.raises(InputError, match="was copied inside a `with` block"):
        copy.encode_image(images)
    assert torch.equal(model.encode_image(images), plain)

    path = tmp_path / "edit.safetensors"
    save_edit(path, EDIT, reference, {"model": "small"})
    for content in (path.read_bytes()[:-20], b"", path.read_bytes().replace(b"edit 1", b"edit 0")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=re.escape(f"{path} is damaged")):
            load_edit(path)
    path.unlink()
    with pytest.raises(InputError, match=re.escape(f"There is no edit {path}")):
        load_edit(path)


def test_a_reference_has_all_that_its_intervention_needs(tmp_path):
    model = small("ViT")
    reference, _ = reference_of(model, pictures(model, 3), EDIT)
    for intervention, sentence in (
        (EDIT.scale(0.0, [(2, 1)]), "lacks layer 2, head 1"),
        (EDIT.scale(0.0, [(1, 1, 7)]), "lacks layer 1, head 1, component 7"),
        (EDIT.scale(float("nan"), [(1, 1)]), "not a finite number"),
    ):
        with pytest.raises(InputError, match=sentence), edited(model, intervention, reference):
            pass
        with pytest.raises(InputError, match=sentence):
            folded_weights(model, intervention, reference)
    without = replace(reference, mlps=None)
    with pytest.raises(InputError, match="lacks the mean of mlps"), edited(model, EDIT.scale_mlps(0.0), without):
        pass
    study = stored_small(tmp_path)
    for unit in [(0, 1, -1), (0, -1)]:
        with pytest.raises(InputError, match="There is no layer 0"):
            check_units([unit], study.explanations)


def folded(model, intervention, reference):
    model = deepcopy(model)
    model.load_state_dict(folded_weights(model, intervention, reference), strict=False)
    return model


@pytest.mark.parametrize(
    "name",
    [
        *("ViT", "layer scale", "LayerNorm after class token", "average, then LayerNorm", "LayerNorm, then average"),
        *("EVA01", "EVA02, gated MLP and inner norms", "relative positions", "timm, average"),
    ],
)
@torch.no_grad()
def test_a_fold_is_the_edit_of_what_heads_write(name):
    """On unedited coordinates, the folded basis gives the edited contributions, but for how 1 / (sigma n) varies."""
    model = small(name)
    images = pictures(model, 6)
    reference, exact = reference_of(model, images, EDIT)
    batch, basis = activations(model, images), head_basis(adapt(model.visual))
    new_basis = head_basis(adapt(folded(model, EDIT, reference).visual))
    q = batch.reduced()
    heads = torch.einsum("ilhk,lhek->ilhe", q, new_basis)
    assert torch.equal(heads[:, 2:], torch.einsum("ilhk,lhek->ilhe", q, basis)[:, 2:])
    change = heads.sum(2)[:, :2] - exact.heads.sum(2)[:, :2]  # of each layer: the heads share its bias
    for layer in range(2):
        expected = 0.0
        for head in [number for of_layer, number in EDIT.heads if of_layer == layer]:
            mean = torch.from_numpy(reference.means[layer, head])
            count = batch.z.shape[-1]
            shifted = q[:, layer, head].clone()
            shifted[:, :count] -= mean[:count] / mean[count] * shifted[:, count : count + 1]
            z = shifted[:, :count] @ basis[layer, head, :, :count].T
            factors = EDIT.heads[layer, head]
            expected = expected + (factors.rest - 1) * z
            for number, factor in factors.components.items():
                direction = torch.from_numpy(reference.components[layer, head, number])
                expected = expected + (factor - factors.rest) * torch.outer(z @ direction, direction)
        torch.testing.assert_close(change[:, layer], expected, atol=1e-10, rtol=0)
        torch.testing.assert_close(change[:, layer].mean(0), torch.zeros_like(expected[0]), atol=1e-10, rtol=0)


@torch.no_grad()
def test_a_fold_of_components_that_no_layer_reads_is_nearly_the_edit():
    """Where nothing but the readout reads the stream after it, the rest is how 1 / (sigma n) varies over images."""
    model = small("ViT")
    last = model.visual.transformer.resblocks[-1]
    last.mlp.c_proj.weight.zero_()
    last.mlp.c_proj.bias.zero_()
    model.visual.conv1.weight *= 0.01  # images nearly alike, so that sigma and n hardly vary
    model.visual.ln_post.bias.zero_()
    images, intervention = pictures(model, 6), Intervention().scale(0.0, [(2, 1, 0), (2, 3, 1)])
    reference, _ = reference_of(model, images, intervention)
    with edited(model, intervention, reference):
        live = model.encode_image(images, normalize=True)
    in_weights = folded(model, intervention, reference).encode_image(images, normalize=True)
    moved = (live - model.encode_image(images, normalize=True)).abs().max()
    assert (in_weights - live).abs().max() < 0.15 * moved


def test_what_weights_cannot_hold_is_refused():
    cases = [
        ("ViT", EDIT.scale_mlps(0.0), "it edits MLPs"),
        ("ViT", Intervention().scale(1.0, UNITS), "changes nothing"),
        ("custom block", EDIT, "a LayerNorm follows the output matrix"),
        ("EVA02, norms last", EDIT, "a LayerNorm follows the output matrix"),
        ("SigLIP", EDIT, "the pool reads the stream with 4 heads"),
        ("ResNet", EDIT, "the sources of a ResNet's pool share one output matrix"),
        ("ResNet", Intervention().scale(0.0, [(0, 1)]), "the sources of a ResNet's pool share one output matrix"),
    ]
    for name, intervention, reason in cases:
        model = small(name)
        reference, _ = reference_of(model, pictures(model, 3), intervention)
        with pytest.raises(InputError, match=reason):
            folded_weights(model, intervention, reference)
    model = small("ViT")
    reference, _ = reference_of(model, pictures(model, 3), EDIT)
    with pytest.raises(InputError, match="belongs to other weights"):
        folded_weights(small("QuickGELU"), EDIT, reference)
    early = replace(reference, first_layer=1, early=np.zeros(24))
    with pytest.raises(InputError, match="set activations.layers: all"):
        folded_weights(model, EDIT.scale_early(0.0), early)


@pytest.mark.parametrize(("name", "heads"), [("SigLIP", [(1, 2)]), ("ResNet", [(0, 1), (1, 1), (2, 1)])])
@torch.no_grad()
def test_whole_heads_fold_where_components_cannot(name, heads):
    """Held at their mean in the weights, they no longer vary from image to image."""
    model, intervention = small(name), Intervention().scale(0.0, heads)
    images = pictures(model, 4)
    reference, _ = reference_of(model, images, intervention)
    tower = adapt(folded(model, intervention, reference).visual)
    count = len(tower.reading[0])
    for layer, head in heads:
        written = tower.layers[layer].writing()[0][head]
        assert written[:, : written.shape[1]].abs().max() < 1e-12, count
    changed = folded_weights(model, intervention, reference)
    assert any(name.endswith("bias") for name in changed)
    assert len(changed) == 2


def test_the_outcomes_are_measured_against_the_edit_of_stored_arrays():
    embeddings = {name: np.eye(4) for name in ("as it is", "stored", "live")}
    embeddings["stored"] = embeddings["live"] = np.eye(4)[[1, 0, 2, 3]]
    groups = {"all": np.ones(4, bool), "a": np.arange(4) < 2, "b": np.arange(4) >= 2}
    table = compare(embeddings, np.eye(4), np.arange(4), groups, "it has a reason")
    table = table.set_index(["setting", "group"])
    assert table.loc[("edited, running model", "worst"), "accuracy"] == 0
    assert table.loc[("edited, running model", "all"), "change"] == -50
    assert table.loc[("as it is", "a"), ["cosine", "difference"]].tolist() == [0, 1]
    assert table.loc[("edited, folded weights", "all"), "not_folded"] == "it has a reason"
