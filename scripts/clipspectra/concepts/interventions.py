"""Edits of what heads, components and MLPs add: kept, removed (held at the mean), amplified, inverted.

An edit stretches what a part adds about its mean over the fit images, along all of a head or along some components
v_j, orthonormal within their head:

    c' = mean + A (c - mean),  A = rest · I + sum_j (f_j - rest) v_j v_j^T

A factor of 0 removes, -1 inverts, above 1 amplifies. All maps of a head are diagonal in the same basis, so edits
compose by multiplying factors, in any order. The edited embedding is e/n + sum (c' - c), normalised again; the
LayerNorm statistics stay those of the forward pass, so it equals the same edit of the model's own sum of parts. It is
linear in the reduced coordinates q: nothing of size [image, layer, head, d_embed] is formed.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from clipspectra import InputError


@dataclass(frozen=True)
class Factors:
    """How a head is stretched: `components` {number: factor}, and `rest` for all that lies beside them."""

    rest: float = 1.0
    components: dict = field(default_factory=dict)

    def times(self, factor, component=None):
        """The same, stretched once more, along one component or everywhere."""
        if component is not None:
            return replace(self, components=self.components | {component: self.of(component) * factor})
        return Factors(self.rest * factor, {number: found * factor for number, found in self.components.items()})

    def of(self, component):
        """Factor of a component."""
        return self.components.get(component, self.rest)


@dataclass(frozen=True)
class Intervention:
    """Edits made one after another, as a factor of each part; without any, the model as it is.

    heads: {(layer, head): Factors}; early: of the sum of the layers that were not stored head by head; mlps: of all
    MLPs and x_0
    """

    heads: dict = field(default_factory=dict)
    early: float = 1.0
    mlps: float = 1.0

    def scale(self, factor, units):
        """Stretch units, (layer, head) for a whole head, (layer, head, component) for a component."""
        heads = dict(self.heads)
        for unit in units:
            heads[unit[:2]] = heads.get(unit[:2], Factors()).times(factor, *unit[2:])
        return replace(self, heads=heads)

    def factor(self, unit):
        """What a head, beside its edited components, or a component is stretched by."""
        found = self.heads.get(unit[:2], Factors())
        return found.of(unit[2]) if len(unit) == 3 else found.rest

    def scale_mlps(self, factor):
        """Stretch all MLPs and the embedding of the tokens."""
        return replace(self, mlps=self.mlps * factor)

    def scale_early(self, factor):
        """Stretch the sum of the layers that were not stored head by head."""
        return replace(self, early=self.early * factor)

    def keep(self, units, every_head):
        """Hold all heads of `every_head`, and the early ones, at their mean but for the units: heads or components."""
        whole = {unit for unit in units if len(unit) == 2}
        heads = {}
        for place in every_head:
            found = self.heads.get(place, Factors())
            kept = {unit[2]: found.of(unit[2]) for unit in units if len(unit) == 3 and unit[:2] == place}
            heads[place] = found if place in whole else Factors(0.0, kept)
        return replace(self, heads=heads, early=0.0)

    def edited(self, edit, units, stored):
        """One more edit, as the config says it: of these units, or of what `all_but_last` or `mlps` means.

        Raises InputError where what is stored does not allow it.
        """
        every_head = [(layer, head) for layer in stored.layers for head in range(stored.heads)]
        if edit["do"] == "keep":
            if "mlps" in edit or "all_but_last" in edit:
                raise InputError("'keep' goes with heads, components or a concept; hold the MLPs with 'remove'.")
            return self.keep(units, every_head)
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
            return self.scale_early(factor).scale(factor, [place for place in every_head if place[0] < first])
        return self.scale(factor, units)


def check_units(units, told):
    """The units as tuples, in order. Raises InputError for one that does not exist, or that is named twice.

    told: {(layer, head): methods.HeadExplanation} of all heads that can be edited
    """
    units = [tuple(map(int, unit)) for unit in units]
    layers = sorted({layer for layer, _ in told if layer >= 0})
    seen = set()
    for unit in units:
        name = unit_name(unit)
        if unit[0] not in layers:
            raise InputError(f"There is no {name}: the stored layers are {layers[0]} to {layers[-1]}.")
        heads = sum(layer == unit[0] for layer, _ in told)
        if unit[1] >= heads:
            raise InputError(f"There is no {name}: layer {unit[0]} has the heads 0 to {heads - 1}.")
        count = len(told[unit[:2]].components)
        if len(unit) == 3 and unit[2] >= count:
            raise InputError(f"There is no {name}: that head has {count} components, numbered from 0.")
        if unit in seen:
            raise InputError(f"The {name} is named twice; name it once.")
        seen.add(unit)
    return units


def unit_name(unit):
    """A unit in words."""
    component = f", component {unit[2]}" if len(unit) == 3 else ""
    return f"layer {unit[0]}, head {unit[1]}{component}"


class Edits:
    """What interventions do to the embeddings of stored activations, seen through a readout.

    stored: StoredActivations; told: {(layer, head): methods.HeadExplanation} with mean and components of all stored heads
    readout: matrix that the embedding is read by, such as a classifier [d_embed, class]; None for the embedding itself
    """

    def __init__(self, stored, told, readout=None):
        self.stored, self.told = stored, told
        self.readout = np.eye(stored.basis.shape[2]) if readout is None else np.asarray(readout, np.float64)
        self._of_head = {}

    def run(self, interventions):
        """Yield (chunk's rows as a slice, number, readout of the edited embeddings [image, out], not normalised).

        Chunk by chunk, and within a chunk in the order of the interventions; only what differs between one and the
        next is worked out again.
        """
        stored = self.stored
        layers = sorted({layer for one in interventions for layer, _ in one.heads})
        others = self._others(interventions)
        chunks = zip(stored.embeddings(), *(stored.reduced(layer) for layer in layers))
        start = 0
        for embedding, *of_layers in chunks:
            q, rows = dict(zip(layers, of_layers)), slice(start, start + len(embedding))
            start = rows.stop
            values, added, before = embedding @ self.readout, {}, Intervention()
            beside = next(others)
            for number, one in enumerate(interventions):
                for place in one.heads.keys() | before.heads.keys():
                    factors = one.heads.get(place, Factors())
                    if factors != before.heads.get(place, Factors()):
                        more = self._added(q[place[0]][:, place[1]], place, factors)
                        values = values + more - added.get(place, 0)
                        added[place] = more
                for name in ("early", "mlps"):
                    step = getattr(one, name) - getattr(before, name)
                    if step:
                        values = values + step * beside[name]
                before = one
                yield rows, number, values

    def embeddings(self, intervention):
        """The edited embeddings of all images, normalised, [image, d_embed]. With readout None."""
        found = np.concatenate([values for _, _, values in self.run([intervention])])
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def _added(self, q, place, factors):
        """What a head's factors add to the readout, [image, out]."""
        if place not in self._of_head:
            basis, mean = self.stored.basis[place].astype(np.float64), self.told[place].mean.astype(np.float64)
            self._of_head[place] = basis, mean, basis.T @ self.readout, mean @ self.readout
        basis, mean, through, offset = self._of_head[place]
        total = 0.0 if factors.rest == 1 else (factors.rest - 1) * (q @ through - offset)
        if factors.components:
            directions = self.told[place].components[list(factors.components)].astype(np.float64)
            stretch = np.array(list(factors.components.values())) - factors.rest
            scores = q @ (directions @ basis).T - directions @ mean  # [image, component]
            total = total + (scores * stretch) @ (directions @ self.readout)
        return total

    def _others(self, interventions):
        """Chunk by chunk, how far the early heads, and the MLPs with x_0, are from their mean, {name: [image, out]}."""
        if all(one.early == one.mlps == 1 for one in interventions):
            yield from ({} for _ in self.stored.chunks)
            return
        kinds, means = np.array([kind for kind, _ in self.stored.names]), self.stored.fit_means()
        places = {"early": kinds == "early", "mlps": np.isin(kinds, ("mlp", "x_0"))}
        for parts in self.stored.parts():
            yield {
                name: (parts[:, inside].sum(1, dtype=np.float64) - means[inside].sum(0)) @ self.readout
                for name, inside in places.items()
            }
