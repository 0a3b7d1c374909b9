"""Hooks that record the inner states of an unmodified open_clip image tower.

`observe` adds hooks to a tower and removes them at the end of its `with` block. Torch's own attention module calls one
fused function that exposes neither queries, keys and values nor single heads: its forward is replaced. The attentions
of timm and of open_clip's custom block run as they are, and their call of scaled_dot_product_attention is recorded.
Nothing is projected twice. Every hook knows the number of its layer, whatever the order of the calls.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from weakref import WeakSet

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import ResidualAttentionBlock
from torch import nn
from torch.overrides import TorchFunctionMode

from clipspectra import InputError
from clipspectra.towers.families import Unsupported
from clipspectra.towers.tower import Tower


@lru_cache(maxsize=16)
def _columns(heads, dtype, device):
    """1 where a head meets its own column, else 0, [head, head, 1]; on a GPU it would be made anew in each layer."""
    with torch.inference_mode(False):  # for passes with gradients too
        return torch.eye(heads, dtype=dtype, device=device)[..., None]


@dataclass
class AttentionState:
    """The inner state of one attention module in a forward pass of one batch.

    query, key, value, raw: [image, head, pos, d_head]; raw: attention-weighted values; mask: added to the logits
    heads: input of W_O: raw, or its normalised form; written: W_O heads + b_O [image, pos, d_model], before a LayerNorm
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    raw: torch.Tensor
    heads: torch.Tensor
    written: torch.Tensor | None = None

    def attention(self, targets):
        """Attention weights of the target tokens (a slice) to all tokens, [image, head, target, pos]."""
        query = self.query[:, :, targets] * self.query.shape[-1] ** -0.5
        if query.shape[2] == 1 and self._keys_side_by_side():
            # One product an image: with each head's query in its own columns, no key has to be copied first.
            keys = self.key.transpose(1, 2).flatten(2)  # [image, pos, head * d_head]
            logits = ((query * _columns(query.shape[1], query.dtype, query.device)).flatten(2) @ keys.transpose(1, 2))[
                :, :, None
            ]
        else:
            logits = query @ self.key.transpose(-1, -2)
        if self.mask is not None:
            logits = logits + (self.mask if self.mask.shape[-2] == 1 else self.mask[..., targets, :])
        return logits.softmax(-1)

    def _keys_side_by_side(self):
        """Whether the heads' keys of a token are the parts of one vector in memory."""
        heads, d_head = self.key.shape[1::2]
        return self.query.shape[1::2] == (heads, d_head) and self.key.stride()[1::2] == (d_head, 1)

    def read(self, targets, sources=slice(None)):
        """AttentionRead of target tokens from source tokens (both slices), copied to keep no others in memory."""
        written = None if self.written is None else self.written[:, targets].clone()
        attention, value = self.attention(targets)[..., sources].clone(), self.value[:, :, sources].clone()
        raw = None if self.raw is self.heads else self.raw[:, :, targets].clone()
        return AttentionRead(attention, value, raw, written, self.key.shape[2])


@dataclass
class AttentionRead:
    """What target tokens read from source tokens: attention [image, head, target, source], value [image, head, source,
    d_head], raw [image, head, target, d_head] and written [image, target, d_model] as in AttentionState.

    raw: None where it is the input of W_O as it is; source_count: number of all source tokens, also of those left out
    """

    attention: torch.Tensor
    value: torch.Tensor
    raw: torch.Tensor | None
    written: torch.Tensor | None
    source_count: int


@dataclass
class StreamEnds:
    """Both ends of the residual stream in the last forward pass, at the tokens that the readout reads.

    start: x_0 [image, pos, d_model]; state: input of the readout's LN1 [image, pos, d_model]; pooled: input of its LN2
    [image, d_pool]; pool_attention [image, group, pos]; pool_mlp [image, d_pool]
    """

    start: torch.Tensor | None = None
    state: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    pool_attention: torch.Tensor | None = None
    pool_mlp: torch.Tensor | None = None


