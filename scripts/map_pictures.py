"""The user's own pictures for the explorer: their activations, and maps of each one's strongest components."""

import numpy as np

from clipspectra import InputError
from clipspectra.arrays import load_arrays, save_arrays, versions
from clipspectra.explanations.head import load_explanations
from clipspectra.explanations.spectral import component_scores
from clipspectra.jobs import job, model_arguments, progress

MAPS = 8  # of a picture, for each dataset


def strongest_places(arrays, basis, explanations):
    """[(layer, head, component)] of the components with the largest |score| in one picture, the largest first.

    arrays: the picture's z and scalars; explanations: of the heads
    """
    scores = {}
    for (layer, head), explanation in explanations.items():
        if (layer, head) not in basis:
            continue
        row = np.concatenate([arrays["z"][:, layer, head], arrays["scalars"]], axis=1).astype(np.float64)
        of_head = component_scores(row, basis[layer, head], explanation.components, explanation.mean)[0]
        scores |= {(layer, head, component): abs(score) for component, score in enumerate(of_head)}
    return sorted(scores, key=lambda place: (-scores[place], place))[:MAPS]


if __name__ == "__main__":
    with job(snakemake.log[0], "explorer.pictures"):
        import torch

        from clipspectra.contributions.chunks import check_weights
        from clipspectra.contributions.exact import activations
        from clipspectra.data.geometry import model_view
        from clipspectra.data.pictures import BadPicture, open_rgb
        from clipspectra.segmentation.maps import component_maps
        from clipspectra.towers import models
        from clipspectra.towers.families import adapt

        params, inputs = snakemake.params, snakemake.input
        loaded = models.load(**model_arguments(snakemake), device=snakemake.config["device"], towers="image")
        check_weights([inputs.basis, *inputs.components], loaded.sha256 or "")
        tower, basis = adapt(loaded.model.visual), load_arrays(inputs.basis, "basis")[0]["basis"].astype(np.float64)
        basis = {(layer, head): matrix for layer, heads in enumerate(basis) for head, matrix in enumerate(heads)}
        explanations = {name: load_explanations(path) for name, path in zip(params.datasets, inputs.components)}
        stored, arrays = [], {f"{kind}.{name}": [] for kind in ("places", "maps") for name in explanations}
        for number, path in enumerate(progress(inputs.pictures, "own pictures", unit="picture")):
            try:
                image = loaded.preprocess(open_rgb(path))[None].to(loaded.device)
            except BadPicture as error:
                raise InputError(f"{path} cannot be read: {error.cause}; repair it, or leave it out.") from error
            of_picture = activations(loaded.model, image, tower=tower)
            stored.append(
                {name: getattr(of_picture, name).float().cpu().numpy() for name in ("z", "scalars", "embedding")}
            )
            arrays[f"view.{number}"] = model_view(path, loaded.preprocess)
            for name, of_dataset in explanations.items():
                places = strongest_places(stored[-1], basis, of_dataset)
                wanted = {
                    (layer, head): torch.from_numpy(of_dataset[layer, head].components) for layer, head, _ in places
                }
                maps = component_maps(loaded.model, image, wanted, tower=tower)
                maps = [maps[layer, head][0, component] for layer, head, component in places]
                arrays[f"places.{name}"].append(np.array(places))
                arrays[f"maps.{name}"].append(torch.stack(maps).unflatten(-1, tower.grid).float().cpu().numpy())
        arrays = {name: np.stack(array) if isinstance(array, list) else array for name, array in arrays.items()}
        arrays |= {name: np.concatenate([of_one[name] for of_one in stored]) for name in stored[0]}
        metadata = {"names": params.pictures, "sha256": loaded.sha256 or "", "code": params.code}
        save_arrays(snakemake.output[0], arrays, metadata | versions("torch", "open_clip_torch"))
