"""An intervention in an unmodified open_clip model while it runs, for any images.

    with edited(model, *load_edit("edit.safetensors")):
        embeddings = model.encode_image(images, normalize=True)

The forward pass is the model's own. The coordinates q of the edited heads are read as it goes, and its result e
becomes e + n sum (c' - c), n = |e|. As c = B q and c' = mean + A (c - mean) (concepts.interventions), that is a product
of q with B^T (A - 1), and a constant. The LayerNorm statistics, and what later layers read, stay those of the unedited
pass, as in the edit of stored arrays, which this equals.
"""

import threading
from contextlib import contextmanager

import numpy as np
import torch

from clipspectra import InputError
from clipspectra.concepts.interventions import Factors
from clipspectra.concepts.references import check_complete
from clipspectra.contributions.exact import check_images, head_basis, mlp_contributions, read_coordinates
from clipspectra.towers.families import adapt
from clipspectra.towers.hooks import Hooks, observe
from clipspectra.towers.tower import float64, weights_digest


@contextmanager
def edited(model, intervention, reference):
    """A `with` block in which an open_clip model's image embeddings are those of an intervention.

    model: open_clip model in eval mode, in float32 or float64; intervention: Intervention; reference: its Reference

    encode_image, forward and visual give edited embeddings, [image, d_embed], with or without normalisation; their
    gradients are those of the images, as the edit is of the weights that were there at the start. What is inside the
    model, such as forward_intermediates, is not edited and is refused, and so are copies of the model made inside the
    block, passes of another thread, and weights that changed. Raises InputError for these, for a tower that cannot be
    decomposed, a reference that does not belong to the weights or to the intervention, images of another size, and a
    model that is edited already.
    """
    tower = adapt(model.visual)
    check_reference(reference, intervention, model.visual)
    thread, versions = threading.get_ident(), _versions(model.visual)
    change = Change(tower, intervention, reference)
    coordinates, terms, tokens = {}, [], tower.readout.tokens  # of one forward pass

    def on_layer(number, state):
        coordinates[number] = read_coordinates(tower.layers[number], state, tokens)[:, change.heads[number]]

    def on_mlp(_, output):
        terms.append(output[:, tokens].clone())

    def start(images):
        if threading.get_ident() != thread:
            raise InputError("This model was edited in another thread, and runs edited in that thread alone.")
        if model.visual.training or _versions(model.visual) != versions:
            raise InputError(
                "The model changed inside the `with` block (its weights, or train()), and the edit belongs to it as it "
                "was; change it outside."
            )
        check_images(tower, images)
        coordinates.clear()
        terms.clear()

    def edit(output):
        embedding, *others = output if isinstance(output, tuple) else (output,)
        with torch.autocast(embedding.device.type, enabled=False):
            changed = change.edit(embedding.to(tower.dtype), ends, coordinates, [ends.start, *terms])
            changed = changed.to(embedding.dtype)
        coordinates.clear()
        terms.clear()
        return (changed, *others) if isinstance(output, tuple) else changed

    def refuse(*_, **__):
        raise InputError("The model is edited in this `with` block, and its inner states are not; use encode_image.")

    options = {"on_layer": on_layer, "layers": change.heads, "on_mlp": on_mlp if change.mlps else None}
    with observe(tower, **options) as ends, Hooks() as hooks:
        hooks.before(model.visual, start)
        hooks.after(model.visual, edit)
        for owner in (model, model.visual):
            if hasattr(owner, "forward_intermediates"):
                hooks.replace(owner, refuse, "forward_intermediates")
        yield model


def _versions(visual):
    """How often each weight was changed in place, and which they are."""
    return [(weight.data_ptr(), weight._version) for weight in visual.parameters()]


def check_reference(reference, intervention, visual):
    """Raise InputError unless a Reference has all that an Intervention needs, and is of an image tower's weights."""
    check_complete(reference, intervention)
    digest = weights_digest(visual)
    if digest != reference.weights:
        raise InputError(
            f"This edit belongs to other weights: those of the model have the digest {digest[:12]}, the edit was made "
            f"for {reference.weights[:12]}. Load the model that it was made for, or make an edit for this one."
        )


