"""Patch maps of the evidence for a class, from the decomposition by token."""

import torch
import torch.nn.functional as F

from clipspectra.contributions.exact import check_images, source_parts
from clipspectra.data.pictures import open_rgb
from clipspectra.data.texts import embed_texts
from clipspectra.towers.families import adapt
from clipspectra.towers.hooks import observe


@torch.no_grad()
def patch_maps(model, images, classifier, *, tower=None):
    """Evidence for each image's top-1 class minus the mean over classes, [image, height, width] in [0, 1].

    images: [image, 3, height, width]; classifier: [d_embed, class]; tower: the model's Tower, if at hand.
    Contributions of all heads and layers by patch, upsampled bilinearly, negative evidence set to 0, then stretched to
    [0, 1] image by image. A flat map is all 0. Raises InputError for images of another size.
    """
    tower = tower or adapt(model.visual)
    evidence, _ = patch_evidence(model, images, classifier, tower=tower)
    return upsample(evidence, tower.grid, images.shape[-2:])


@torch.no_grad()
def text_evidence(loaded, path, texts, minus=None):
    """Evidence for each of some texts in one picture, by head and patch, float32 [text, layer, head, row, column].

    loaded: LoadedModel; path: of the picture; minus: a text that all are compared with, by default their mean. A single
    text is taken as it is. The constants, which are equal for all patches, are left out.
    """
    tower = adapt(loaded.model.visual)
    features = embed_texts(loaded, [*texts, *([minus] if minus else [])], bar=False).to(loaded.device)
    reference = features[-1] if minus else features.mean(0) if len(texts) > 1 else 0
    directions = features[: len(texts)] - reference
    images = loaded.preprocess(open_rgb(path))[None].to(loaded.device).expand(len(directions), -1, -1, -1)
    classes = torch.arange(len(directions), device=loaded.device)
    options = {"classes": classes, "minus_mean": False, "by_head": True, "tower": tower}
    evidence, _ = patch_evidence(loaded.model, images, directions.T.contiguous(), **options)
    return evidence.unflatten(-1, tower.grid).float().cpu().numpy()


def class_direction(classifier, classes, minus_mean=True):
    """The direction of each image's class in the joint space [image, d_embed]: its text, by default minus the mean.

    classifier: [d_embed, class]; classes: of the images [image]. Minus the mean of all classes' texts, the evidence is
    that for the class rather than the others; with the text alone it is that for whatever its prompts say.
    """
    return classifier.T[classes] - (classifier.mean(1) if minus_mean else 0)


@torch.no_grad()
def patch_evidence(model, images, classifier, *, classes=None, minus_mean=True, by_head=False, tower=None):
    """Contribution of each patch to a class's logit, by default minus the mean logit: ([image, patch], class [image]).

    classes: the class of each image, [image], its top-1 class if None; by_head: the evidence of each head alone,
    [image, layer, head, patch], without the constants, which are equal for all patches.
    """
    tower = tower or adapt(model.visual)
    forward = _forward(model, images, tower)
    classes = (forward[-1] @ classifier).argmax(1) if classes is None else classes
    directions = class_direction(classifier, classes, minus_mean)[:, None]
    layers = range(len(tower.layers)) if by_head else ()
    evidence, by_layer = _evidence(tower, *forward, directions, layers)
    return (torch.stack(list(by_layer.values()), dim=1)[:, :, 0] if by_head else evidence[:, 0]), classes


@torch.no_grad()
def both_directions(model, images, classifier, *, classes=None, tower=None):
    """patch_evidence of the class's text minus the mean, and of the text alone, from one forward pass.

    Returns (evidence [image, direction, patch], of the last layer's heads [image, direction, head, patch], class
    [image]).
    """
    tower = tower or adapt(model.visual)
    forward, last = _forward(model, images, tower), len(tower.layers) - 1
    classes = (forward[-1] @ classifier).argmax(1) if classes is None else classes
    directions = [class_direction(classifier, classes, minus_mean) for minus_mean in (True, False)]
    evidence, by_layer = _evidence(tower, *forward, torch.stack(directions, dim=1), [last])
    return evidence, by_layer[last], classes


def _evidence(tower, attention_states, ends, embedding, directions, by_head):
    """(evidence of all heads [image, direction, patch], {layer in by_head: [image, direction, head, patch]}).

    directions: in the joint space, [image, direction, d_embed]. They are mapped into each head's coordinates once per
    image, so that nothing of size [pos, head, d_model] is formed.
    """
    weights, scalars, _ = tower.readout.weights_and_scalars(ends, embedding.norm(dim=-1))
    project, shared, _ = tower.reading
    stream_directions = torch.einsum("ine,gem->ingm", directions, project)  # [image, direction, group, d_model]
    evidence, biases, by_layer = 0, 0, {}
    for number, (write, bias) in enumerate(tower.writing):
        coordinates = _source_coordinates(tower, number, attention_states, weights)
        head_directions = (stream_directions @ write).unflatten(-1, coordinates.shape[-2:])  # […, head, coordinate]
        if number in by_head:
            of_heads = torch.einsum("igphk,inghk->inhp", coordinates, head_directions)
            by_layer[number], layer_evidence = of_heads[..., tower.prefix :], of_heads.sum(2)
        else:
            layer_evidence = torch.einsum("igphk,inghk->inp", coordinates, head_directions)
        evidence, biases = evidence + layer_evidence, biases + bias
    # Biases, means and betas contribute the same to every token: one number per image and direction.
    layers = len(tower.layers)
    constants = torch.cat([project @ biases, shared.T * layers / (2 * layers + 1)])  # [scalar, d_embed]
    constant = (directions @ constants.T * scalars[:, None]).sum(2, keepdim=True)
    return (evidence + constant / evidence.shape[2])[..., tower.prefix :], by_layer


