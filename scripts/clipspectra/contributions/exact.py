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
So the scaled z and three numbers an image hold everything that a head ever says.

Other towers read their stream otherwise (towers.Readout): averaged over tokens, or by the P heads of an attentional
pool, each token with its own sigma. Then z is the sum over tokens of what is read of them, once for each pool head, and
there are a few more scalars; c = B q all the same. The MLP inside an attentional pool is one more part, the last of
`mlps`.
"""

from dataclasses import dataclass

import torch

from clipspectra import InputError
from clipspectra.towers.families import adapt
from clipspectra.towers.hooks import observe
from clipspectra.towers.tower import Tower, float64, statistics


@torch.no_grad()
def head_basis(tower):
    """B of every head of a Tower, [layer, head, d_embed, coordinate], worked out in float64, in the tower's dtype.

    Coordinates: z for each way the tokens are read (one, or one a pool head), then the scalars.
    """
    project, shared, _ = tower.linear()
    parts, basis = 2 * len(tower.layers) + 1, []
    for layer in tower.layers:
        write, bias = layer.writing()
        of_z = torch.einsum("gem,hmk->hegk", project, write).flatten(2)  # [head, d_embed, group * k]
        constants = torch.cat([(project @ bias).T, shared / parts], dim=1) / layer.heads  # [d_embed, scalar]
        constants = constants.expand(layer.heads, -1, -1)
        basis.append(torch.cat([of_z, constants], dim=2).to(layer.weight))
    return torch.stack(basis)


@torch.no_grad()
def value_grams(tower):
    """Layer.value_gram of every layer of a Tower, [layer, head, coordinate, coordinate], in the tower's dtype."""
    return torch.stack([layer.value_gram().to(layer.weight) for layer in tower.layers])


@dataclass
class Activations:
    """What is stored of each image: heads in reduced coordinates, the rest as contributions.

    z: heads' outputs as the readout reads them, [image, layer, head, coordinate]; for class-token ViTs this is
       z_h / (sigma n), [image, layer, head, d_head]; with per_token each source token's part of it,
       [image, layer, pos, head, coordinate]
    scalars: 1 / (sigma n), mu / (sigma n) and 1 / n, [image, 3], or what the readout of another tower has
    mlps: contributions of the embedding x_0 (number 0) and of each MLP, [image, layer + 1, d_embed]
    class_self: what the class token's attention to itself contributes, summed over the heads of each layer,
       [image, layer, d_embed]; None for towers that do not read a class token
    embedding: the model's own output, not normalised, [image, d_embed]
    mean, std: of the final LayerNorm's input, [image], or [image, pos] where it comes before the pooling
    early: where z holds the last layers only, the sum of what the other layers' heads contribute, [image, d_embed]
    """

    z: torch.Tensor
    scalars: torch.Tensor
    mlps: torch.Tensor
    class_self: torch.Tensor | None
    embedding: torch.Tensor
    mean: torch.Tensor | None
    std: torch.Tensor | None
    early: torch.Tensor | None = None

    def reduced(self):
        """q [image, layer, head, coordinate + scalar], so that a head's contributions are B q; not with per_token."""
        scalars = self.scalars[:, None, None].expand(*self.z.shape[:-1], -1)
        return torch.cat([self.z, scalars], dim=-1)


@dataclass
class Contributions:
    """Parts of the normalised image embedding.

    heads: [image, layer, head, d_embed] or, per token, [image, layer, pos, head, d_embed]
    mlps: the embedding x_0 (number 0) and each MLP, [image, layer + 1, d_embed]
    class_self, embedding, mean, std: as in Activations; norm: |embedding|, [image]
    """

    heads: torch.Tensor
    mlps: torch.Tensor
    class_self: torch.Tensor | None
    embedding: torch.Tensor
    mean: torch.Tensor | None
    std: torch.Tensor | None

    @property
    def norm(self):
        return self.embedding.norm(dim=-1)

    def total(self):
        """Sum of all parts, which is embedding / |embedding| up to rounding, [image, d_embed]."""
        return self.heads.flatten(1, -2).sum(1) + self.mlps.sum(1)


