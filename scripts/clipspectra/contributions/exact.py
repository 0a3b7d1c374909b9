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
So the scaled z of a head and three numbers per image hold its contributions exactly. In the code, M is `project`, W_O
of a head `write`, the last two columns of B are `shared`, and the numbers after z in q are `scalars`.

Other towers read their residual stream differently (tower.Readout): averaged over tokens, or by the P heads of an
attentional pool, each token with its own sigma. Then z is a weighted sum over tokens, one for each pool head, and there
are more scalars; c = B q holds all the same. The MLP inside an attentional pool is one more part, the last of `mlps`.
"""

from dataclasses import dataclass, fields

import torch

from clipspectra import InputError
from clipspectra.towers.families import adapt
from clipspectra.towers.hooks import observe
from clipspectra.towers.tower import Tower, float64, statistics


@torch.no_grad()
def head_basis(tower, layers=None):
    """B of every head of a Tower, [layer, head, d_embed, coordinate], computed in float64, in the tower's dtype.

    layers: numbers of layers, all by default.

    Coordinates: z for each group of the readout (one, or one for each pool head), then the scalars.
    """
    project, shared, _ = tower.linear()
    part_count, basis = 2 * len(tower.layers) + 1, []
    for layer in tower.layers if layers is None else [tower.layers[number] for number in layers]:
        write, bias = layer.writing()
        z_basis = torch.einsum("gem,hmk->hegk", project, write).flatten(2)  # M W_O: [head, d_embed, group * k]
        scalar_basis = torch.cat([(project @ bias).T, shared / part_count], dim=1) / layer.heads  # [d_embed, scalar]
        scalar_basis = scalar_basis.expand(layer.heads, -1, -1)
        basis.append(torch.cat([z_basis, scalar_basis], dim=2).to(layer.weight))
    return torch.stack(basis)


@torch.no_grad()
def value_grams(tower):
    """Layer.value_gram of every layer of a Tower, [layer, head, coordinate, coordinate], in the tower's dtype."""
    return torch.stack([layer.value_gram().to(layer.weight) for layer in tower.layers])


