"""Other methods' maps of where the evidence for a text is, on the same weights and images, each in a short function.

Every function takes the model, images [image, 3, height, width], the text of each image [image, d_embed] and the
model's Tower, and gives a value for each patch, [image, patch]. Those with gradients run the tower with its attention
written out, which open_clip's own ViTs with a class token allow; others are refused.
"""

from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import nn

from clipspectra.towers.families import Unsupported
from clipspectra.towers.hooks import observe


@dataclass
class ForwardTrace:
    """What a traced forward pass leaves, all in the gradient's graph.

    start: the embedding of the tokens, x_0 [image, pos, d_model]; attention: [image, head, pos, pos] of each layer
    tokens: output of each block [image, pos, d_model]; embedding: e/n [image, d_embed]
    """

    start: torch.Tensor | None = None
    attention: list = field(default_factory=list)
    tokens: list = field(default_factory=list)
    embedding: torch.Tensor | None = None


@torch.enable_grad()
def traced_forward(model, images, tower, *, linear=False):
    """A forward pass as a ForwardTrace. linear: attention, the deviations of LayerNorms and the gates of activations count as
    constants, so that the output is linear in x_0 but for constants."""
    blocks = _blocks(tower)
    trace = ForwardTrace()
    with _replaced() as replace:
        for block in blocks:
            replace(block.attn, _written_out(block.attn, trace.attention, linear))
        if linear:
            for module in tower.visual.modules():
                if isinstance(module, nn.LayerNorm):
                    replace(module, _linear_norm(module))
                elif isinstance(module, nn.GELU | QuickGELU):
                    replace(module, _linear_gate(module.forward))

        def first(module, inputs):
            trace.start = inputs[0].detach().requires_grad_()
            return (trace.start, *inputs[1:])

        hooks = [blocks[0].register_forward_pre_hook(first)]
        hooks += [block.register_forward_hook(lambda _, __, output: trace.tokens.append(output)) for block in blocks]
        try:
            embedding = model.encode_image(images, normalize=False)
        finally:
            for hook in hooks:
                hook.remove()
    norm = embedding.norm(dim=-1, keepdim=True)
    trace.embedding = embedding / (norm.detach() if linear else norm)
    return trace


def _blocks(tower):
    blocks = list(getattr(getattr(tower.visual, "transformer", None), "resblocks", []))
    plain = all(type(block) is ResidualAttentionBlock and type(block.attn) is nn.MultiheadAttention for block in blocks)
    if not blocks or not plain or tower.readout.pool != "class" or tower.readout.before is None:
        raise Unsupported(
            "its attention cannot be written out for gradients; only open_clip's ViTs with a class token can"
        )
    return blocks


@contextmanager
def _replaced():
    """Yields replace(module, forward); all forwards are themselves again at the end."""
    changed = []

    def replace(module, forward):
        module.forward = forward
        changed.append(module)

    try:
        yield replace
    finally:
        for module in changed:
            del module.forward


def _written_out(attention, seen, linear):
    """A forward for this nn.MultiheadAttention with its attention as a tensor of its own."""

    def forward(query, key, value, **_):
        flat = F.linear(query, attention.in_proj_weight, attention.in_proj_bias)
        q, k, v = flat.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) * attention.head_dim**-0.5).softmax(-1)
        weights = weights.detach().requires_grad_() if linear else weights
        seen.append(weights)
        return attention.out_proj((weights @ v).transpose(1, 2).flatten(2)), None

    return forward


def _linear_norm(module):
    def forward(x):
        scale = (x.var(-1, unbiased=False, keepdim=True) + module.eps).rsqrt().detach()
        return (x - x.mean(-1, keepdim=True)) * scale * module.weight + module.bias

    return forward


def _linear_gate(bare):
    def forward(x):
        return x * (bare(x) / torch.where(x == 0, 1, x)).detach()

    return forward


@torch.enable_grad()
def _score(trace, text):
    """Sum over images of the similarity of image and text: the gradient of each image is its own."""
    return (trace.embedding * text).sum()


def raw_attention(model, images, text, tower):
    """The class token's attention to each patch in the last layer, mean over heads.

    For towers without a class token, the attention that they pool with, or the mean over the tokens.
    """
    return _attention_by_layer(model, images, tower, tower.readout.tokens, last=True)[-1].mean((1, 2))[
        :, tower.prefix :
    ]


def rollout(model, images, text, tower):
    """Attention rollout (Abnar and Zuidema 2020): the product over layers of (mean attention + identity) / 2."""
    if tower.readout.pool != "class":
        raise Unsupported("rollout follows a class token, which it has not")
    total = None
    for attention in _attention_by_layer(model, images, tower, slice(None)):
        step = 0.5 * (attention.mean(1) + torch.eye(attention.shape[-1]).to(attention))
        total = step if total is None else step @ total
    return total[:, 0, tower.prefix :]


