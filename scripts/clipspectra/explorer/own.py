"""The user's own pictures in the explorer: their strongest components, neighbours and maps."""

import json
from pathlib import Path

import numpy as np

from clipspectra.arrays import load_arrays
from clipspectra.explanations.spectral import component_scores
from clipspectra.explorer.maps import save_strip, signed_layer
from clipspectra.explorer.pictures import Strongest, neighbours


class OwnPictures:
    """The user's own pictures as one model saw them.

    path: arrays z [picture, layer, head, coordinate], scalars and embedding of all of them, of each its view
    [height, width, 3], and for each dataset `places`, the components that are strongest in it, with `maps`
    names: of the pictures; embeddings: of unit length [picture, d_embed]
    """

    def __init__(self, path):
        self.arrays, metadata = load_arrays(path)
        self.names, embedding = json.loads(metadata["names"]), self.arrays["embedding"].astype(np.float64)
        self.embeddings = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
        self.strongest = Strongest(len(self.names))

    def add(self, number, head, basis, explanation, scores):
        """Keep what a head, (layer, head) with its number as a unit, adds to the pictures.

        basis: of the head; scores: of the pictures that are shown [picture, component], for ranks in per cent
        """
        layer, head = head
        rows = np.concatenate([self.arrays["z"][:, layer, head], self.arrays["scalars"]], axis=1).astype(np.float64)
        own_scores = component_scores(rows, basis, explanation.components, explanation.mean)
        ranks = np.stack([100 * (scores < row).mean(0) for row in own_scores])
        self.strongest.add(number, own_scores, ranks)

    def parts(self, embeddings, first_texts, numbers):
        """Of each picture its name, strongest components and neighbours; embeddings: of the pictures that are shown.

        first_texts: as in Strongest.rows; numbers: of the shown pictures among the dataset's
        """
        near = neighbours(self.embeddings, embeddings, numbers, same=False)
        rows = zip(self.names, self.strongest.rows(first_texts), near)
        return [{"name": name, "components": components, "neighbours": nearest} for name, components, nearest in rows]

    def write_maps(self, folder, dataset, units):
        """Write each picture's maps of a dataset's components as a strip; of each picture [[unit, component], …]."""
        numbers, places = {unit: number for number, unit in enumerate(units)}, self.arrays[f"places.{dataset}"]
        for number, maps in enumerate(self.arrays[f"maps.{dataset}"]):
            layers = [signed_layer(values) for values in maps]
            save_strip(Path(folder, f"own-{number}.webp"), self.arrays[f"view.{number}"], layers)
        return [[[numbers[layer, head], component] for layer, head, component in rows.tolist()] for rows in places]
