"""What every head and every MLP adds to the image embedding, exactly.

The class token's state before the final LayerNorm is a sum, x = x_0 + sum_l (a_l + m_l), a_l = sum_h W_O z_h + b_O.
LayerNorm is affine once its statistics mu and sigma are known, so the normalised embedding e/n is a sum too
(Gandelsman et al., "Interpreting CLIP's Image Representation via Text-Based Decomposition", eqs. 3 to 6). With
M = P^T diag(gamma), L layers and H heads, b_O is shared evenly by the heads of its layer, and the LayerNorm's mean
and beta evenly by the 2L + 1 parts (each layer's attention and MLP, and the embedding x_0):

    head       c = (1/n) [ (1/sigma) M (W_O z + b_O / H) - (mu/sigma) M 1 / ((2L+1) H) + P^T beta / ((2L+1) H) ]
    MLP, x_0   c = (1/n) [ (1/sigma) M m                 - (mu/sigma) M 1 /  (2L+1)    + P^T beta /  (2L+1)    ]

Reduced coordinates: q = [ z / (sigma n), 1 / (sigma n), mu / (sigma n), 1 / n ] has d_head + 3 numbers and c = B q,
where the basis B = [ M W_O | M b_O / H | -M 1 / ((2L+1) H) | P^T beta / ((2L+1) H) ] is a fixed matrix of the model.
So z and three numbers an image hold everything that a head ever says.
"""

from dataclasses import dataclass

import torch

from clipspectra.hooks import check_supported, class_attention, observe


@dataclass
class Readout:
    """How a tower's final LayerNorm and projection read its residual stream.

    project: M, [d_embed, d_model]; mean_share, beta_share: -M 1 / (2L+1) and P^T beta / (2L+1), [d_embed]
    """

    project: torch.Tensor
    mean_share: torch.Tensor
    beta_share: torch.Tensor


@torch.no_grad()
def readout(visual):
    """The Readout of a tower in float64. Raises InputError for a tower that cannot be decomposed exactly."""
    check_supported(visual)
    parts = 2 * len(visual.transformer.resblocks) + 1
    projection = _float64(visual.proj).T  # P^T, [d_embed, d_model]
    project = projection * _float64(visual.ln_post.weight)
    return Readout(project, -project.sum(1) / parts, projection @ _float64(visual.ln_post.bias) / parts)


@torch.no_grad()
def head_basis(visual):
    """B of every head of a tower, [layer, head, d_embed, d_head + 3], worked out in float64, in the tower's dtype."""
    read, basis = readout(visual), []
    for block in visual.transformer.resblocks:
        heads = block.attn.num_heads
        out = _float64(block.attn.out_proj.weight)  # W_O, [d_model, head * d_head]
        write = (read.project * _layer_scale(block)) @ out  # M W_O of all heads side by side
        write = write.unflatten(1, (heads, -1)).transpose(0, 1)  # [head, d_embed, d_head]
        constants = torch.stack([read.project @ written_bias(block), read.mean_share, read.beta_share], dim=-1) / heads
        basis.append(torch.cat([write, constants.expand(heads, -1, -1)], dim=-1))
    return torch.stack(basis).to(visual.proj)


def written_bias(block):
    """b_O of a block in float64, its layer scale folded in, [d_model]."""
    return _layer_scale(block) * _float64(block.attn.out_proj.bias)


def _layer_scale(block):
    return _float64(block.ls_1.gamma) if hasattr(block.ls_1, "gamma") else 1.0


