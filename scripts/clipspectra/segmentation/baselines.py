"""Baselines: other methods' maps of the evidence for a text, on the same weights and images, each in a short function.

Every function takes the model, images [image, 3, height, width], the text embedding of each image [image, d_embed] and
the model's Tower, and returns a value for each patch, [image, patch]. Those that need gradients write the attention out
and raise Unsupported for all towers but open_clip's ViTs with a class token. Those in TRACES also take what that
function makes of the images, so that several methods and texts share one forward pass.
"""

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import nn

from clipspectra.towers.families import Unsupported
from clipspectra.towers.hooks import observe


@dataclass
class ForwardTrace:
    """Intermediate results of a forward pass, all in the autograd graph.

    start: embedding of the tokens, x_0 [image, pos, d_model]; attention: of each layer, [image, head, pos, pos]
    tokens: output of each block, [image, pos, d_model]; embedding: e/n [image, d_embed]
    """

    start: torch.Tensor | None = None
    attention: list = field(default_factory=list)
    tokens: list = field(default_factory=list)
    embedding: torch.Tensor | None = None


@torch.enable_grad()
def traced_forward(model, images, tower, *, linear=False):
    """Run the image encoder and return a ForwardTrace. linear: detach attention, LayerNorms' standard deviations and
    activations' gates, so that the output is affine in x_0. Raises Unsupported for towers that cannot be traced."""
    blocks = _traceable_blocks(tower)
    trace = ForwardTrace()
    with _replaced_forwards() as replace:
        for block in blocks:
            replace(block.attn, _traced_attention(block.attn, trace.attention, linear))
        if linear:
            for module in tower.visual.modules():
                if isinstance(module, nn.LayerNorm):
                    replace(module, _linear_norm(module))
                elif isinstance(module, nn.GELU | QuickGELU):
                    replace(module, _linear_gate(module.forward))

        def keep_start(module, inputs):
            trace.start = inputs[0].detach().requires_grad_()
            return (trace.start, *inputs[1:])

        hooks = [blocks[0].register_forward_pre_hook(keep_start)]
        hooks += [block.register_forward_hook(lambda _, __, output: trace.tokens.append(output)) for block in blocks]
        try:
            embedding = model.encode_image(images, normalize=False)
        finally:
            for hook in hooks:
                hook.remove()
    norm = embedding.norm(dim=-1, keepdim=True)
    trace.embedding = embedding / (norm.detach() if linear else norm)
    return trace


linear_forward = partial(traced_forward, linear=True)


def _traceable_blocks(tower):
    """The blocks of an open_clip ViT with a class token; raises Unsupported for other towers."""
    blocks = list(getattr(getattr(tower.visual, "transformer", None), "resblocks", []))
    plain = all(type(block) is ResidualAttentionBlock and type(block.attn) is nn.MultiheadAttention for block in blocks)
    if not blocks or not plain or tower.readout.pool != "class" or tower.readout.before is None:
        raise Unsupported("its attention cannot be traced; only open_clip's ViTs with a class token can be traced")
    return blocks


@contextmanager
def _replaced_forwards():
    """Yield replace(module, forward); the modules' own forwards are restored at the end."""
    replaced = []

    def replace(module, forward):
        module.forward = forward
        replaced.append(module)

    try:
        yield replace
    finally:
        for module in replaced:
            del module.forward


def _traced_attention(attention, attention_by_layer, linear):
    """A forward for this nn.MultiheadAttention that appends its weights to the list attention_by_layer."""

    def forward(query, key, value, **_):
        flat = F.linear(query, attention.in_proj_weight, attention.in_proj_bias)
        q, k, v = flat.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) * attention.head_dim**-0.5).softmax(-1)
        weights = weights.detach().requires_grad_() if linear else weights
        attention_by_layer.append(weights)
        return attention.out_proj((weights @ v).transpose(1, 2).flatten(2)), None

    return forward


def _linear_norm(module):
    def forward(x):
        scale = (x.var(-1, unbiased=False, keepdim=True) + module.eps).rsqrt().detach()
        return (x - x.mean(-1, keepdim=True)) * scale * module.weight + module.bias

    return forward


