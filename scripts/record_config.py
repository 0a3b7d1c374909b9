"""What Python needs to open the results: how each model is loaded, and which seeds, texts and shards there are."""

import json

from clipspectra.arrays import atomic_write
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]), atomic_write(snakemake.output[0]) as part:
        entries = snakemake.params.entries | {key: snakemake.config[key] for key in ("device", "cache")}
        part.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
