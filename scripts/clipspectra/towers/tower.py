"""Every image tower of open_clip in one form: layers write into a residual stream, a readout reads it.

A layer's attention writes sum_h W_h u_h + b, where the coordinates u_h are the head's output z_h before W_O (Layer).
The readout is linear once LayerNorm statistics and attention weights are known (Readout):

    e = W LN2( sum_p V_p sum_t A_pt LN1(x_t) + c ) + b

With class-token pooling A picks token 0 and V is the identity; with average pooling A is uniform; an attentional pool
has a group p for each of its heads. LN1, LN2, c and b may be absent. `families` maps the modules of a tower to these.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn


@dataclass
class Layer:
    """One layer of a tower: the modules that `observe` hooks, and what the attention does after its heads.

    attention: module with the heads; weight, bias: W_O [d_model, head * d_head] and b_O [d_model], or None
    value, before: W_V [head * d_head, d_in] and the norm whose output it reads, or None
    out: module that applies W_O and b_O, None where torch does so inside its fused function
    mlp: module whose output is what the MLP adds; scale: layer scale [d_model]; head_gain: factor of each head [head]
    inner: LayerNorm over all heads before W_O; post: LayerNorm after it
    """

    attention: nn.Module
    weight: torch.Tensor
    bias: torch.Tensor | None
    heads: int
    value: torch.Tensor
    before: nn.Module | None = None
    out: nn.Module | None = None
    mlp: nn.Module | None = None
    scale: torch.Tensor | None = None
    inner: nn.LayerNorm | None = None
    post: nn.LayerNorm | None = None
    head_gain: torch.Tensor | None = None

    def value_gram(self):
        """V V^T of each head's map V from the normalised token to the coordinates, [head, coordinate, coordinate].

        In float64, with all LayerNorm statistics as given constants: the covariance of the coordinates over tokens that
        vary equally in every direction. Constants have no variance.
        """
        value = float64(self.value)
        if getattr(self.before, "weight", None) is not None:
            value = value * float64(self.before.weight)
        if isinstance(self.before, nn.LayerNorm):
            value = value - value.mean(1, keepdim=True)  # its output is orthogonal to the vector of ones
        d_head = self.weight.shape[1] // self.heads
        value = value.unflatten(0, (-1, d_head))
        value = value.repeat_interleave(self.heads // len(value), dim=0)  # [head, d_head, d_in]
        if self.inner is not None:
            value = value * float64(self.inner.weight).unflatten(0, (self.heads, -1))[..., None]
        if self.head_gain is not None:
            value = value * float64(self.head_gain)[:, None, None]
        constants = 0 if self.post is None else 2
        return nn.functional.pad(value @ value.transpose(1, 2), (0, constants, 0, constants))

    def writing(self):
        """(W [head, d_model, coordinate], b [d_model]) in float64: the attention writes sum_h W_h u_h + b.

        The coordinates u_h are z_h [d_head], or [z_h, 1, mu] / sigma where a LayerNorm of these statistics follows W_O.
        """
        write = float64(self.weight).unflatten(1, (self.heads, -1)).transpose(0, 1)  # [head, d_model, d_head]
        bias = float64(self.bias) if self.bias is not None else torch.zeros_like(write[0, :, 0])
        if self.post is not None:
            constants = torch.stack([bias, -torch.ones_like(bias)], dim=1) / self.heads
            write = torch.cat([write, constants.expand(self.heads, -1, -1)], dim=2)
            write, bias = float64(self.post.weight)[:, None] * write, float64(self.post.bias)
        if self.scale is not None:
            write, bias = float64(self.scale)[:, None] * write, float64(self.scale) * bias
        return write, bias


@dataclass
class Readout:
    """How a tower reads its residual stream; see the module's formula.

    pool: "class", "mean", or the attentional pool's module that `observe` hooks; first: first token that is pooled
    before, after: LN1 and LN2; values [group, d_pool, d_model] and offset [d_pool]: V and c of an attentional pool
    pool_mlp: MLP inside the pool, added before LN2; weight [d_embed, d_pool], None for the identity; bias [d_embed]
    """

    pool: str | nn.Module
    before: nn.LayerNorm | None
    after: nn.LayerNorm | None
    weight: torch.Tensor | None
    bias: torch.Tensor | None = None
    first: int = 0
    values: torch.Tensor | None = None
    offset: torch.Tensor | None = None
    pool_mlp: nn.Module | None = None

    @property
    def norm(self):
        """The last LayerNorm, whose statistics are reported."""
        return self.after or self.before

    @property
    def tokens(self):
        """The tokens that are read, as a slice of pos."""
        return slice(0, 1) if self.pool == "class" else slice(self.first, None)

    def linear(self, width, device):
        """(project, shared, out) in float64 on a device, without the statistics of the image; width is d_model.

        project [group, d_embed, d_model]: M_p = W diag(LN2) V_p diag(LN1)
        shared [d_embed, scalar]: constants that all contributions share, one column per scalar after the first [group]
        out [d_embed, d_pool]: W diag(LN2)
        """
        d_pool = width if self.values is None else self.values.shape[1]
        out = torch.eye(d_pool, dtype=torch.float64, device=device) if self.weight is None else float64(self.weight)
        bias = out.new_zeros(len(out)) if self.bias is None else float64(self.bias)
        if self.after is not None:
            out, bias = out * float64(self.after.weight), bias + out @ float64(self.after.bias)
        project = out[None] if self.values is None else out @ float64(self.values)
        offset = out.new_zeros(len(out)) if self.offset is None else out @ float64(self.offset)
        columns = []
        if self.before is not None:
            offset = offset + project.sum(0) @ float64(self.before.bias)
            project = project * float64(self.before.weight)
            columns += list(-project.sum(2))
        columns += [offset + bias] if self.after is None else [offset, -out.sum(1), bias]
        return project, torch.stack(columns, dim=1), out

    def weights_and_scalars(self, ends, norm):
        """How one image reads its tokens: (weights [image, group, pos], scalars [image, scalar], scale of LN2 [image]).

        ends: the StreamEnds that `observe` recorded; norm: |e|, [image]. All results are divided by the norm.
        """
        scale = 1 / norm
        if self.after is not None:
            mean_after, inverse_sigma = statistics(ends.pooled, self.after)
            scale = inverse_sigma * scale
        if self.pool == "class":
            weights = torch.ones_like(norm)[:, None, None]
        elif self.pool == "mean":
            weights = torch.full_like(ends.start[:, None, :, 0], 1 / ends.start.shape[1])
        else:
            weights = ends.pool_attention  # [image, group, pos]
        weights = weights * scale[:, None, None]
        scalars = []
        if self.before is not None:
            mean, inverse_sigma = statistics(ends.state, self.before)
            weights = weights * inverse_sigma[:, None]
            scalars += [(weights * mean[:, None]).sum(2)]
        if self.after is not None:
            scalars += [torch.stack([scale, mean_after * scale], dim=1)]
        return weights, torch.cat([weights.sum(2), *scalars, 1 / norm[:, None]], dim=1), scale


@dataclass
class Tower:
    """A supported image tower.

    family: the adapter's name; start: module whose input is x_0, the embedding of the tokens
    grid: (rows, columns) of patches; prefix: tokens before the patches; width: of the residual stream, d_model
    """

    visual: nn.Module
    family: str
    layers: list[Layer]
    readout: Readout
    start: nn.Module
    grid: tuple[int, int]
    prefix: int
    width: int

    def linear(self):
        """Readout.linear of this tower, in float64."""
        return self.readout.linear(self.width, float64(self.layers[0].weight).device)

    @cached_property
    def reading(self):
        """Readout.linear of this tower, with the weights' device and dtype."""
        return tuple(matrix.to(self.layers[0].weight) for matrix in self.linear())

    @cached_property
    def writing(self):
        """(W [d_model, head * coordinate], b [d_model]) of each Layer.writing, with the weights' device and dtype."""
        like, maps = self.layers[0].weight, (layer.writing() for layer in self.layers)
        return [(write.transpose(0, 1).flatten(1).to(like), bias.to(like)) for write, bias in maps]

    @property
    def dtype(self):
        """dtype of the weights."""
        return self.layers[0].weight.dtype

    @property
    def image_size(self):
        """(height, width) of the images it takes."""
        return image_size(self.visual)


def image_size(visual):
    """(height, width) of the images that an open_clip model's `visual` takes."""
    size = visual.image_size
    return tuple(size) if isinstance(size, tuple | list) else (size, size)


def weights_digest(visual):
    """Hex digest of an image tower's weights and buffers in float32, and of its activation, which its output follows.

    The same for a file in any layout, on any device, and for the float32 weights in float64.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(visual.state_dict().items()):
        if tensor.is_floating_point():
            digest.update(f"{name} {list(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy())
    modules = {f"{type(module).__name__} {getattr(module, 'approximate', '')}" for module in visual.modules()}
    digest.update("\n".join(sorted(name for name in modules if "LU " in name)).encode())
    return digest.hexdigest()


def float64(tensor):
    """The tensor in float64, on its own device, or on the CPU where its device has no float64."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).detach().double()


def statistics(state, norm):
    """(mean, 1 / sigma) of a LayerNorm at states [..., d_model], each [...], in float32 at least."""
    state = state.float() if state.dtype in (torch.float16, torch.bfloat16) else state
    return state.mean(-1), (state.var(-1, unbiased=False) + norm.eps).rsqrt()
