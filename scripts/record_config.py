"""What Python needs to open the results: how each model is loaded, and which seeds, texts and shards there are."""

import json

from clipspectra.arrays import atomic_write
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]), atomic_write(snakemake.output[0]) as part:
        resources = snakemake.resources
        entries = snakemake.params.entries | {"device": resources.device, "cache": resources.cache or None}
        part.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