@torch.no_grad()
def _attention_by_layer(model, images, tower, tokens, last=False):
    held, count = [], len(tower.layers)

    def on_layer(number, seen):
        if not last or number == count - 1:
            held.append(seen.attention(tokens))

    with observe(tower, on_layer=on_layer, only_read=last):
        model.encode_image(images, normalize=False)
    return held


def grad_cam(model, images, text, tower):
    """GradCAM on the last layer's attention to the patches (Selvaraju et al. 2017, as Chefer et al. 2021 apply it):
    the heads weighted by their mean gradient."""
    trace = traced_forward(model, images, tower)
    last = trace.attention[-1]
    (gradient,) = torch.autograd.grad(_score(trace, text), last)
    weight = gradient[:, :, 0, tower.prefix :].mean(-1, keepdim=True)
    return (weight * last.detach()[:, :, 0, tower.prefix :]).mean(1).clamp(min=0)


def gradient_relevance(model, images, text, tower):
    """Chefer, Gur and Wolf 2021, generic attention explainability: R = R + mean over heads of (dA * A)+ R, by layer."""
    trace = traced_forward(model, images, tower)
    gradients = torch.autograd.grad(_score(trace, text), trace.attention)
    relevance = torch.eye(gradients[0].shape[-1]).to(images)
    for attention, gradient in zip(trace.attention, gradients):
        relevance = relevance + (gradient * attention.detach()).clamp(min=0).mean(1) @ relevance
    return relevance[:, 0, tower.prefix :]


def legrad(model, images, text, tower, layers=2):
    """LeGrad (Bousselham et al. 2024): positive gradients of attention, layer by layer, mean over heads and queries.

    Each layer has a score of its own, from its tokens' mean as the readout sees it; the last layers are summed.
    """
    trace, visual, total = traced_forward(model, images, tower), tower.visual, 0
    for attention, tokens in list(zip(trace.attention, trace.tokens))[-layers:]:
        with torch.enable_grad():
            read = F.normalize(visual.ln_post(tokens.mean(1)) @ visual.proj, dim=-1)
            score = (read * text).sum()
        (gradient,) = torch.autograd.grad(score, attention, retain_graph=True)
        total = total + gradient.clamp(min=0).mean((1, 2))[:, tower.prefix :]
    return total


def full_lrp(model, images, text, tower):
    """Layer-wise relevance propagation down to the tokens, with the rules for attention and LayerNorm that conserve
    relevance (Ali et al. 2022): gradient times input of the tower made linear at this image."""
    trace = traced_forward(model, images, tower, linear=True)
    (gradient,) = torch.autograd.grad(_score(trace, text), trace.start)
    return (gradient * trace.start.detach()).sum(-1)[:, tower.prefix :]


def partial_lrp(model, images, text, tower):
    """The same down to the last layer's attention only (Voita et al. 2019), of the class token to each patch."""
    trace = traced_forward(model, images, tower, linear=True)
    (gradient,) = torch.autograd.grad(_score(trace, text), trace.attention[-1])
    return (gradient * trace.attention[-1].detach()).sum(1)[:, 0, tower.prefix :]


@torch.no_grad()
def value_similarity(model, images, text, tower):
    """MaskCLIP (Zhou, Loy and Dai 2022): similarity of text and patch, the last attention replaced by its values."""
    block = _blocks(tower)[-1]
    width = block.attn.embed_dim

    def forward(query, key, value, **_):
        weight, bias = block.attn.in_proj_weight[2 * width :], block.attn.in_proj_bias[2 * width :]
        return block.attn.out_proj(F.linear(value, weight, bias)), None

    tokens = []
    with _replaced() as replace:
        replace(block.attn, forward)
        hook = block.register_forward_hook(lambda _, __, output: tokens.append(output))
        try:
            model.encode_image(images, normalize=False)
        finally:
            hook.remove()
    patches = F.normalize(tower.visual.ln_post(tokens[0][:, tower.prefix :]) @ tower.visual.proj, dim=-1)
    return (patches * text[:, None]).sum(-1)


def centre_prior(model, images, text, tower):
    """The nearer to the centre, the more: needs no model."""
    rows, columns = (torch.linspace(-1, 1, size, device=images.device) for size in tower.grid)
    distance = (rows[:, None] ** 2 + columns**2).sqrt().flatten()
    return (distance.max() - distance).expand(len(images), -1)


def all_background(model, images, text, tower):
    """No foreground at all."""
    return torch.zeros(len(images), tower.grid[0] * tower.grid[1], device=images.device)


BASELINES = {
    "last-layer attention": raw_attention,
    "rollout": rollout,
    "partial LRP": partial_lrp,
    "full LRP": full_lrp,
    "GradCAM": grad_cam,
    "Chefer et al.": gradient_relevance,
    "LeGrad": legrad,
    "MaskCLIP": value_similarity,
    "centre prior": centre_prior,
    "all background": all_background,
}
