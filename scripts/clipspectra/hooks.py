"""Watching an unmodified open_clip image tower at work, with nothing left behind.

`observe` puts two kinds of probe into a tower for the length of a `with` block: ordinary forward hooks, and in
place of each attention's forward the same computation written out, because torch's fused attention shows neither
queries, keys and values nor the heads apart. Nothing is projected twice. Every probe knows its layer by number,
never by the order of the calls.
"""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import nn

from clipspectra import InputError


def check_supported(visual):
    """Raise InputError with one sentence if the exact decomposition of this image tower is not written (yet)."""

    def refuse(reason):
        raise InputError(f"This image tower cannot be decomposed exactly: {reason}.")

    if not isinstance(visual, VisionTransformer):
        refuse(f"{type(visual).__module__}.{type(visual).__name__} is not open_clip's VisionTransformer")
    if visual.attn_pool is not None:
        refuse("it pools with attention, not with the class token")
    if visual.pool_type != "tok":
        refuse(f"it pools by '{visual.pool_type}', not with the class token")
    if visual.proj is None or not isinstance(visual.ln_post, nn.LayerNorm):
        refuse("it lacks the final LayerNorm or the projection")
    for block in visual.transformer.resblocks:
        if type(block) is not ResidualAttentionBlock or type(block.attn) is not nn.MultiheadAttention:
            refuse(f"its blocks are of type {type(block).__name__}, not ResidualAttentionBlock")
    if visual.proj.dtype not in (torch.float32, torch.float64):
        refuse(f"its weights are {visual.proj.dtype}; load it with precision 'fp32'")
    if visual.training:
        refuse("it is in training mode; call model.eval() first")


@contextmanager
def observe(
    visual: VisionTransformer,
    *,
    on_attention: Callable | None = None,
    on_mlp: Callable | None = None,
    on_embedding: Callable | None = None,
    on_final: Callable | None = None,
):
    """Call back with the inner states of every forward pass of `visual` inside the `with` block.

    on_attention(layer, query, key, value, z): each [image, head, pos, d_head], z the heads' outputs before W_O
    on_mlp(layer, output): what the MLP adds to the residual stream, layer scale included, [image, pos, d_model]
    on_embedding(state): input of the first block, [image, pos, d_model]
    on_final(state): input of the final LayerNorm, [image, pos, d_model] (or [image, d_model] if it pools first)

    The outputs are those of the bare tower, bit for bit where torch takes the same kernels: with gradients on, or
    with torch.backends.mha.set_fastpath_enabled(False). Torch's fused inference kernel rounds differently (1e-6).
    """
    check_supported(visual)
    with ExitStack() as probes:

        def before(module, callback):
            handle = module.register_forward_pre_hook(lambda _, inputs: callback(inputs[0]))
            probes.callback(handle.remove)

        for layer, block in enumerate(visual.transformer.resblocks):
            if on_attention is not None:
                block.attn.forward = _written_out(block.attn, layer, on_attention)
                probes.callback(delattr, block.attn, "forward")
            if on_mlp is not None:
                handle = block.ls_2.register_forward_hook(lambda _, __, output, layer=layer: on_mlp(layer, output))
                probes.callback(handle.remove)
        if on_embedding is not None:
            before(visual.transformer, on_embedding)
        if on_final is not None:
            before(visual.ln_post, on_final)
        yield


def _written_out(attention, layer, on_attention):
    """A forward for this nn.MultiheadAttention that shows its heads. Same weights, same result."""

    def forward(query, key, value, need_weights=False, attn_mask=None):
        projected = F.linear(query, attention.in_proj_weight, attention.in_proj_bias)
        # [image, pos, 3 * d_model] -> three times [image, head, pos, d_head]
        q, k, v = projected.unflatten(-1, (3, attention.num_heads, attention.head_dim)).permute(2, 0, 3, 1, 4)
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        on_attention(layer, q, k, v, z)
        return attention.out_proj(z.transpose(1, 2).flatten(2)), None

    return forward


def class_attention(query, key):
    """Attention of the class token to every token, [image, head, pos]; query and key are [image, head, pos, d_head]."""
    scale = query.shape[-1] ** -0.5
    return ((query[:, :, :1] * scale) @ key.transpose(-1, -2)).softmax(-1)[:, :, 0]
