"""An intervention folded into a model's weights, so that any tool that loads them has the edited model.

A head writes W z + b / H at every token, and the embedding reads M W z / sigma (contributions.exact). Its edit by A,
about the mean, is the change of weights

    dW = (rest - 1) W + X,   M X = (A - rest) M W,   db = -dW z_mean

X is the smallest solution that leaves the mean of a token, which LayerNorm subtracts, as it is: components change only
what is read. z_mean is the mean of z over the fit images, weighted by 1 / (sigma n) as it is read.

A fold is not the edit. Later layers read the stream that it changes, at all tokens, and the LayerNorm statistics move;
the edit leaves both as they are. How far they are apart is measured (editing.outcomes), not assumed.
"""

import torch

from clipspectra import InputError
from clipspectra.editing.live import all_factors, check_reference, directions_and_scales
from clipspectra.towers.families import adapt
from clipspectra.towers.tower import float64


@torch.no_grad()
def folded_weights(model, intervention, reference):
    """{name: tensor} of the weights and biases of an open_clip model that an Intervention changes; model as it is.

    Computed in float64. Raises InputError, with the reason, for what weights cannot hold, for an intervention that
    would change nothing, and for weights that the Reference does not belong to.
    """
    tower = adapt(model.visual)
    check_reference(reference, intervention, model.visual)
    if intervention.mlps != 1:
        raise _unfoldable("it edits MLPs, whose output at each token would need a mean of its own; leave them out")
    factors = all_factors(tower, intervention, reference)
    if not factors:
        raise InputError("This intervention changes nothing, so there is nothing to fold; give it units and a factor.")
    absent = [head for head in factors if head not in reference.means]
    if absent:
        raise _unfoldable(
            f"the heads of layer {absent[0][0]} are stored as one sum, without a mean each; set activations.layers: all"
        )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    updates = {}
    for layers in _by_weight(tower.layers):
        edited = [head for head in factors if head[0] in layers]
        if not edited:
            continue
        _check_foldable(tower, layers, factors)
        layer = tower.layers[layers[0]]
        name = names[id(layer.weight)]
        bias_name = f"{name.removesuffix('weight')}bias"
        weight, bias = float64(layer.weight), model.state_dict().get(bias_name)
        if bias is None:
            raise _unfoldable(f"the output matrix of layer {layers[0]} has no bias for the means")
        change, shift = torch.zeros_like(weight), float64(bias)
        columns = change.unflatten(1, (layer.heads, -1))  # a view: [d_model, head, d_head]
        for head in sorted({head for _, head in edited}):
            units = [(number, head) for number in layers]
            written = weight.unflatten(1, (layer.heads, -1))[:, head]
            columns[:, head] = _weight_change(tower, layer, written, units[0], factors[units[0]], reference)
            shift = shift - columns[:, head] @ sum(_mean_read(tower, reference.means[unit]) for unit in units)
        if change.any():
            updates[name], updates[bias_name] = (weight + change).to(layer.weight), shift.to(bias)
    if not updates:
        raise InputError("This intervention changes no weight: its components lie outside what its heads write.")
    return updates


def _unfoldable(reason):
    return InputError(f"This intervention cannot be folded into the weights: {reason}.")


def _by_weight(layers):
    """Numbers of the layers that share an output matrix, as the sources of a ResNet's pool do."""
    groups = {}
    for number, layer in enumerate(layers):
        groups.setdefault(id(layer.weight), []).append(number)
    return list(groups.values())


def _check_foldable(tower, layers, factors):
    """Raise InputError if the edits of layers that share an output matrix are nothing that this matrix can do."""
    of_layers = {head: scales for head, scales in factors.items() if head[0] in layers}
    if tower.layers[layers[0]].post is not None:
        raise _unfoldable(f"a LayerNorm follows the output matrix of layer {layers[0]}, and undoes a change of scale")
    with_components = [head for head, scales in of_layers.items() if scales.components]
    if with_components and len(tower.reading[0]) > 1:
        raise _unfoldable(
            f"the pool reads the stream with {len(tower.reading[0])} heads, each by a map of its own, and one matrix "
            "cannot cut a component out of all of them; whole heads can be folded"
        )
    if len(layers) > 1:
        rests = {head: [of_layers.get((number, head)) for number in layers] for _, head in of_layers}
        alike = all(scales is not None and scales == group[0] for group in rests.values() for scales in group)
        if with_components or not alike:
            raise _unfoldable(
                "the sources of a ResNet's pool share one output matrix, so only a head of all sources at once can be"
            )


def _weight_change(tower, layer, written, head, factors, reference):
    """dW of one head, [d_model, d_head]; written: its W."""
    change = (factors.rest - 1) * written
    if factors.components:
        project = tower.linear()[0][0]  # M: [d_embed, d_model]
        if layer.scale is not None:
            written = float64(layer.scale)[:, None] * written
        pair = directions_and_scales(head, factors, reference)
        directions, scales = (torch.from_numpy(array).to(project) for array in pair)
        targets = directions.T @ (scales[:, None] * (directions @ project @ written))  # (A - rest) M W
        if tower.readout.norm is not None:  # LayerNorm subtracts the mean of what is written: let it be 0
            project = torch.cat([project, torch.ones_like(project[:1])])
            targets = torch.cat([targets, torch.zeros_like(targets[:1])])
        if layer.scale is not None:
            project = project * float64(layer.scale)
        change = change + torch.linalg.lstsq(project, targets, driver="gelsd").solution
    return change


def _mean_read(tower, mean):
    """z_mean [d_head] from the mean of a head's q: that of its coordinates, over that of 1 / (sigma n)."""
    groups = len(tower.reading[0])
    scalars = mean[-tower.reading[1].shape[1] - groups :]
    z = mean[: -len(scalars)].reshape(groups, -1)
    return torch.from_numpy(z.sum(0) / scalars[:groups].sum()).to(float64(tower.layers[0].weight))