def _float64(tensor):
    """The tensor in float64, on its own device, or on the CPU where its device has no float64."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


@dataclass
class Activations:
    """What is stored of each image: heads in reduced coordinates, the rest as contributions.

    z: heads' outputs for the class token before W_O, [image, layer, head, d_head] or, per token,
       each source token's part of it, [image, layer, pos, head, d_head]
    scalars: 1 / (sigma n), mu / (sigma n) and 1 / n, [image, 3]
    mlps: contributions of the embedding x_0 (number 0) and of each MLP, [image, layer + 1, d_embed]
    embedding: the model's own output, not normalised, [image, d_embed]
    """

    z: torch.Tensor
    scalars: torch.Tensor
    mlps: torch.Tensor
    embedding: torch.Tensor


@dataclass
class Contributions:
    """Parts of the normalised image embedding.

    heads: [image, layer, head, d_embed] or, per token, [image, layer, pos, head, d_embed]
    mlps: the embedding x_0 (number 0) and each MLP, [image, layer + 1, d_embed]
    embedding: the model's own output, not normalised, [image, d_embed]
    """

    heads: torch.Tensor
    mlps: torch.Tensor
    embedding: torch.Tensor

    def total(self):
        """Sum of all parts, which is embedding / |embedding| up to rounding, [image, d_embed]."""
        return self.heads.flatten(1, -2).sum(1) + self.mlps.sum(1)


@torch.no_grad()
def activations(model, images, *, per_token=False):
    """One forward pass of `model` (open_clip, eval mode) on `images` [image, 3, height, width], as Activations.

    Raises InputError, before any compute, for a tower that cannot be decomposed exactly.
    """
    visual = model.visual
    read = readout(visual)
    z, added, final = {}, {}, None

    def on_attention(layer, query, key, value, heads):
        if per_token:
            parts = class_attention(query, key)[..., None] * value  # [image, head, pos, d_head]
            z[layer] = parts.transpose(1, 2)
        else:
            z[layer] = heads[:, :, 0].clone()  # a view would keep all tokens of all layers in memory

    def on_mlp(layer, output):
        added[layer + 1] = output[:, 0].clone()

    def on_embedding(state):
        added[0] = state[:, 0].clone()

    def on_final(state):
        nonlocal final
        final = state[:, 0] if state.ndim == 3 else state

    with observe(visual, on_attention=on_attention, on_mlp=on_mlp, on_embedding=on_embedding, on_final=on_final):
        embedding = model.encode_image(images)
    scalars = image_scalars(final, embedding, visual.ln_post.eps)
    inverse, shifted, beta = scalars[:, None, :, None].unbind(2)  # each [image, 1, 1]
    project, mean_share, beta_share = (part.to(final) for part in (read.project, read.mean_share, read.beta_share))
    streams = torch.stack([added[layer] for layer in sorted(added)], dim=1)  # [image, layer + 1, d_model]
    return Activations(
        z=torch.stack([z[layer] for layer in sorted(z)], dim=1),
        scalars=scalars,
        mlps=inverse * (streams @ project.T) + shifted * mean_share + beta * beta_share,
        embedding=embedding,
    )


def image_scalars(state, embedding, eps):
    """1 / (sigma n), mu / (sigma n) and 1 / n of each image, [image, 3].

    state: class token before the final LayerNorm, [image, d_model]; embedding: [image, d_embed]; eps: the LayerNorm's
    """
    inverse_norm = 1 / embedding.norm(dim=-1)
    inverse = inverse_norm / (state.var(-1, unbiased=False) + eps).sqrt()
    return torch.stack([inverse, state.mean(-1) * inverse, inverse_norm], dim=-1)


def reduced_coordinates(z, scalars):
    """q [image, layer, head, d_head + 3] from z [image, layer, head, d_head] and scalars [image, 3]."""
    scalars = scalars[:, None, None].expand(*z.shape[:-1], 3)
    return torch.cat([z * scalars[..., :1], scalars], dim=-1)


def contributions(model, images, *, per_token=False):
    """Contributions of every head (per_token: and source token) and MLP to the normalised embedding of each image.

    model: open_clip model in eval mode, with a class-token VisionTransformer as `.visual`; images: preprocessed,
    [image, 3, height, width]. Raises InputError for a tower without an exact decomposition.
    """
    found = activations(model, images, per_token=per_token)
    basis = head_basis(model.visual)
    if not per_token:
        q = reduced_coordinates(found.z, found.scalars)
        heads = torch.einsum("ilhq,lheq->ilhe", q, basis)
    else:
        tokens = found.z.shape[2]  # every constant is shared by the source tokens
        d_head = found.z.shape[-1]
        heads = torch.einsum("ilphz,lhez->ilphe", found.z * found.scalars[:, None, None, None, :1], basis[..., :d_head])
        shares = torch.einsum("is,lhes->ilhe", found.scalars, basis[..., d_head:]) / tokens
        heads = heads + shares[:, :, None]
    return Contributions(heads, found.mlps, found.embedding)


def sum_error(found, basis):
    """Largest |sum of all contributions - e/n| over images and dimensions, summing in float64 without forming heads."""
    q = _float64(reduced_coordinates(found.z, found.scalars))
    total = torch.einsum("ilhq,lheq->ie", q, _float64(basis)) + _float64(found.mlps).sum(1)
    return float((total - _float64(found.embedding * found.scalars[:, 2:])).abs().max())