@dataclass
class Activations:
    """What is stored for each image: heads in reduced coordinates, the rest as contributions.

    z: heads' outputs as the readout reads them, [image, layer, head, coordinate]; for class-token ViTs this is
       z_h / (sigma n), [image, layer, head, d_head]; with per_token, the share of each source token,
       [image, layer, pos, head, coordinate]
    scalars: 1 / (sigma n), mu / (sigma n) and 1 / n, [image, 3], or the scalars of another tower's readout
    mlps: contributions of the embedding x_0 (number 0) and of each MLP, [image, layer + 1, d_embed]
    class_self: contribution of the class token's attention to itself, summed over the heads of each layer,
       [image, layer, d_embed]; None for towers that do not read a class token
    embedding: the model's output, not normalised, [image, d_embed]
    mean, std: of the final LayerNorm's input, [image], or [image, pos] where it comes before the pooling
    early: where z holds only the last layers, the summed contributions of the other layers' heads, [image, d_embed]
    """

    z: torch.Tensor
    scalars: torch.Tensor
    mlps: torch.Tensor
    class_self: torch.Tensor | None
    embedding: torch.Tensor
    mean: torch.Tensor | None
    std: torch.Tensor | None
    early: torch.Tensor | None = None

    def first(self, count):
        """The Activations of the first images alone."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return Activations(**{name: None if part is None else part[:count] for name, part in parts.items()})

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

    tower: the model's Tower, if already made. The last block computes only the class token where only that is read.
    Under autocast only the forward pass is cast. Raises InputError, before any compute, for a tower that cannot be
    decomposed exactly and for images of another size.
    """
    tower = tower or adapt(model.visual)
    check_images(tower, images)
    tokens, class_token = tower.readout.tokens, tower.readout.pool == "class"
    coordinates, attention_reads, stream_terms = {}, {}, {}

    def on_layer(number, attention_state):
        if class_token:
            attention_reads[number] = attention_state.read(tokens, slice(None) if per_token else slice(0, 1))
        elif per_token:
            attention_reads[number] = attention_state
        if not per_token:
            coordinates[number] = read_coordinates(tower.layers[number], attention_state, tokens)

    def on_mlp(number, output):
        stream_terms[number + 1] = output[:, tokens].clone()  # a view would keep all tokens of all layers in memory

    with observe(tower, on_layer=on_layer, on_mlp=on_mlp, only_read=True) as ends:
        embedding = model.encode_image(images, normalize=False)
    with torch.autocast(images.device.type, enabled=False):
        embedding, stream_terms[0] = embedding.to(tower.dtype), ends.start
        weights, scalars, scale = tower.readout.weights_and_scalars(ends, embedding.norm(dim=-1))
        z, class_self_z = [], []
        for number, layer in enumerate(tower.layers):
            if number in attention_reads:
                read = attention_reads.pop(number)
                read = read if class_token else read.read(tokens)
                parts, source_count = source_parts(layer, read, weights), read.source_count
                class_self_z.append(parts[:, 0, 0].flatten(1))  # [image, head * coordinate]
            if per_token:
                z.append(parts.permute(0, 2, 3, 1, 4).flatten(-2))  # [image, pos, head, group * coordinate]
            else:
                layer_coordinates = coordinates.pop(number).to(weights)
                z.append(torch.einsum("igt,ihtk->ihgk", weights, layer_coordinates).flatten(-2))
        terms = torch.stack([stream_terms[number] for number in range(len(z) + 1)], dim=1)
        mlps = mlp_contributions(tower, terms, ends, weights, scalars, scale)
        class_self = None
        if class_token:
            written = [u @ write.T for u, (write, _) in zip(class_self_z, tower.writing)]  # layer: [image, d_model]
            biases = torch.stack([bias for _, bias in tower.writing]) / source_count * weights
            class_self = (torch.stack(written, dim=1) + biases) @ tower.reading[0][0].T
            class_self = class_self + shared_constants(tower, scalars)[:, None] / source_count
        mean = std = None
        if tower.readout.norm is not None:
            mean, inverse = statistics(ends.state if tower.readout.after is None else ends.pooled, tower.readout.norm)
            mean, std = (mean[:, 0], 1 / inverse[:, 0]) if class_token and mean.ndim == 2 else (mean, 1 / inverse)
    return Activations(torch.stack(z, dim=1), scalars, mlps, class_self, embedding, mean, std)


def shared_constants(tower, scalars):
    """What each of the 2 L + 1 parts has of the constants that all share, [image, d_embed]; scalars [image, scalar]."""
    project, shared, _ = tower.reading
    return scalars[:, len(project) :] @ shared.T / (2 * len(tower.layers) + 1)


def mlp_contributions(tower, terms, ends, weights, scalars, scale):
    """Contributions of x_0, of each MLP and of the MLP inside an attentional pool, [image, part, d_embed].

    terms: what x_0 and the MLPs write, at the tokens that are read, [image, layer + 1, pos, d_model]; ends: StreamEnds
    weights, scalars, scale: of Readout.weights_and_scalars
    """
    project, _, out = tower.reading
    terms = torch.einsum("igt,iltm->ilgm", weights, terms.to(weights))  # [image, layer + 1, group, d_model]
    mlps = torch.einsum("ilgm,gem->ile", terms, project) + shared_constants(tower, scalars)[:, None]
    if ends.pool_mlp is not None:
        mlps = torch.cat([mlps, (ends.pool_mlp.to(scale) * scale[:, None] @ out.T)[:, None]], dim=1)
    return mlps


def read_coordinates(layer, attention_state, tokens):
    """The coordinates of a layer's heads at the tokens (a slice) that are read, [image, head, target, coordinate]."""
    heads = attention_state.heads[:, :, tokens]
    if layer.post is None:
        return heads.clone()
    mean, inverse = (part[:, None, :, None] for part in statistics(attention_state.written[:, tokens], layer.post))
    ones = torch.ones_like(heads[..., :1])
    return torch.cat([heads, ones, mean * ones], dim=-1) * inverse