@torch.no_grad()
def activations(model, images, *, per_token=False, tower: Tower | None = None):
    """One forward pass of `model` (open_clip, eval mode) on `images` [image, 3, height, width], as Activations.

    tower: the model's Tower, where the caller has it. The last block works for the class token alone where only that is
    read. Under autocast only the forward pass is cast. Raises InputError, before any compute, for a tower that cannot
    be decomposed exactly and for images of another size.
    """
    tower = tower or adapt(model.visual)
    check_images(tower, images)
    tokens, of_class = tower.readout.tokens, tower.readout.pool == "class"
    coordinates, sources, added = {}, {}, {}

    def on_layer(number, seen):
        if of_class:
            sources[number] = seen.read(tokens, slice(None) if per_token else slice(0, 1))
        elif per_token:
            sources[number] = seen
        if not per_token:
            coordinates[number] = read_coordinates(tower.layers[number], seen, tokens)

    def on_mlp(number, output):
        added[number + 1] = output[:, tokens].clone()  # a view would keep all tokens of all layers in memory

    with observe(tower, on_layer=on_layer, on_mlp=on_mlp, only_read=True) as ends:
        embedding = model.encode_image(images, normalize=False)
    with torch.autocast(images.device.type, enabled=False):
        embedding, added[0] = embedding.to(tower.dtype), ends.start
        weights, scalars, scale = tower.readout.weights_and_scalars(ends, embedding.norm(dim=-1))
        z, selves = [], []
        for number, layer in enumerate(tower.layers):
            if number in sources:
                read = sources.pop(number)
                read = read if of_class else read.read(tokens)
                parts, every = source_parts(layer, read, weights), read.every
                selves.append(parts[:, 0, 0].flatten(1))  # [image, head * coordinate]
            if per_token:
                z.append(parts.permute(0, 2, 3, 1, 4).flatten(-2))  # [image, pos, head, group * coordinate]
            else:
                of_layer = coordinates.pop(number).to(weights)
                z.append(torch.einsum("igt,ihtk->ihgk", weights, of_layer).flatten(-2))
        project, shared, out = tower.reading
        shares = scalars[:, None, len(project) :] @ shared.T / (2 * len(z) + 1)  # [image, 1, d_embed]
        streams = torch.stack(
            [added[number] for number in range(len(z) + 1)], dim=1
        )  # [image, layer + 1, target, d_model]
        read = torch.einsum("igt,iltm->ilgm", weights, streams.to(weights))
        mlps = torch.einsum("ilgm,gem->ile", read, project) + shares
        if ends.pool_mlp is not None:
            mlps = torch.cat([mlps, (ends.pool_mlp.to(scale) * scale[:, None] @ out.T)[:, None]], dim=1)
        class_self = None
        if of_class:
            written = [u @ write.T for u, (write, _) in zip(selves, tower.writing)]  # layer: [image, d_model]
            biases = torch.stack([bias for _, bias in tower.writing]) / every * weights
            class_self = (torch.stack(written, dim=1) + biases) @ project[0].T + shares / every
        mean = std = None
        if tower.readout.norm is not None:
            mean, inverse = statistics(ends.state if tower.readout.after is None else ends.pooled, tower.readout.norm)
            mean, std = (mean[:, 0], 1 / inverse[:, 0]) if of_class and mean.ndim == 2 else (mean, 1 / inverse)
    return Activations(torch.stack(z, dim=1), scalars, mlps, class_self, embedding, mean, std)


def read_coordinates(layer, seen, tokens):
    """The coordinates of a layer's heads at the tokens (a slice) that are read, [image, head, target, coordinate]."""
    heads = seen.heads[:, :, tokens]
    if layer.post is None:
        return heads.clone()
    mean, inverse = (part[:, None, :, None] for part in statistics(seen.written[:, tokens], layer.post))
    one = torch.ones_like(heads[..., :1])
    return torch.cat([heads, one, mean * one], dim=-1) * inverse


