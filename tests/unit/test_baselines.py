"""The baselines' maps on a case with a known answer: one bright patch, from which all evidence comes."""

import pytest
import torch
import torch.nn.functional as F
from towers_small import pictures, small

from clipspectra.segmentation.baselines import BASELINES, traced_forward
from clipspectra.segmentation.maps import component_evidence, last_layer_maps, patch_evidence
from clipspectra.towers.families import Unsupported, adapt

BRIGHT = 6  # of 16 patches


@pytest.fixture(scope="module")
def planted():
    """(model, images, texts): black patches are zero before the last layer, the class token attends to the bright."""
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
        texts = F.normalize(model.encode_image(images), dim=-1)
    return model, images, texts


@pytest.mark.parametrize("name", BASELINES)
def test_the_bright_patch_is_found(name, planted):
    model, images, texts = planted
    with torch.no_grad():  # callers may be in no_grad: the function turns gradients on where it needs them
        values = BASELINES[name](model, images, texts, adapt(model.visual))
    assert values.shape == (2, 16)
    assert not values.requires_grad
    if name == "all background":
        assert not values.any()
    elif name == "centre prior":
        assert values[0].argsort(descending=True)[:4].sort().values.tolist() == [5, 6, 9, 10]
    else:
        assert values.argmax(1).tolist() == [BRIGHT, BRIGHT]
    if "LRP" in name:
        black = torch.ones(16, dtype=bool)
        black[BRIGHT] = False
        assert values[:, black].abs().max() < 1e-10  # a zero patch has no relevance


def test_the_decomposition_finds_the_bright_patch(planted):
    model, images, texts = planted
    classes = torch.tensor([0, 1])
    evidence, mapped = patch_evidence(model, images, texts.T.contiguous(), classes=classes, minus_mean=False)
    assert evidence.argmax(1).tolist() == [BRIGHT, BRIGHT]
    assert torch.equal(mapped, classes)


def test_relevance_is_conserved(planted):
    """Without biases, the relevance of all tokens sums to the score."""
    model, _, _ = planted
    tower, images = adapt(model.visual), pictures(model, 3)
    trace = traced_forward(model, images, tower, linear=True)
    texts = F.normalize(torch.randn(3, 24, dtype=torch.float64), dim=-1)
    score = (trace.embedding * texts).sum()
    (gradient,) = torch.autograd.grad(score, trace.start)
    assert (gradient * trace.start).sum().item() == pytest.approx(score.item(), abs=1e-12)


def test_tracing_changes_nothing():
    model = small("layer scale")
    tower, images = adapt(model.visual), pictures(model, 2)
    embedding = model.encode_image(images, normalize=True)
    for linear in (False, True):
        torch.testing.assert_close(
            traced_forward(model, images, tower, linear=linear).embedding, embedding, rtol=0, atol=1e-12
        )
    assert torch.equal(model.encode_image(images, normalize=True), embedding)


def test_towers_that_cannot_be_traced_are_refused():
    model = small("SigLIP")
    with pytest.raises(Unsupported, match="only open_clip's ViTs with a class token"):
        BASELINES["LeGrad"](model, pictures(model, 1), None, adapt(model.visual))
    assert BASELINES["last-layer attention"](model, pictures(model, 1), None, adapt(model.visual)).shape == (1, 16)


@pytest.mark.parametrize("name", ["ViT", "SigLIP", "EVA02, norms last", "LayerNorm, then average", "ResNet"])
def test_components_and_heads_add_up(name):
    """A basis of the joint space adds up to a head's evidence, and all heads to the map up to its constants."""
    model = small(name)
    tower, images = adapt(model.visual), pictures(model, 3)
    d_embed = model.encode_image(images[:1]).shape[1]
    classifier = torch.randn(d_embed, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    basis = torch.linalg.qr(torch.randn(d_embed, d_embed, dtype=torch.float64))[0]
    heads, classes = patch_evidence(model, images, classifier, by_head=True, tower=tower)
    chosen = [(0, 1), (heads.shape[1] - 1, 0)]
    components = component_evidence(model, images, classifier, dict.fromkeys(chosen, basis), tower=tower)
    assert list(components) == chosen
    for layer, head in chosen:
        torch.testing.assert_close(components[layer, head].sum(1), heads[:, layer, head], atol=1e-11, rtol=0)
    evidence, top1 = patch_evidence(model, images, classifier, tower=tower)
    assert torch.equal(classes, top1)
    rest = evidence - heads.sum((1, 2))
    torch.testing.assert_close(rest, rest[:, :1].expand_as(rest), atol=1e-11, rtol=0)
    last, magnitude = last_layer_maps(heads[:, -1]).values()
    assert (magnitude >= last.abs() - 1e-12).all()


def test_the_batch_size_changes_nothing():
    model = small("ViT")
    tower, images = adapt(model.visual), pictures(model, 5)
    classifier = torch.randn(24, 7, dtype=torch.float64)
    evidence, classes = patch_evidence(model, images, classifier, tower=tower)
    by_image = torch.cat([patch_evidence(model, image[None], classifier, tower=tower)[0] for image in images])
    torch.testing.assert_close(evidence, by_image, atol=1e-12, rtol=0)
    texts = F.normalize(classifier.T[classes], dim=-1)
    for name, baseline in BASELINES.items():
        values = baseline(model, images, texts, tower)
        by_image = torch.cat([baseline(model, image[None], text[None], tower) for image, text in zip(images, texts)])
        torch.testing.assert_close(values, by_image, atol=1e-12, rtol=0, msg=name)


def test_the_last_layer_alone_is_gradient_relevance_of_one_layer():
    """R = I + mean over heads of the positive part of gradient times attention, written out."""
    model = small("ViT")
    tower, images = adapt(model.visual), pictures(model, 2)
    texts = F.normalize(torch.randn(2, 24, dtype=torch.float64), dim=-1)
    trace = traced_forward(model, images, tower)
    attention = trace.attention[-1]
    (gradient,) = torch.autograd.grad((trace.embedding * texts).sum(), attention)
    expected = (gradient * attention).clamp(min=0).mean(1)[:, 0, tower.prefix :]
    torch.testing.assert_close(BASELINES["Chefer et al., last layer"](model, images, texts, tower), expected)


def test_maskclip_ranks_patches_whose_similarities_are_all_negative():
    """It is a similarity, not evidence against: a text that no patch resembles still has the most similar one."""
    model = small("ViT")
    tower, images = adapt(model.visual), pictures(model, 2)
    mean = F.normalize(model.encode_image(images), dim=-1)
    near, far = (BASELINES["MaskCLIP"](model, images, sign * mean, tower) for sign in (1, -1))
    assert near.min() == far.min() == 0
    torch.testing.assert_close(near + far, near.amax(1, keepdim=True).expand_as(near))