class Change:
    """The change of the embedding by an intervention, as linear maps of what the heads' coordinates are.

    heads: {layer: numbers of its edited heads}; maps: {layer: [head * coordinate, d_embed]}
    scalars: [scalar, d_embed]; constant: [d_embed]; mlps: factor of all MLPs and x_0, less 1
    """

    def __init__(self, tower, intervention, reference):
        factors = all_factors(tower, intervention, reference)
        early = intervention.early - 1 if reference.first_layer else 0.0
        scalar_count = tower.reading[1].shape[1] + len(tower.reading[0])
        self.tower, self.heads, self.maps, self.mlps = tower, {}, {}, intervention.mlps - 1
        scalars, constant = 0.0, np.zeros(len(tower.reading[1]))
        for layer in sorted({layer for layer, _ in factors}):
            self.heads[layer] = sorted(head for number, head in factors if number == layer)
            basis, maps = float64(head_basis(tower, [layer])[0]).cpu().numpy(), []
            for head in self.heads[layer]:
                change = head_change(basis[head].T, (layer, head), factors[layer, head], reference)
                maps.append(change[:-scalar_count])
                scalars = scalars + change[-scalar_count:]
                if layer >= reference.first_layer:
                    constant -= reference.means[layer, head] @ change
            self.maps[layer] = self._tensor(np.concatenate(maps))
        if early:
            constant -= early * reference.early
        if self.mlps:
            constant -= self.mlps * reference.mlps
        self.scalars, self.constant = self._tensor(scalars + np.zeros((scalar_count, 1))), self._tensor(constant)

    def _tensor(self, array):
        return torch.from_numpy(array).to(self.tower.layers[0].weight)

    def edit(self, embedding, ends, coordinates, terms):
        """The edited embedding of one forward pass [image, d_embed], not normalised.

        ends: its StreamEnds; coordinates: {layer: [image, head, pos, coordinate]} of the edited heads; terms: what x_0
        and the MLPs write, [image, pos, d_model] each in order, none where they are not edited
        """
        norm = embedding.norm(dim=-1)
        weights, scalars, scale = self.tower.readout.weights_and_scalars(ends, norm)
        change = scalars @ self.scalars + self.constant
        for layer, layer_map in self.maps.items():
            z = torch.einsum("igt,ihtk->ihgk", weights, coordinates[layer].to(weights))
            change = change + z.flatten(1) @ layer_map
        if self.mlps:
            parts = mlp_contributions(self.tower, torch.stack(terms, dim=1), ends, weights, scalars, scale)
            change = change + self.mlps * parts.sum(1)
        return embedding + norm[:, None] * change


def all_factors(tower, intervention, reference):
    """{(layer, head): Factors} of all heads that an intervention changes, those of early layers too."""
    heads = dict(intervention.heads)
    for layer in range(reference.first_layer if intervention.early != 1 else 0):
        heads |= {(layer, head): Factors(intervention.early) for head in range(tower.layers[layer].heads)}
    return {
        head: factors
        for head, factors in heads.items()
        if factors.rest != 1 or any(factor != 1 for factor in factors.components.values())
    }


def head_change(contributions, head, factors, reference):
    """Contributions of a head [row, d_embed], or rows of its B^T, times A - 1: what its factors change of them."""
    change = (factors.rest - 1) * contributions
    if factors.components:
        directions, scales = directions_and_scales(head, factors, reference)
        change = change + (contributions @ directions.T * scales) @ directions
    return change


def directions_and_scales(head, factors, reference):
    """(the edited components of a head [component, d_embed], their factors less that of the rest [component])."""
    directions = [reference.components[*head, number] for number in factors.components]
    return np.array(directions, np.float64), np.array(list(factors.components.values())) - factors.rest