@contextmanager
def observe(
    tower: Tower,
    *,
    on_layer: Callable | None = None,
    on_mlp: Callable | None = None,
    layers: Iterable | None = None,
    only_read: bool = False,
):
    """Call back with the inner states of each forward pass of a tower in a `with` block, which yields its StreamEnds.

    on_layer(layer, state): AttentionState of the layer; on_mlp(layer, output): what its MLP adds [image, pos, d_model]
    layers: numbers of the layers whose attentions are observed, all by default
    only_read: compute the last block for the class token alone, where only that is read and the block is open_clip's

    The outputs equal those without hooks, bit for bit where torch uses the same kernels. They do not where torch's
    fused inference kernel is on (torch.backends.mha; off with gradients), with only_read, and in a ResNet's pool.
    Raises InputError for a tower that is observed already: hooks of two blocks would undo each other.
    """
    if tower.visual in _OBSERVED:
        raise InputError(
            "This model is in use by another `with` block, which edits or reads it; end that block first. Several "
            "edits are one Intervention."
        )
    ends = StreamEnds()
    with Hooks() as hooks:
        _OBSERVED.add(tower.visual)
        hooks.callback(_OBSERVED.discard, tower.visual)
        if isinstance(tower.visual, ModifiedResNet):
            _observe_resnet(hooks, tower, ends, on_layer, on_mlp, layers)
        else:
            _observe_transformer(hooks, tower, ends, on_layer, on_mlp, layers, only_read)
        yield ends


_OBSERVED = WeakSet()


class Hooks(ExitStack):
    """Hooks and replaced forwards, all removed at the end of the `with` block."""

    def before(self, module, callback):
        def hook(called, inputs):
            _require(called is module)
            return callback(inputs[0])

        self.callback(module.register_forward_pre_hook(hook).remove)

    def after(self, module, callback):
        def hook(called, _, output):
            _require(called is module)
            return callback(output)

        self.callback(module.register_forward_hook(hook).remove)

    def replace(self, module, method, name="forward"):
        setattr(module, name, method)
        self.callback(delattr, module, name)


def _require(is_own):
    """Raise InputError in a copy of a hooked module, which has the hooks for good."""
    if not is_own:
        raise InputError("This model was copied inside a `with` block that edits or reads it; copy it outside.")


def _observe_transformer(hooks, tower, ends, on_layer, on_mlp, layers, only_read):
    readout = tower.readout
    blocks = getattr(getattr(tower.visual, "transformer", None), "resblocks", [None])
    if only_read and readout.pool == "class" and type(blocks[-1]) is ResidualAttentionBlock:
        hooks.replace(blocks[-1], _class_token_forward(blocks[-1]))
    for number, layer in enumerate(tower.layers):
        if on_layer is not None and (layers is None or number in layers):
            _observe_attention(hooks, layer.attention, partial(on_layer, number), layer)
        if on_mlp is not None:
            hooks.after(layer.mlp, partial(on_mlp, number))

    def recorder(name, tokens=...):
        return lambda tensor: setattr(ends, name, tensor[:, tokens])

    hooks.before(tower.start, recorder("start", readout.tokens))
    if readout.before is not None:
        hooks.before(readout.before, recorder("state", readout.tokens))
    if readout.after is not None:
        record = recorder("pooled")
        hooks.before(readout.after, record if readout.values is None else _keep_first_query(record))
    if readout.pool_mlp is not None:
        hooks.after(readout.pool_mlp, lambda output: setattr(ends, "pool_mlp", output[:, 0]))
    if isinstance(readout.pool, nn.Module):

        def on_pool(state):
            ends.pool_attention = state.attention(slice(0, 1))[:, :, 0]  # of the first query, which is read

        _observe_attention(hooks, readout.pool, on_pool)


def _keep_first_query(callback):
    """An attentional pool of several queries gives [image, query, d_pool], of which the first is read."""
    return lambda pooled: callback(pooled[:, 0] if pooled.ndim == 3 else pooled)


def _class_token_forward(block):
    """A forward for an open_clip block that returns the class token only, [image, 1, d_model]."""

    def forward(q_x, k_x=None, v_x=None, attn_mask=None):
        normed = block.ln_1(q_x)
        x = q_x[:, :1] + block.ls_1(block.attn(normed[:, :1], normed, normed, need_weights=False)[0])
        return x + block.ls_2(block.mlp(block.ln_2(x)))

    return forward