def _linear_gate(activation):
    def forward(x):
        return x * (activation(x) / torch.where(x == 0, 1, x)).detach()

    return forward


@torch.enable_grad()
def _summed_similarity(trace, texts):
    """Sum over images of the similarity of image and text; each image's gradient comes from its own term alone."""
    return (trace.embedding * texts).sum()


def last_layer_attention(model, images, texts, tower):
    """The class token's attention to each patch in the last layer, mean over heads.

    For ResNets, the attention of their pool; for other towers without a class token, the mean over the tokens read.
    """
    attention = _attention_by_layer(model, images, tower, tower.readout.tokens, last=True)[-1]
    return attention.mean((1, 2))[:, tower.prefix :]


def rollout(model, images, texts, tower):
    """Attention rollout (Abnar and Zuidema 2020): the product over layers of (mean attention + identity) / 2."""
    if tower.readout.pool != "class":
        raise Unsupported("rollout needs a class token, and it has none")
    total = None
    for attention in _attention_by_layer(model, images, tower, slice(None)):
        step = 0.5 * (attention.mean(1) + torch.eye(attention.shape[-1]).to(attention))
        total = step if total is None else step @ total
    return total[:, 0, tower.prefix :]


@torch.no_grad()
def _attention_by_layer(model, images, tower, tokens, last=False):
    """Attention of some tokens (a slice) to all, [image, head, target, pos], of each layer or of the last alone."""
    attention, layers = [], len(tower.layers)

    def on_layer(number, attention_state):
        if not last or number == layers - 1:
            attention.append(attention_state.attention(tokens))

    with observe(tower, on_layer=on_layer, only_read=last):
        model.encode_image(images, normalize=False)
    return attention


def grad_cam(model, images, texts, tower, trace=None):
    """GradCAM on the last layer's attention to the patches (Selvaraju et al. 2017, as applied by Chefer et al. 2021):
    heads weighted by their mean gradient."""
    trace = trace or traced_forward(model, images, tower)
    last = trace.attention[-1]
    (gradient,) = torch.autograd.grad(_summed_similarity(trace, texts), last, retain_graph=True)
    weight = gradient[:, :, 0, tower.prefix :].mean(-1, keepdim=True)
    return (weight * last.detach()[:, :, 0, tower.prefix :]).mean(1).clamp(min=0)


def gradient_relevance(model, images, texts, tower, trace=None, layers=None):
    """Chefer, Gur and Wolf 2021, generic attention explainability: by layer, R = R + mean over heads of (dA * A)+ R.

    layers: how many of the last ones, all if None
    """
    trace = trace or traced_forward(model, images, tower)
    layers_attention = trace.attention[-layers:] if layers else trace.attention
    gradients = torch.autograd.grad(_summed_similarity(trace, texts), layers_attention, retain_graph=True)
    relevance = torch.eye(gradients[0].shape[-1]).to(images)
    for attention, gradient in zip(layers_attention, gradients):
        relevance = relevance + (gradient * attention.detach()).clamp(min=0).mean(1) @ relevance
    return relevance[:, 0, tower.prefix :]


def last_layer_gradient_relevance(model, images, texts, tower, trace=None):
    """The same from the last layer alone, as in its authors' notebook for CLIP."""
    return gradient_relevance(model, images, texts, tower, trace, layers=1)


def legrad(model, images, texts, tower, trace=None, layers=2):
    """LeGrad (Bousselham et al. 2024): positive gradients of the attention, mean over heads and queries.

    Each layer's score is the similarity of the text and its mean token, projected; the last `layers` are summed.
    """
    trace, visual, total = trace or traced_forward(model, images, tower), tower.visual, 0
    for attention, tokens in list(zip(trace.attention, trace.tokens))[-layers:]:
        with torch.enable_grad():
            embedding = F.normalize(visual.ln_post(tokens.mean(1)) @ visual.proj, dim=-1)
            score = (embedding * texts).sum()
        (gradient,) = torch.autograd.grad(score, attention, retain_graph=True)
        total = total + gradient.clamp(min=0).mean((1, 2))[:, tower.prefix :]
    return total


