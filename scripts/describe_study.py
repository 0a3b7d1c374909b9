"""A study in one small file: what was run, on what, with what, and its main findings."""

import json
from itertools import groupby
from pathlib import Path

from clipspectra.arrays import atomic_write
from clipspectra.jobs import job
from clipspectra.paper.findings import findings
from clipspectra.paper.study import (
    describe_dataset,
    describe_models,
    describe_texts,
    package_versions,
    published_beside,
    read_table,
)

if __name__ == "__main__":
    with job(snakemake.log[0]):
        inputs, params = snakemake.input, snakemake.params
        paths = {Path(path).stem: path for path in inputs.tables}
        images = {name: list(of_dataset) for name, of_dataset in groupby(inputs.images, lambda p: Path(p).parts[-3])}
        datasets = [describe_dataset(source, images[source["name"]]) for source in params.datasets]
        exactness = read_table(paths["exactness"], ["torch", "open_clip_torch"]) if "exactness" in paths else []
        published = read_table(inputs.published, ["architecture", "pretrained", "dataset", "split", "value", "source"])
        study = {
            "version": params.version,
            "commit": params.commit,
            "packages": package_versions(exactness),
            "seeds": params.seeds,
            "protocol": params.protocol,
            "sample": params.sample,
            "models": describe_models(read_table(paths["loaded-models"], ["model", "layers", "heads"]), params.models),
            "datasets": datasets,
            "texts": describe_texts(read_table(paths["texts"], ["texts", "count"])) if "texts" in paths else [],
            "methods": params.methods,
            "namings": params.namings,
            "naming": params.naming,
            "tables": list(paths),
            "figures": params.figures,
            "published": published_beside(published, params.models, datasets),
            "findings": findings(paths),
        }
        with atomic_write(snakemake.output[0]) as part:
            part.write_text(json.dumps(study, ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8")