def _observe_attention(hooks, attention, on_state, layer=None):
    """Call on_state(AttentionState) in each forward of an attention; layer: what follows its heads, None for a pool."""
    if type(attention) is nn.MultiheadAttention:
        hooks.replace(attention, _explicit_forward(attention, on_state))
        return
    original_forward, calls = attention.forward, []

    def forward(*args, **kwargs):
        calls.clear()
        with _AttentionCalls(calls):
            output = original_forward(*args, **kwargs)
        if len(calls) != 1:
            raise Unsupported(f"its {type(attention).__name__} calls torch's attention function {len(calls)} times")
        if layer is None:
            on_state(AttentionState(*calls[0], calls[0][-1]))
        return output

    def report_state(heads, written=None):
        query, key, value, mask, raw = calls[0]
        if layer.head_gain is not None:
            value, raw = (tensor * layer.head_gain[:, None, None] for tensor in (value, raw))
        on_state(AttentionState(query, key, value, mask, raw, heads, written))

    hooks.replace(attention, forward)
    if layer is not None and layer.post is None:
        hooks.before(layer.out, lambda flat: report_state(_by_head(flat, layer.heads)))
    elif layer is not None:
        inputs = []  # of W_O, until its output is known
        hooks.before(layer.out, lambda flat: inputs.append(_by_head(flat, layer.heads)))
        hooks.before(layer.post, lambda written: report_state(inputs.pop(), written))


def _by_head(flat, heads):
    return flat.unflatten(-1, (heads, -1)).transpose(1, 2)  # [image, head, pos, d_head]


class _AttentionCalls(TorchFunctionMode):
    """Appends (query, key, value, mask, result) of each scaled_dot_product_attention to a list."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if function is F.scaled_dot_product_attention:
            self.calls.append((*args[:3], kwargs.get("attn_mask"), result))
        return result


def _explicit_forward(attention, on_state):
    """A forward for an nn.MultiheadAttention that exposes its heads. Same weights, same result."""

    def by_head(flat, count):
        # [image, pos, count * d_model] -> [count, image, head, pos, d_head]
        return flat.unflatten(-1, (count, attention.num_heads, attention.head_dim)).permute(2, 0, 3, 1, 4)

    def forward(query, key, value, need_weights=False, attn_mask=None):
        weight, bias, width = attention.in_proj_weight, attention.in_proj_bias, attention.embed_dim
        if query is key:
            q, k, v = by_head(F.linear(query, weight, bias), 3)
        elif weight is not None:  # packed
            (q,) = by_head(F.linear(query, weight[:width], bias[:width]), 1)
            k, v = by_head(F.linear(key, weight[width:], bias[width:]), 2)
        else:
            weights = attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight
            projections = zip((query, key, value), weights, bias.chunk(3))
            q, k, v = (by_head(F.linear(*projection), 1)[0] for projection in projections)
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        on_state(AttentionState(q, k, v, attn_mask, z, z))
        return attention.out_proj(z.transpose(1, 2).flatten(2)), None

    return forward


def _observe_resnet(hooks, tower, ends, on_layer, on_mlp, layers):
    """Replace the attention pool's forward: its input is split by the sources that add up in the last stage."""
    pool, blocks = tower.visual.attnpool, list(tower.visual.layer4)
    feature_maps = {}

    def recorder(name):
        return lambda output: feature_maps.__setitem__(name, output.clone())  # later modules work in place

    for number, block in enumerate(blocks):
        hooks.after(block.bn3, recorder(("branch", number)))
        hooks.after(block, recorder(("output", number)))
    hooks.after(blocks[0].downsample, recorder("shortcut"))

    def tokens(feature_map):  # [image, channel, row, column] -> [image, pos, channel], their mean first
        flat = feature_map.flatten(2).transpose(1, 2)
        return torch.cat([flat.mean(1, keepdim=True), flat], dim=1)

    def forward(feature_map):
        gate, sources = 1.0, []
        for number in reversed(range(len(blocks))):
            gate = gate * (feature_maps["output", number] > 0)
            sources.insert(0, tokens(feature_maps["branch", number] * gate))
        sources.insert(0, tokens(feature_maps["shortcut"] * gate) + pool.positional_embedding)
        x = tokens(feature_map) + pool.positional_embedding
        query, key = _by_head(pool.q_proj(x[:, :1]), pool.num_heads), _by_head(pool.k_proj(x), pool.num_heads)
        total = 0.0
        for number, source in enumerate(sources):
            flat = F.linear(source, pool.v_proj.weight, pool.v_proj.bias / len(sources))
            value = _by_head(flat, pool.num_heads)
            z = F.scaled_dot_product_attention(query, key, value)
            total = total + z
            if on_layer is not None and (layers is None or number in layers):
                on_layer(number, AttentionState(query, key, value, None, z, z))
            if on_mlp is not None:  # a ResNet has none
                on_mlp(number, x.new_zeros(len(x), 1, tower.width))
        ends.start = x.new_zeros(len(x), 1, tower.width)
        feature_maps.clear()
        return pool.c_proj(total.transpose(1, 2).flatten(2)[:, 0])

    hooks.replace(pool, forward)