def full_lrp(model, images, texts, tower, trace=None):
    """Layer-wise relevance propagation to the token embeddings by the AH and LN rules (Ali et al. 2022): attention
    heads, LayerNorms' deviations and activations' gates as constants, LRP-0 elsewhere. That is gradient times input of
    the tower linearised at this image, and conserves relevance."""
    trace = trace or linear_forward(model, images, tower)
    (gradient,) = torch.autograd.grad(_summed_similarity(trace, texts), trace.start, retain_graph=True)
    return (gradient * trace.start.detach()).sum(-1)[:, tower.prefix :]


def partial_lrp(model, images, texts, tower, trace=None):
    """LRP to the last layer's attention only (as Voita et al. 2019), by the same rules, from the class token."""
    trace = trace or linear_forward(model, images, tower)
    (gradient,) = torch.autograd.grad(_summed_similarity(trace, texts), trace.attention[-1], retain_graph=True)
    return (gradient * trace.attention[-1].detach()).sum(1)[:, 0, tower.prefix :]


@torch.no_grad()
def value_patches(model, images, tower):
    """Patches in the joint space, of length 1 [image, patch, d_embed], the last attention replaced by its values."""
    block = _traceable_blocks(tower)[-1]
    width = block.attn.embed_dim

    def forward(query, key, value, **_):
        weight, bias = block.attn.in_proj_weight[2 * width :], block.attn.in_proj_bias[2 * width :]
        return block.attn.out_proj(F.linear(value, weight, bias)), None

    tokens = []
    with _replaced_forwards() as replace:
        replace(block.attn, forward)
        hook = block.register_forward_hook(lambda _, __, output: tokens.append(output))
        try:
            model.encode_image(images, normalize=False)
        finally:
            hook.remove()
    return F.normalize(tower.visual.ln_post(tokens[0][:, tower.prefix :]) @ tower.visual.proj, dim=-1)


def value_similarity(model, images, texts, tower, trace=None):
    """MaskCLIP (Zhou, Loy and Dai 2022): similarity of text and patch, the last attention replaced by its values.

    Less the least similar patch of the image: a similarity below 0 is no evidence against the text, only less of it.
    """
    patches = value_patches(model, images, tower) if trace is None else trace
    similarity = (patches * texts[:, None]).sum(-1)
    return similarity - similarity.amin(1, keepdim=True)


def centre_prior(model, images, texts, tower):
    """Distance of the farthest patch from the image centre minus the patch's own distance; needs no model."""
    rows, columns = (torch.linspace(-1, 1, size, device=images.device) for size in tower.grid)
    distance = (rows[:, None] ** 2 + columns**2).sqrt().flatten()
    return (distance.max() - distance).expand(len(images), -1)


def all_background(model, images, texts, tower):
    """Zero everywhere: no foreground."""
    return torch.zeros(len(images), tower.grid[0] * tower.grid[1], device=images.device)


BASELINES = {
    "last-layer attention": last_layer_attention,
    "rollout": rollout,
    "partial LRP, AH and LN rules": partial_lrp,
    "full LRP, AH and LN rules": full_lrp,
    "GradCAM": grad_cam,
    "Chefer et al., all layers": gradient_relevance,
    "Chefer et al., last layer": last_layer_gradient_relevance,
    "LeGrad": legrad,
    "MaskCLIP": value_similarity,
    "centre prior": centre_prior,
    "all background": all_background,
}
# What baselines share on the same images, whatever the text: {name: function of model, images and tower}.
TRACES = dict.fromkeys(("GradCAM", "Chefer et al., all layers", "Chefer et al., last layer", "LeGrad"), traced_forward)
TRACES |= dict.fromkeys(("partial LRP, AH and LN rules", "full LRP, AH and LN rules"), linear_forward)
TRACES |= {"MaskCLIP": value_patches}
TEXT_FREE = ("last-layer attention", "rollout", "centre prior", "all background")  # given no text
