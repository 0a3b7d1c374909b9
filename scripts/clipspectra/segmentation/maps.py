"""Where in the image the evidence for a class is: patch maps from the decomposition by token."""

import torch
import torch.nn.functional as F

from clipspectra.contributions.exact import check_images, source_parts
from clipspectra.towers.families import adapt
from clipspectra.towers.hooks import observe


@torch.no_grad()
def patch_maps(model, images, classifier, *, tower=None):
    """Evidence for each image's own top-1 class minus the mean over classes, [image, height, width] in [0, 1].

    images: [image, 3, height, width]; classifier: [d_embed, class]; tower: the model's Tower, where the caller has it.
    Contributions of all heads and layers by patch, upsampled bilinearly, negative evidence set to 0, then stretched to
    [0, 1] image by image. A flat map is all 0.
    """
    tower = tower or adapt(model.visual)
    evidence, _ = patch_evidence(model, images, classifier, tower=tower)
    return upsample(evidence, tower.grid, images.shape[-2:])


@torch.no_grad()
def patch_evidence(model, images, classifier, *, classes=None, minus_mean=True, by_head=False, tower=None):
    """Contribution of each patch to a class's logit, by default less the mean logit: ([image, patch], class [image]).

    classes: the class of each image, [image], its own top-1 if None; by_head: what each head gives alone, without the
    constants that say the same of every patch, [image, layer, head, patch]. Every head reads its tokens along one
    direction an image, the classifier's as the head sees it: nothing of size [pos, head, d_model] is formed.
    """
    tower = tower or adapt(model.visual)
    held, ends, embedding = _forward(model, images, tower)
    classes = (embedding @ classifier).argmax(1) if classes is None else classes
    direction = classifier.T[classes] - (classifier.mean(1) if minus_mean else 0)  # [image, d_embed]
    weights, scalars, _ = tower.readout.weights_and_scalars(ends, embedding.norm(dim=-1))
    project, shared, _ = tower.reading
    seen_from = torch.einsum("ie,gem->igm", direction, project)  # the direction in the stream, [image, group, d_model]
    evidence, biases, of_heads = 0, 0, []
    for number, (write, bias) in enumerate(tower.writing):
        parts = _parts(tower, number, held, weights)
        along = (seen_from @ write).unflatten(-1, parts.shape[-2:])  # [image, group, head, coordinate]
        if by_head:
            of_heads.append(torch.einsum("igphk,ighk->ihp", parts, along))
        else:
            evidence, biases = evidence + torch.einsum("igphk,ighk->ip", parts, along), biases + bias
    if by_head:
        return torch.stack(of_heads, dim=1)[..., tower.prefix :], classes
    # What biases, means and betas say is the same for every token: one number an image.
    layers = len(tower.layers)
    constants = torch.cat([project @ biases, shared.T * layers / (2 * layers + 1)])  # [scalar, d_embed]
    evidence = evidence + (direction @ constants.T * scalars).sum(1, keepdim=True) / evidence.shape[1]
    return evidence[:, tower.prefix :], classes


@torch.no_grad()
def component_evidence(model, images, classifier, components, *, classes=None, tower=None):
    """What each component gives of patch_evidence by head: {(layer, head): [image, component, patch]}.

    components: {(layer, head): orthonormal [component, d_embed]}, which need not be all of a head's
    """
    tower = tower or adapt(model.visual)
    held, ends, embedding = _forward(model, images, tower)
    classes = (embedding @ classifier).argmax(1) if classes is None else classes
    direction = classifier.T[classes] - classifier.mean(1)
    weights, _, _ = tower.readout.weights_and_scalars(ends, embedding.norm(dim=-1))
    evidence, project = {}, tower.reading[0]
    for number, (write, _) in enumerate(tower.writing):
        parts = _parts(tower, number, held, weights)
        for head in range(parts.shape[3]):
            if (number, head) in components:
                of_head = components[number, head].to(direction)
                k = parts.shape[-1]
                seen_from = torch.einsum("ce,gem,mk->gck", of_head, project, write[:, head * k : (head + 1) * k])
                scores = torch.einsum("igpk,gck->icp", parts[:, :, :, head], seen_from)
                evidence[number, head] = ((direction @ of_head.T)[..., None] * scores)[..., tower.prefix :]
    return evidence


def _forward(model, images, tower):
    """(what each layer's heads read, StreamEnds, embedding) of one forward pass."""
    check_images(tower, images)
    tokens, of_class, held = tower.readout.tokens, tower.readout.pool == "class", {}

    def on_layer(number, seen):
        held[number] = seen.read(tokens) if of_class else seen

    with observe(tower, on_layer=on_layer, only_read=True) as ends:
        embedding = model.encode_image(images, normalize=False)
    return held, ends, embedding


def _parts(tower, number, held, weights):
    """What source tokens give to the coordinates of a layer's heads, [image, group, pos, head, coordinate]."""
    seen = held.pop(number)
    read = seen if tower.readout.pool == "class" else seen.read(tower.readout.tokens)
    return source_parts(tower.layers[number], read, weights)


VARIANTS = ("decomposition, last layer", "decomposition, last layer, |heads|")


def variants(of_heads):
    """{name in VARIANTS: values [image, patch]} of what each head gives alone, [image, layer, head, patch].

    The last layer by itself; and the sizes of what its heads give, whatever their sign: a head that speaks against the
    class at a patch looks at that patch too.
    """
    last = of_heads[:, -1]
    return dict(zip(VARIANTS, (last.sum(1), last.abs().sum(1))))


def upsample(values, grid, size):
    """Values of patches [image, patch] as maps [image, height, width] in [0, 1]; negative ones count as 0."""
    maps = F.interpolate(values.reshape(-1, 1, *grid), size=size, mode="bilinear", align_corners=False)[:, 0]
    return stretch(maps.clamp(min=0))


def at_own_resolution(values, grid, box, size):
    """Values of one image's patches [patch] as a map of the picture itself, [height, width] in [0, 1].

    box: (top, left, height, width) of what the model saw, in the picture's pixels (datasets.model_view_box); size: the
    picture's (height, width). Pixels that the model did not see are NaN. Interpolated as `upsample` does.
    """
    axes, seen = [], []
    for start, length, pixels in zip(box[:2], box[2:], size):
        place = (torch.arange(pixels, dtype=torch.float64) + 0.5 - start) / length  # in the box, 0 to 1
        axes.append(2 * place - 1)
        seen.append((place >= 0) & (place <= 1))
    points = torch.stack(torch.meshgrid(axes[1], axes[0], indexing="xy"), dim=-1)  # x, y for each pixel
    cells = values.detach().cpu().double().reshape(1, 1, *grid)
    maps = F.grid_sample(cells, points[None], mode="bilinear", padding_mode="border", align_corners=False)[0, 0]
    inside = seen[0][:, None] & seen[1]
    maps = maps.clamp(min=0)
    low, high = maps[inside].min(), maps[inside].max()
    maps = (maps - low) / torch.where(high > low, high - low, 1)
    return torch.where(inside, maps, float("nan")).float()


def stretch(maps):
    """Each map [image, height, width] scaled linearly to [0, 1]; a flat one becomes 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1)