def source_parts(layer, read, weights):
    """Share of each source token in the coordinates of a layer's heads, [image, group, pos, head, coordinate].

    read: hooks.AttentionRead of the tokens that the readout reads, with weights [image, group, target]. Constants of
    the LayerNorms around W_O are shared evenly by all source tokens.
    """
    value, shift = read.value.transpose(1, 2), None  # [image, pos, head, d_head]
    if layer.post is not None:
        mean, inverse = statistics(read.written, layer.post)
        weights = weights * inverse[:, None]
    head_weights = weights
    if layer.inner is not None:
        mean_inner, inverse_inner = statistics(read.raw.transpose(1, 2).flatten(2), layer.inner)
        gain, beta = (part.unflatten(0, (layer.heads, -1)) for part in (layer.inner.weight, layer.inner.bias))
        head_weights, value = weights * inverse_inner[:, None], value * gain
        centring = (head_weights * mean_inner[:, None]).sum(2)
        shift = weights.sum(2)[..., None, None, None] * beta - centring[..., None, None, None] * gain
    attention = torch.einsum("igt,ihtp->igph", head_weights, read.attention.to(weights))
    parts = attention[..., None] * value[:, None]
    if shift is not None:
        parts = parts + shift / read.source_count
    if layer.post is not None:
        constants = torch.stack([weights.sum(2), (weights * mean[:, None]).sum(2)], dim=-1)[:, :, None, None]
        constants = constants / read.source_count
        parts = torch.cat([parts, constants.expand(*parts.shape[:-1], 2)], dim=-1)
    return parts


def check_images(tower, images):
    """Raise InputError unless images are [image, 3, height, width] of the tower's size."""
    height, width = tower.image_size
    if not isinstance(images, torch.Tensor):
        raise InputError(
            f"The images are of type {type(images).__name__}; use the preprocessing of the model, and a batch."
        )
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, height, width):
        raise InputError(
            f"Images of shape {list(images.shape)} do not fit the model, which takes [image, 3, {height}, {width}]; "
            "use the preprocessing of the model."
        )


def contributions(model, images, *, per_token=False):
    """Contributions of every head (per_token: of each source token) and MLP to the normalised embedding of each image.

    model: open_clip model in eval mode; images: preprocessed, [image, 3, height, width]. Raises InputError for a tower
    without an exact decomposition.
    """
    tower = adapt(model.visual)
    batch = activations(model, images, per_token=per_token, tower=tower)
    basis, k = head_basis(tower), batch.z.shape[-1]
    heads = torch.einsum("ilphk,lhek->ilphe" if per_token else "ilhk,lhek->ilhe", batch.z, basis[..., :k])
    constants = torch.einsum("is,lhes->ilhe", batch.scalars, basis[..., k:])
    # The source tokens share the constants evenly.
    heads = heads + (constants[:, :, None] / batch.z.shape[2] if per_token else constants)
    return Contributions(heads, batch.mlps, batch.class_self, batch.embedding, batch.mean, batch.std)


def heads_sum(z, scalars, basis):
    """Sum of the contributions of all heads, [image, d_embed], without forming them one by one.

    z: [image, layer, head, coordinate]; scalars: [image, scalar]; basis: B [layer, head, d_embed, coordinate + scalar]
    The sum of all B q is one product. It reads B where it lies if it is laid out as for_sums does, else a copy.
    """
    q = torch.cat([z, scalars[:, None, None].expand(*z.shape[:-1], -1)], dim=-1)
    return q.flatten(1) @ basis.transpose(2, 3).flatten(0, 2)


def for_sums(basis):
    """The basis of the heads in float64, laid out so that heads_sum need not copy it."""
    return float64(basis.transpose(2, 3).contiguous()).transpose(2, 3)


def sum_errors(activations, basis):
    """Largest |sum of all contributions - e/n| over dimensions, [image], summing in float64 without forming heads.

    activations: Activations; basis: B of the heads in z, in float64, [layer, head, d_embed, coordinate + scalar]
    """
    z, scalars, mlps, embedding = (
        float64(part).to(basis)
        for part in (activations.z, activations.scalars, activations.mlps, activations.embedding)
    )
    total = heads_sum(z, scalars, basis) + mlps.sum(1)
    if activations.early is not None:
        total += float64(activations.early).to(basis)
    return (total - embedding / embedding.norm(dim=-1, keepdim=True)).abs().amax(1)
