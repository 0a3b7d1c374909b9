"""What an intervention refers to in one model, and the small file that holds both, without the images they came from.

An intervention (interventions.Intervention) has only numbers: of layers, heads and components, and factors. Its
Reference says what they stand for: the means over the fit images, the components' directions, and the weights of the
image tower that these belong to.
"""

import json
from dataclasses import dataclass, field

import numpy as np

from clipspectra import InputError
from clipspectra.arrays import load_arrays, save_arrays
from clipspectra.concepts.interventions import Factors, Intervention, check_units, unit_name

LAYOUT = "edit 1"  # of the file


@dataclass(frozen=True)
class Reference:
    """Means and components of one model, as far as an intervention needs them.

    weights: digest of the image tower's weights (towers.tower.weights_digest)
    first_layer: the first layer that was stored head by head; heads of earlier ones have but their sum
    means: {(layer, head): mean of the reduced coordinates q over the fit images [coordinate + scalar]}
    components: {(layer, head, component): direction [d_embed]}, orthonormal within a head
    early, mlps: mean over the fit images of the sum of the early layers' heads, and of all MLPs with x_0, [d_embed];
    None where the intervention leaves them
    """

    weights: str
    first_layer: int = 0
    means: dict = field(default_factory=dict)
    components: dict = field(default_factory=dict)
    early: np.ndarray | None = None
    mlps: np.ndarray | None = None

    @classmethod
    def of(cls, stored, explanations, intervention):
        """The Reference of an Intervention of StoredActivations.

        explanations: {(layer, head): HeadExplanation}, with components. Raises InputError for units that do not exist,
        and for activations whose basis lacks the digest of the weights.
        """
        if not stored.weights:
            raise InputError(
                f"{stored.basis_path} is of an older version and does not name its weights; remove it, and run again."
            )
        units = [(*head, number) for head, factors in intervention.heads.items() for number in factors.components]
        check_units([*intervention.heads, *units], explanations)
        means = {}
        for layer in sorted({layer for layer, _ in intervention.heads}):
            mean = stored.fit_coordinates(layer)
            means |= {head: mean[head[1]] for head in sorted(intervention.heads) if head[0] == layer}
        sums = {}
        kinds = {"early": ("early",), "mlps": ("mlp", "x_0")}
        kinds = {name: names for name, names in kinds.items() if getattr(intervention, name) != 1}
        if kinds:
            part_means = stored.fit_means()
            for name, names in kinds.items():
                sums[name] = part_means[np.isin([kind for kind, _ in stored.names], names)].sum(0)
        components = {unit: explanations[unit[:2]].components[unit[2]] for unit in sorted(units)}
        return cls(stored.weights, stored.layers.start, means, components, **sums)


def save_edit(path, intervention, reference, metadata):
    """Write an Intervention with its Reference as safetensors; metadata: what they came from, a dict of JSON values."""
    arrays = {f"mean.{layer}.{head}": mean for (layer, head), mean in reference.means.items()}
    arrays |= {"component." + ".".join(map(str, unit)): row for unit, row in reference.components.items()}
    arrays |= {name: getattr(reference, name) for name in ("early", "mlps") if getattr(reference, name) is not None}
    heads = [
        [
            *map(int, head),
            float(factors.rest),
            [[int(n), float(factor)] for n, factor in sorted(factors.components.items())],
        ]
        for head, factors in intervention.heads.items()
    ]
    factors = {"heads": sorted(heads), "early": float(intervention.early), "mlps": float(intervention.mlps)}
    about = {"layout": LAYOUT, "weights": reference.weights, "first_layer": reference.first_layer, "factors": factors}
    save_arrays(path, arrays, metadata | about)


def load_edit(path):
    """(Intervention, Reference) of a file of save_edit. Raises InputError for another or a damaged file."""
    try:
        arrays, metadata = load_arrays(str(path))
        if metadata["layout"] != LAYOUT:
            raise KeyError(metadata["layout"])
        factors, first_layer = json.loads(metadata["factors"]), int(metadata["first_layer"])
        heads = {(layer, head): Factors(rest, dict(scales)) for layer, head, rest, scales in factors["heads"]}
        intervention = Intervention(heads, factors["early"], factors["mlps"])
        numbered = {tuple(name.split(".")): array for name, array in arrays.items() if "." in name}
        means = {tuple(map(int, name[1:])): array for name, array in numbered.items() if name[0] == "mean"}
        components = {tuple(map(int, name[1:])): array for name, array in numbered.items() if name[0] == "component"}
        sums = {name: arrays.get(name) for name in ("early", "mlps")}
        reference = Reference(metadata["weights"], first_layer, means, components, **sums)
        check_complete(reference, intervention)
    except FileNotFoundError:
        raise InputError(f"There is no edit {path}.") from None
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} is damaged, or no edit.safetensors that this version wrote; remove it, and run the workflow again."
        ) from error
    return intervention, reference


def check_complete(reference, intervention):
    """Raise InputError unless a Reference has all that an Intervention needs, with factors that are numbers."""
    known = reference.means.keys() | reference.components.keys()
    for head, factors in intervention.heads.items():
        units = [head, *((*head, number) for number in factors.components)]
        absent = [unit for unit in units if unit not in known]
        if absent:
            raise InputError(
                f"The reference lacks {unit_name(absent[0])}; make it with Reference.of this intervention."
            )
    for name in ("early", "mlps"):
        is_needed = getattr(intervention, name) != 1 and (name == "mlps" or reference.first_layer)
        if is_needed and getattr(reference, name) is None:
            raise InputError(f"The reference lacks the mean of {name}; make it with Reference.of this intervention.")
    factors = [
        number for scales in intervention.heads.values() for number in (scales.rest, *scales.components.values())
    ]
    if not np.isfinite([intervention.early, intervention.mlps, *factors]).all():
        raise InputError("The intervention has a factor that is not a finite number.")
