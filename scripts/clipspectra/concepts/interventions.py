"""Edits of the contributions of heads, components and MLPs: keep, remove (hold at the mean), amplify, invert.

An edit scales a contribution about its mean over the fit images, for a whole head or along some components v_j,
orthonormal within their head:

    c' = mean + A (c - mean),  A = rest · I + sum_j (f_j - rest) v_j v_j^T

A factor of 0 removes, -1 inverts, above 1 amplifies. All maps of a head are diagonal in the same basis, so edits
compose by multiplying factors, in any order. The edited embedding is e/n + sum (c' - c), normalised again; the
LayerNorm statistics stay those of the forward pass, so it equals the same edit of the sum of contributions. It is
linear in the reduced coordinates q: nothing of size [image, layer, head, d_embed] is formed.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from clipspectra import InputError
from clipspectra.explanations.spectral import component_scores


@dataclass(frozen=True)
class Factors:
    """Factors that scale a head: `components` {number: factor}, and `rest` for the space orthogonal to them."""

    rest: float = 1.0
    components: dict = field(default_factory=dict)

    def times(self, factor, component=None):
        """These factors times another, for one component or for the whole head."""
        if component is not None:
            return replace(self, components=self.components | {component: self.factor(component) * factor})
        return Factors(self.rest * factor, {number: scale * factor for number, scale in self.components.items()})

    def factor(self, component):
        """Factor of a component."""
        return self.components.get(component, self.rest)


@dataclass(frozen=True)
class Intervention:
    """The product of a sequence of edits, as factors of the contributions; the default leaves the model unedited.

    heads: {(layer, head): Factors}; early: factor of the sum of the layers that are not stored head by head
    mlps: factor of all MLPs and x_0
    """

    heads: dict = field(default_factory=dict)
    early: float = 1.0
    mlps: float = 1.0

    def scale(self, factor, units):
        """Scale units, (layer, head) for a whole head, (layer, head, component) for a component."""
        heads = dict(self.heads)
        for unit in units:
            heads[unit[:2]] = heads.get(unit[:2], Factors()).times(factor, *unit[2:])
        return replace(self, heads=heads)

    def factor(self, unit):
        """Factor of a component, or of a head beside its edited components."""
        factors = self.heads.get(unit[:2], Factors())
        return factors.factor(unit[2]) if len(unit) == 3 else factors.rest

    def scale_mlps(self, factor):
        """Scale all MLPs and the embedding of the tokens."""
        return replace(self, mlps=self.mlps * factor)

    def scale_early(self, factor):
        """Scale the sum of the layers that are not stored head by head."""
        return replace(self, early=self.early * factor)

    def keep(self, units, all_heads):
        """Hold all heads [(layer, head)], and the early layers, at their mean except the units: heads or components."""
        kept_heads = {unit for unit in units if len(unit) == 2}
        heads = {}
        for head in all_heads:
            factors = self.heads.get(head, Factors())
            kept = {unit[2]: factors.factor(unit[2]) for unit in units if len(unit) == 3 and unit[:2] == head}
            heads[head] = factors if head in kept_heads else Factors(0.0, kept)
        return replace(self, heads=heads, early=0.0)

    def edited(self, edit, units, stored):
        """The intervention with one more edit of the config: of these units, or as `all_but_last` or `mlps` says.

        Raises InputError if the stored activations do not allow it.
        """
        all_heads = [(layer, head) for layer in stored.layers for head in range(stored.heads)]
        if edit["do"] == "keep":
            if "mlps" in edit or "all_but_last" in edit:
                raise InputError("'keep' goes with heads, components or a concept; hold the MLPs with 'remove'.")
            return self.keep(units, all_heads)
        factor = {"remove": 0.0, "invert": -1.0, "amplify": edit.get("by")}[edit["do"]]
        if "mlps" in edit:
            return self.scale_mlps(factor)
        if "all_but_last" in edit:
            last = edit["all_but_last"]
            if last > len(stored.layers):
                raise InputError(
                    f"all_but_last is {last}, but only {len(stored.layers)} layers are stored; lower it, or keep more "
                    "under activations.layers."
                )
            first = stored.layers.stop - last
            return self.scale_early(factor).scale(factor, [head for head in all_heads if head[0] < first])
        return self.scale(factor, units)


def check_units(units, explanations):
    """The units as tuples, in order. Raises InputError for one that does not exist, or that is listed twice.

    explanations: {(layer, head): HeadExplanation} of all heads that can be edited
    """
    units = [tuple(map(int, unit)) for unit in units]
    layers = sorted({layer for layer, _ in explanations if layer >= 0})
    checked = set()
    for unit in units:
        name = unit_name(unit)
        if unit[0] not in layers:
            raise InputError(f"There is no {name}: the stored layers are {layers[0]} to {layers[-1]}.")
        heads = sum(layer == unit[0] for layer, _ in explanations)
        if not 0 <= unit[1] < heads:
            raise InputError(f"There is no {name}: layer {unit[0]} has the heads 0 to {heads - 1}.")
        count = len(explanations[unit[:2]].components)
        if len(unit) == 3 and not 0 <= unit[2] < count:
            raise InputError(f"There is no {name}: that head has {count} components, numbered from 0.")
        if unit in checked:
            raise InputError(f"The {name} is listed twice; list it once.")
        checked.add(unit)
    return units


def unit_name(unit):
    """The name of a unit in messages."""
    component = f", component {unit[2]}" if len(unit) == 3 else ""
    return f"layer {unit[0]}, head {unit[1]}{component}"


class Edits:
    """The embeddings of stored activations under interventions, projected by a readout.

    stored: StoredActivations; explanations: {(layer, head): HeadExplanation} with mean and components of all heads
    readout: matrix applied to the embedding, such as a classifier [d_embed, class]; None for the embedding itself
    """

    def __init__(self, stored, explanations, readout=None):
        self.stored, self.explanations = stored, explanations
        self.readout = np.eye(stored.basis.shape[2]) if readout is None else np.asarray(readout, np.float64)
        self._projected = {}  # {(layer, head): what _change needs of it, whatever the images}

    def run(self, interventions):
        """Yield (slice of a chunk's images, number, readout of the edited embeddings [image, out], not normalised).

        Chunk by chunk, and within a chunk in the order of the interventions; only the difference between one and the
        next is computed.
        """
        stored = self.stored
        layers = sorted({layer for intervention in interventions for layer, _ in intervention.heads})
        deviations = self._deviations(interventions)
        start = 0
        for embedding, *reduced in zip(stored.embeddings(), *(stored.reduced(layer) for layer in layers)):
            q, rows = dict(zip(layers, reduced)), slice(start, start + len(embedding))
            start = rows.stop
            outputs, changes, before = embedding @ self.readout, {}, Intervention()
            scores = {}  # of the chunk's images on the components of each head, [image, component]
            deviation = next(deviations)
            for number, intervention in enumerate(interventions):
                for head in intervention.heads.keys() | before.heads.keys():
                    factors = intervention.heads.get(head, Factors())
                    if factors != before.heads.get(head, Factors()):
                        change = self._change(q[head[0]][:, head[1]], scores, head, factors)
                        outputs = outputs + change - changes.get(head, 0)
                        changes[head] = change
                for name in ("early", "mlps"):
                    step = getattr(intervention, name) - getattr(before, name)
                    if step:
                        outputs = outputs + step * deviation[name]
                before = intervention
                yield rows, number, outputs

    def embeddings(self, intervention):
        """The edited embeddings of all images, normalised, [image, d_embed]. With readout None."""
        embeddings = np.concatenate([chunk for _, _, chunk in self.run([intervention])])
        return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)

    def _change(self, q, scores, head, factors):
        """The change of the readout by a head's factors, [image, out]; scores: of the images so far, by head."""
        if head not in self._projected:
            basis, mean = self.stored.basis[head].astype(np.float64), self.explanations[head].mean.astype(np.float64)
            components = self.explanations[head].components.astype(np.float64)
            projected = basis.T @ self.readout, mean @ self.readout, components @ self.readout
            self._projected[head] = basis, mean, components, *projected
        basis, mean, components, basis_readout, mean_readout, components_readout = self._projected[head]
        total = 0.0 if factors.rest == 1 else (factors.rest - 1) * (q @ basis_readout - mean_readout)
        if factors.components:
            if head not in scores:
                scores[head] = component_scores(q, basis, components, mean)
            numbers, values = list(factors.components), np.array(list(factors.components.values()))
            total = total + (scores[head][:, numbers] * (values - factors.rest)) @ components_readout[numbers]
        return total

    def _deviations(self, interventions):
        """Chunk by chunk, the readout of early heads, and of MLPs with x_0, less its mean: {name: [image, out]}."""
        if all(intervention.early == intervention.mlps == 1 for intervention in interventions):
            yield from ({} for _ in self.stored.chunks)
            return
        kinds, means = np.array([kind for kind, _ in self.stored.names]), self.stored.fit_means()
        masks = {"early": kinds == "early", "mlps": np.isin(kinds, ("mlp", "x_0"))}
        for parts in self.stored.parts():
            yield {
                name: (parts[:, inside].sum(1, dtype=np.float64) - means[inside].sum(0)) @ self.readout
                for name, inside in masks.items()
            }