@torch.no_grad()
def component_evidence(model, images, classifier, components, *, classes=None, minus_mean=True, tower=None):
    """Each component's share of patch_evidence by head: {(layer, head): [image, component, patch]}.

    components: {(layer, head): orthonormal [component, d_embed]}, all components of a head or only some
    classes, minus_mean: as in patch_evidence
    """
    tower = tower or adapt(model.visual)
    forward = _forward(model, images, tower)
    classes = (forward[-1] @ classifier).argmax(1) if classes is None else classes
    direction = class_direction(classifier, classes, minus_mean)
    return {
        place: (direction @ vectors.T)[..., None] * projections
        for place, vectors, projections in _projections(tower, *forward, components)
    }


@torch.no_grad()
def component_maps(model, images, components, *, tower=None):
    """Where the scores of components come from: each patch's part of them, {(layer, head): [image, component, patch]}.

    components: as in component_evidence. The constants, which are equal for all patches, are left out.
    """
    tower = tower or adapt(model.visual)
    forward = _forward(model, images, tower)
    return {place: projections for place, _, projections in _projections(tower, *forward, components)}


def _projections(tower, attention_states, ends, embedding, components):
    """((layer, head), its components, the projections of each patch's part on them [image, component, patch])."""
    weights, _, _ = tower.readout.weights_and_scalars(ends, embedding.norm(dim=-1))
    project = tower.reading[0]
    for number, (write, _) in enumerate(tower.writing):
        coordinates = _source_coordinates(tower, number, attention_states, weights)
        for head, head_write in enumerate(write.chunk(coordinates.shape[-2], dim=1)):
            if (number, head) in components:
                vectors = components[number, head].to(embedding)  # [component, d_embed]
                directions = torch.einsum("ce,gem,mk->gck", vectors, project, head_write)
                projections = torch.einsum("igpk,gck->icp", coordinates[:, :, :, head], directions)
                yield (number, head), vectors, projections[..., tower.prefix :]


def _forward(model, images, tower):
    """({layer: AttentionRead, or AttentionState without a class token}, StreamEnds, embedding) of one forward pass."""
    check_images(tower, images)
    tokens, class_token, attention_states = tower.readout.tokens, tower.readout.pool == "class", {}

    def on_layer(number, attention_state):
        attention_states[number] = attention_state.read(tokens) if class_token else attention_state

    with observe(tower, on_layer=on_layer, only_read=True) as ends:
        embedding = model.encode_image(images, normalize=False)
    return attention_states, ends, embedding


def _source_coordinates(tower, number, attention_states, weights):
    """Each source token's part of the coordinates of a layer's heads, [image, group, pos, head, coordinate]."""
    state = attention_states.pop(number)
    read = state if tower.readout.pool == "class" else state.read(tower.readout.tokens)
    return source_parts(tower.layers[number], read, weights)


VARIANTS = ("decomposition, last layer", "decomposition, last layer, |heads|")


def last_layer_maps(head_evidence):
    """{name in VARIANTS: values [image, …, patch]} from the evidence of the last layer's heads [image, …, head, patch].

    The last layer's evidence; and the sum of its heads' absolute evidence, because a head with evidence against the
    class at a patch attends to that patch too.
    """
    return dict(zip(VARIANTS, (head_evidence.sum(-2), head_evidence.abs().sum(-2))))


def upsample(values, grid, size):
    """Patch values [image, patch] as maps [image, height, width] in [0, 1]; negative values count as 0."""
    maps = F.interpolate(values.reshape(-1, 1, *grid), size=size, mode="bilinear", align_corners=False)[:, 0]
    return min_max_normalise(maps.clamp(min=0))


def at_own_resolution(values, grid, box, size):
    """Patch values [..., patch] of one image as maps at the picture's resolution, [..., height, width] in [0, 1].

    box: (top, left, height, width) of the model's view, in the picture's pixels (geometry.model_view_box); size: the
    picture's (height, width). Pixels outside the box are NaN. Interpolated as in `upsample`.
    """
    axes, margins = [], []  # of the columns first, as torch has it
    for start, length, pixels in zip(box[1::-1], box[:1:-1], size[::-1]):
        position = (torch.arange(pixels, dtype=torch.float64) + 0.5 - start) / length  # in the box, 0 to 1
        inside = ((position >= 0) & (position <= 1)).nonzero()[:, 0]
        axes.append(2 * position[inside] - 1)
        margins += [int(inside[0]), pixels - 1 - int(inside[-1])]
    points = torch.stack(torch.meshgrid(*axes, indexing="xy"), dim=-1)  # x, y of each pixel
    patch_grids = values.detach().cpu().double().reshape(1, -1, *grid)
    maps = F.grid_sample(patch_grids, points[None], mode="bilinear", padding_mode="border", align_corners=False)[0]
    maps = min_max_normalise(maps.clamp(min=0)).float()
    return F.pad(maps, margins, value=float("nan")).reshape(*values.shape[:-1], *size)


def min_max_normalise(maps):
    """Each map [image, height, width] scaled linearly to [0, 1]; a flat map becomes 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1)
