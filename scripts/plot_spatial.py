"""Figure of one picture with maps of the evidence for each text, by layer and by head."""

import json
from pathlib import Path

from clipspectra.arrays import load_arrays
from clipspectra.figures import drawing, maps
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        arrays, metadata = load_arrays(snakemake.input[0])
        texts, minus = json.loads(metadata["texts"]), metadata["minus"]
        contrast = f"minus '{minus}'" if minus else "minus the mean of the texts" if len(texts) > 1 else "alone"
        model = Path(metadata["architecture"]).stem
        figure = maps.spatial(
            arrays["picture"],
            arrays["evidence"],
            texts,
            title=f"Where {model} sees each text in '{snakemake.wildcards.spatial}'",
            footer=f"{model}, weights {metadata['sha256'][:12]} · each text {contrast} · red: for the text, blue: "
            "against it; colour bars: parts of the cosine of picture and text, colours grow with the square root",
        )
        drawing.save(figure, *snakemake.output)
