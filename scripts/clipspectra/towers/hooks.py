"""Watching an unmodified open_clip image tower at work, with nothing left behind.

`observe` puts probes into a tower for the length of a `with` block. Torch's own attention module calls one fused
function that shows neither queries, keys and values nor the heads apart: its forward is written out. The attentions of
timm and of open_clip's custom block run as they are, and their call of scaled_dot_product_attention is looked at.
Nothing is projected twice. Every probe knows its layer by number, never by the order of the calls.
"""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import ResidualAttentionBlock
from torch import nn
from torch.overrides import TorchFunctionMode

from clipspectra.towers.families import Unsupported
from clipspectra.towers.tower import Tower


@dataclass
class AttentionState:
    """One attention at work on one batch.

    query, key, value, raw: [image, head, pos, d_head], raw the values weighted by attention; mask: added to the logits
    heads: raw, or what the tower makes of it before W_O; written: W_O heads + b_O [image, pos, d_model], where wanted
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    raw: torch.Tensor
    heads: torch.Tensor
    written: torch.Tensor | None = None

    def attention(self, targets):
        """Attention of some tokens (a slice) to all, [image, head, target, pos]."""
        logits = (self.query[:, :, targets] * self.query.shape[-1] ** -0.5) @ self.key.transpose(-1, -2)
        if self.mask is not None:
            logits = logits + (self.mask if self.mask.shape[-2] == 1 else self.mask[..., targets, :])
        return logits.softmax(-1)

    def read(self, targets, sources=slice(None)):
        """What some tokens read from some (both slices), copied, so that it holds nothing else in memory."""
        written = None if self.written is None else self.written[:, targets].clone()
        copies = (
            part.clone() for part in (self.value[:, :, sources], self.raw[:, :, targets], self.heads[:, :, targets])
        )
        return AttentionRead(self.attention(targets)[..., sources].clone(), *copies, written, self.key.shape[2])


@dataclass
class AttentionRead:
    """What target tokens read from source tokens: attention [image, head, target, source], value [image, head, source,
    d_head], raw and heads [image, head, target, d_head] and written [image, target, d_model] as in AttentionState.

    every: number of source tokens that there are
    """

    attention: torch.Tensor
    value: torch.Tensor
    raw: torch.Tensor
    heads: torch.Tensor
    written: torch.Tensor | None
    every: int


@dataclass
class StreamEnds:
    """What `observe` saw at both ends of the stream in the last forward pass; of the tokens only those that are read.

    start: x_0 [image, pos, d_model]; state: input of the readout's LN1 [image, pos, d_model]; pooled: input of its LN2
    [image, d_pool]; pool_attention [image, group, pos]; pool_mlp [image, d_pool]
    """

    start: torch.Tensor | None = None
    state: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    pool_attention: torch.Tensor | None = None
    pool_mlp: torch.Tensor | None = None


@contextmanager
def observe(tower: Tower, *, on_layer: Callable | None = None, on_mlp: Callable | None = None, only_read: bool = False):
    """Call back with the inner states of every forward pass of a tower inside the `with` block, which yields its StreamEnds.

    on_layer(layer, seen): the attention's AttentionState; on_mlp(layer, output): what the MLP adds [image, pos, d_model]
    only_read: let the last block work for the class token alone, where only that is read and the block is open_clip's

    The outputs are those of the bare tower, bit for bit where torch takes the same kernels. It does not where torch's
    fused inference kernel is on (torch.backends.mha; off with gradients), with only_read, and in a ResNet's pool.
    """
    ends = StreamEnds()
    with _Probes() as probes:
        if isinstance(tower.visual, ModifiedResNet):
            _observe_resnet(probes, tower, ends, on_layer, on_mlp)
        else:
            _observe_transformer(probes, tower, ends, on_layer, on_mlp, only_read)
        yield ends


class _Probes(ExitStack):
    """Hooks and replaced forwards, all taken away at the end of the `with` block."""

    def before(self, module, callback):
        self.callback(module.register_forward_pre_hook(lambda _, inputs: callback(inputs[0])).remove)

    def after(self, module, callback):
        self.callback(module.register_forward_hook(lambda _, __, output: callback(output)).remove)

    def replace(self, module, forward):
        module.forward = forward
        self.callback(delattr, module, "forward")


def _observe_transformer(probes, tower, ends, on_layer, on_mlp, only_read):
    readout = tower.readout
    blocks = getattr(getattr(tower.visual, "transformer", None), "resblocks", [None])
    if only_read and readout.pool == "class" and type(blocks[-1]) is ResidualAttentionBlock:
        probes.replace(blocks[-1], _for_the_class_token(blocks[-1]))
    for number, layer in enumerate(tower.layers):
        if on_layer is not None:
            _observe_attention(probes, layer.attention, partial(on_layer, number), layer)
        if on_mlp is not None:
            probes.after(layer.mlp, partial(on_mlp, number))

    def keep(name, tokens=...):
        return lambda tensor: setattr(ends, name, tensor[:, tokens])

    probes.before(tower.start, keep("start", readout.tokens))
    if readout.before is not None:
        probes.before(readout.before, keep("state", readout.tokens))
    if readout.after is not None:
        probes.before(readout.after, keep("pooled") if readout.values is None else _first_query(keep("pooled")))
    if readout.pool_mlp is not None:
        probes.after(readout.pool_mlp, lambda added: setattr(ends, "pool_mlp", added[:, 0]))
    if isinstance(readout.pool, nn.Module):

        def on_pool(seen):
            ends.pool_attention = seen.attention(slice(0, 1))[:, :, 0]  # that of the first query, which is read

        _observe_attention(probes, readout.pool, on_pool)


def _first_query(callback):
    """An attentional pool of several queries gives [image, query, d_pool], of which the first is read."""
    return lambda pooled: callback(pooled[:, 0] if pooled.ndim == 3 else pooled)


def _for_the_class_token(block):
    """A forward for this open_clip block that gives the class token's row only, [image, 1, d_model]."""

    def forward(q_x, k_x=None, v_x=None, attn_mask=None):
        normed = block.ln_1(q_x)
        x = q_x[:, :1] + block.ls_1(block.attn(normed[:, :1], normed, normed, need_weights=False)[0])
        return x + block.ls_2(block.mlp(block.ln_2(x)))

    return forward