def source_parts(layer, read, weights):
    """What source tokens give to the coordinates of a layer's heads, [image, group, pos, head, coordinate].

    read: hooks.Read of the tokens that the readout reads, with weights [image, group, target]. Constants, which
    LayerNorms around W_O bring, are shared evenly by all source tokens.
    """
    value, shift = read.value.transpose(1, 2), 0.0  # [image, pos, head, d_head]
    if layer.post is not None:
        mean, inverse = statistics(read.written, layer.post)
        weights = weights * inverse[:, None]
    of_heads = weights
    if layer.inner is not None:
        mean_inner, inverse_inner = statistics(read.raw.transpose(1, 2).flatten(2), layer.inner)
        gain, beta = (part.unflatten(0, (layer.heads, -1)) for part in (layer.inner.weight, layer.inner.bias))
        of_heads, value = weights * inverse_inner[:, None], value * gain
        away = (of_heads * mean_inner[:, None]).sum(2)
        shift = weights.sum(2)[..., None, None, None] * beta - away[..., None, None, None] * gain
    rows = torch.einsum("igt,ihtp->igph", of_heads, read.attention.to(weights))
    parts = rows[..., None] * value[:, None] + shift / read.every
    if layer.post is not None:
        constants = (
            torch.stack([weights.sum(2), (weights * mean[:, None]).sum(2)], dim=-1)[:, :, None, None] / read.every
        )
        parts = torch.cat([parts, constants.expand(*parts.shape[:-1], 2)], dim=-1)
    return parts


def check_images(tower, images):
    """Raise InputError unless images are [image, 3, height, width] of the tower's size."""
    height, width = tower.image_size
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, height, width):
        raise InputError(
            f"Images of shape {list(images.shape)} do not fit the model, which takes [image, 3, {height}, {width}]; "
            "use the model's own preprocessing."
        )


def contributions(model, images, *, per_token=False):
    """Contributions of every head (per_token: and source token) and MLP to the normalised embedding of each image.

    model: open_clip model in eval mode; images: preprocessed, [image, 3, height, width]. Raises InputError for a tower
    without an exact decomposition.
    """
    tower = adapt(model.visual)
    seen = activations(model, images, per_token=per_token, tower=tower)
    basis, scalars = head_basis(tower), seen.scalars.shape[1]
    of_z, constants = basis[..., :-scalars], basis[..., -scalars:]
    heads = torch.einsum("ilphk,lhek->ilphe" if per_token else "ilhk,lhek->ilhe", seen.z, of_z)
    shares = torch.einsum("is,lhes->ilhe", seen.scalars, constants)
    # Every constant is shared by the source tokens.
    heads = heads + (shares[:, :, None] / seen.z.shape[2] if per_token else shares)
    return Contributions(heads, seen.mlps, seen.class_self, seen.embedding, seen.mean, seen.std)


def heads_sum(z, scalars, basis):
    """Sum of the contributions of all heads, [image, d_embed], without forming them one by one.

    z: [image, layer, head, coordinate]; scalars: [image, scalar]; basis: B [layer, head, d_embed, coordinate + scalar]
    """
    k, total = z.shape[-1], 0
    for layer, of_heads in enumerate(basis):
        total = total + torch.einsum("ihk,hek->ie", z[:, layer], of_heads[..., :k])
        total = total + scalars @ of_heads[..., k:].sum(0).T
    return total


def sum_error(activations, basis):
    """Largest |sum of all contributions - e/n| over images and dimensions, summing in float64 without forming heads.

    activations: Activations; basis: B of the heads that z holds, in float64, [layer, head, d_embed, coordinate + scalar]
    """
    z, scalars, mlps, embedding = (
        float64(part).to(basis)
        for part in (activations.z, activations.scalars, activations.mlps, activations.embedding)
    )
    total = heads_sum(z, scalars, basis) + mlps.sum(1)
    if activations.early is not None:
        total += float64(activations.early).to(basis)
    return float((total - embedding / embedding.norm(dim=-1, keepdim=True)).abs().max())
