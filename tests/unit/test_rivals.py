"""Other methods' maps on a case whose answer is known: one bright patch, which all the evidence comes from."""

import pytest
import torch
import torch.nn.functional as F
from towers_small import pictures, small

from clipspectra.segmentation.baselines import BASELINES, traced_forward
from clipspectra.segmentation.maps import component_evidence, patch_evidence, variants
from clipspectra.towers.families import Unsupported, adapt

BRIGHT = 6  # of 16 patches


@pytest.fixture(scope="module")
def planted():
    """(model, images, text): black patches are zero before the last layer, the class token looks for the bright one."""
    model = small("ViT")
    visual, d = model.visual, model.visual.conv1.out_channels
    with torch.no_grad():
        for name, parameter in visual.named_parameters():
            if name.endswith("bias") or "positional" in name:
                parameter.zero_()
            if "ln_" in name and name.endswith("weight"):
                parameter.fill_(1)
        images = torch.zeros(2, 3, 32, 32, dtype=torch.float64)
        row, column = divmod(BRIGHT, 4)
        images[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1
        bright = F.layer_norm(visual.conv1(images[:1]).flatten(2)[0, :, BRIGHT], (d,))
        visual.class_embedding.copy_(bright)
        for block in visual.transformer.resblocks:
            block.attn.in_proj_weight[: 2 * d] = 1.5 * torch.eye(d).repeat(2, 1)
        for block in visual.transformer.resblocks[:-1]:
            block.attn.out_proj.weight.zero_()  # a black patch reads nothing before the last layer
        text = F.normalize(model.encode_image(images), dim=-1)
    return model, images, text


@pytest.mark.parametrize("name", BASELINES)
def test_the_bright_patch_is_found(name, planted):
    model, images, text = planted
    with torch.no_grad():  # as its callers may be; gradients are the function's own business
        values = BASELINES[name](model, images, text, adapt(model.visual))
    assert values.shape == (2, 16)
    assert not values.requires_grad
    if name == "all background":
        assert not values.any()
    elif name == "centre prior":
        assert values[0].argsort(descending=True)[:4].sort().values.tolist() == [5, 6, 9, 10]
    else:
        assert values.argmax(1).tolist() == [BRIGHT, BRIGHT]
    if name in ("full LRP", "partial LRP"):
        others = torch.ones(16, dtype=bool)
        others[BRIGHT] = False
        assert values[:, others].abs().max() < 1e-10  # what is zero has no relevance


def test_the_decomposition_finds_it_too(planted):
    model, images, text = planted
    classes = torch.tensor([0, 1])
    evidence, found = patch_evidence(model, images, text.T.contiguous(), classes=classes, minus_mean=False)
    assert evidence.argmax(1).tolist() == [BRIGHT, BRIGHT]
    assert torch.equal(found, classes)


def test_relevance_is_conserved(planted):
    """Without biases, the relevance of all tokens is the score itself."""
    model, _, _ = planted
    found, images = adapt(model.visual), pictures(model, 3)
    trace = traced_forward(model, images, found, linear=True)
    text = F.normalize(torch.randn(3, 24, dtype=torch.float64), dim=-1)
    score = (trace.embedding * text).sum()
    (gradient,) = torch.autograd.grad(score, trace.start)
    assert (gradient * trace.start).sum().item() == pytest.approx(score.item(), abs=1e-12)


def test_tracing_changes_nothing():
    model = small("layer scale")
    found, images = adapt(model.visual), pictures(model, 2)
    bare = model.encode_image(images, normalize=True)
    for linear in (False, True):
        torch.testing.assert_close(
            traced_forward(model, images, found, linear=linear).embedding, bare, rtol=0, atol=1e-12
        )
    assert torch.equal(model.encode_image(images, normalize=True), bare)


def test_towers_that_cannot_be_traced_are_refused():
    model = small("SigLIP")
    with pytest.raises(Unsupported, match="only open_clip's ViTs with a class token"):
        BASELINES["LeGrad"](model, pictures(model, 1), None, adapt(model.visual))
    assert BASELINES["last-layer attention"](model, pictures(model, 1), None, adapt(model.visual)).shape == (1, 16)


@pytest.mark.parametrize("name", ["ViT", "SigLIP", "EVA02, norms last", "LayerNorm, then average", "ResNet"])
def test_components_and_heads_add_up(name):
    """All directions of the joint space give what a head gives, and all heads the map but for its constants."""
    model = small(name)
    found, images = adapt(model.visual), pictures(model, 3)
    d_embed = model.encode_image(images[:1]).shape[1]
    classifier = torch.randn(d_embed, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    basis = torch.linalg.qr(torch.randn(d_embed, d_embed, dtype=torch.float64))[0]
    heads, classes = patch_evidence(model, images, classifier, by_head=True, tower=found)
    places = [(0, 1), (heads.shape[1] - 1, 0)]
    parts = component_evidence(model, images, classifier, dict.fromkeys(places, basis), tower=found)
    assert list(parts) == places
    for layer, head in places:
        torch.testing.assert_close(parts[layer, head].sum(1), heads[:, layer, head], atol=1e-11, rtol=0)
    whole, same = patch_evidence(model, images, classifier, tower=found)
    assert torch.equal(classes, same)
    rest = whole - heads.sum((1, 2))
    torch.testing.assert_close(rest, rest[:, :1].expand_as(rest), atol=1e-11, rtol=0)
    last, sizes = variants(heads).values()
    assert (sizes >= last.abs() - 1e-12).all()


def test_the_batch_size_changes_nothing():
    model = small("ViT")
    found, images = adapt(model.visual), pictures(model, 5)
    classifier = torch.randn(24, 7, dtype=torch.float64)
    whole, classes = patch_evidence(model, images, classifier, tower=found)
    one = torch.cat([patch_evidence(model, image[None], classifier, tower=found)[0] for image in images])
    torch.testing.assert_close(whole, one, atol=1e-12, rtol=0)
    texts = F.normalize(classifier.T[classes], dim=-1)
    for name, rival in BASELINES.items():
        alone = [rival(model, image[None], text[None], found) for image, text in zip(images, texts)]
        torch.testing.assert_close(rival(model, images, texts, found), torch.cat(alone), atol=1e-12, rtol=0, msg=name)