def _observe_attention(probes, attention, on_seen, layer=None):
    """Call on_seen(AttentionState) at each work of an attention; layer says what follows the heads, None: nothing of interest."""
    if type(attention) is nn.MultiheadAttention:
        probes.replace(attention, _written_out(attention, on_seen))
        return
    bare, inner = attention.forward, []

    def forward(*args, **kwargs):
        inner.clear()
        with _AttentionCalls(inner):
            output = bare(*args, **kwargs)
        if len(inner) != 1:
            raise Unsupported(f"its {type(attention).__name__} calls torch's attention function {len(inner)} times")
        if layer is None:
            on_seen(AttentionState(*inner[0], inner[0][-1]))
        return output

    def seen(heads, written=None):
        query, key, value, mask, raw = inner[0]
        if layer.head_gain is not None:
            value, raw = (tensor * layer.head_gain[:, None, None] for tensor in (value, raw))
        on_seen(AttentionState(query, key, value, mask, raw, heads, written))

    def by_head(flat):
        return flat.unflatten(-1, (layer.heads, -1)).transpose(1, 2)  # [image, head, pos, d_head]

    probes.replace(attention, forward)
    if layer is not None and layer.post is None:
        probes.before(layer.out, lambda flat: seen(by_head(flat)))
    elif layer is not None:
        flats = []
        probes.before(layer.out, lambda flat: flats.append(by_head(flat)))
        probes.before(layer.post, lambda written: seen(flats.pop(), written))


class _AttentionCalls(TorchFunctionMode):
    """Append (query, key, value, mask, result) of each scaled_dot_product_attention to a list."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if function is F.scaled_dot_product_attention:
            self.calls.append((*args[:3], kwargs.get("attn_mask"), result))
        return result


def _written_out(attention, on_seen):
    """A forward for this nn.MultiheadAttention that shows its heads. Same weights, same result."""

    def by_head(flat, parts):
        # [image, pos, part * d_model] -> parts times [image, head, pos, d_head]
        return flat.unflatten(-1, (parts, attention.num_heads, attention.head_dim)).permute(2, 0, 3, 1, 4)

    def forward(query, key, value, need_weights=False, attn_mask=None):
        weight, bias, width = attention.in_proj_weight, attention.in_proj_bias, attention.embed_dim
        if query is key:
            q, k, v = by_head(F.linear(query, weight, bias), 3)
        elif weight is not None:  # packed
            (q,) = by_head(F.linear(query, weight[:width], bias[:width]), 1)
            k, v = by_head(F.linear(key, weight[width:], bias[width:]), 2)
        else:
            weights = attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight
            projected = zip((query, key, value), weights, bias.chunk(3))
            q, k, v = (by_head(F.linear(*each), 1)[0] for each in projected)
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        on_seen(AttentionState(q, k, v, attn_mask, z, z))
        return attention.out_proj(z.transpose(1, 2).flatten(2)), None

    return forward


def _observe_resnet(probes, tower, ends, on_layer, on_mlp):
    """The attention pool written out, its input split by the sources that add up in the last stage."""
    pool, blocks = tower.visual.attnpool, list(tower.visual.layer4)
    maps = {}

    def keep(name):
        return lambda output: maps.__setitem__(name, output.clone())  # what follows works in place

    for number, block in enumerate(blocks):
        probes.after(block.bn3, keep(("branch", number)))
        probes.after(block, keep(("output", number)))
    probes.after(blocks[0].downsample, keep("shortcut"))

    def tokens(feature_map):  # [image, channel, row, column] -> [image, pos, channel], their mean first
        flat = feature_map.flatten(2).transpose(1, 2)
        return torch.cat([flat.mean(1, keepdim=True), flat], dim=1)

    def by_head(flat):
        return flat.unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)

    def forward(feature_map):
        gate, sources = 1.0, []
        for number in reversed(range(len(blocks))):
            gate = gate * (maps["output", number] > 0)
            sources.insert(0, tokens(maps["branch", number] * gate))
        sources.insert(0, tokens(maps["shortcut"] * gate) + pool.positional_embedding)
        x = tokens(feature_map) + pool.positional_embedding
        query, key = by_head(pool.q_proj(x[:, :1])), by_head(pool.k_proj(x))
        total = 0.0
        for number, source in enumerate(sources):
            value = by_head(F.linear(source, pool.v_proj.weight, pool.v_proj.bias / len(sources)))
            z = F.scaled_dot_product_attention(query, key, value)
            total = total + z
            if on_layer is not None:
                on_layer(number, AttentionState(query, key, value, None, z, z))
            if on_mlp is not None:  # a ResNet has none
                on_mlp(number, x.new_zeros(len(x), 1, tower.width))
        ends.start = x.new_zeros(len(x), 1, tower.width)
        maps.clear()
        return pool.c_proj(total.transpose(1, 2).flatten(2)[:, 0])

    probes.replace(pool, forward)
