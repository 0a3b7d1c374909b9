"""The images nearest to a picture, by the whole embedding, a head or a component; or the ends of a component."""

import json

import numpy as np

from clipspectra.arrays import load_arrays, save_table
from clipspectra.concepts.neighbours import component_ends, name_table, picture_neighbours, picture_row, select_view
from clipspectra.contributions.kept import open_stored
from clipspectra.explanations.head import load_explanations
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0], f"neighbours.{snakemake.wildcards.neighbours}"):
        inputs, entry = snakemake.input, snakemake.params.entry
        stored = open_stored(inputs, snakemake.params.protocol)
        images = stored.images[stored.scored].rename(columns={"image": "name"})
        pool, metadata = load_arrays(inputs.texts, "features")
        features = pool["features"] - pool["features"].mean(0, dtype=np.float64)
        texts = name_table(json.loads(metadata["texts"]))
        unit = [entry.get(key) for key in ("layer", "head", "component")]
        view, direction = select_view(stored, load_explanations(inputs.components), *unit)
        if "image" in entry:
            query, query_metadata = load_arrays(inputs.query)
            row = picture_row(view, query)
            itself = images["image_sha256"].eq(query_metadata["image_sha256"]).to_numpy()
            options = {"name": entry["image"], "itself": itself, "count": entry["count"]}
            table = picture_neighbours(view, direction, row, images, texts, features, **options)
        else:
            table = component_ends(view, direction, images, texts, features, count=entry["count"])
        save_table(snakemake.output[0], table)
