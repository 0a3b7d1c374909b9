"""Other methods' maps on a case whose answer is known: one bright patch, which all the evidence comes from."""

import pytest
import torch
import torch.nn.functional as F
from towers_small import pictures, small

from clipspectra.families import Unsupported, tower
from clipspectra.rivals import RIVALS, traced
from clipspectra.segment import patch_evidence

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


@pytest.mark.parametrize("name", RIVALS)
def test_the_bright_patch_is_found(name, planted):
    model, images, text = planted
    values = RIVALS[name](model, images, text, tower(model.visual))
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
    found, images = tower(model.visual), pictures(model, 3)
    trace = traced(model, images, found, linear=True)
    text = F.normalize(torch.randn(3, 24, dtype=torch.float64), dim=-1)
    score = (trace.embedding * text).sum()
    (gradient,) = torch.autograd.grad(score, trace.start)
    assert (gradient * trace.start).sum().item() == pytest.approx(score.item(), abs=1e-12)


def test_tracing_changes_nothing():
    model = small("layer scale")
    found, images = tower(model.visual), pictures(model, 2)
    bare = model.encode_image(images, normalize=True)
    for linear in (False, True):
        torch.testing.assert_close(traced(model, images, found, linear=linear).embedding, bare, rtol=0, atol=1e-12)
    assert torch.equal(model.encode_image(images, normalize=True), bare)


def test_towers_that_cannot_be_traced_are_refused():
    model = small("SigLIP")
    with pytest.raises(Unsupported, match="only open_clip's ViTs with a class token"):
        RIVALS["LeGrad"](model, pictures(model, 1), None, tower(model.visual))
    assert RIVALS["last-layer attention"](model, pictures(model, 1), None, tower(model.visual)).shape == (1, 16)
