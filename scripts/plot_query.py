"""What carries a query: components with their texts, how well they rebuild it, and images along it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from clipspectra.arrays import load_arrays, load_table
from clipspectra.data.pictures import open_rgb
from clipspectra.figures import concepts, drawing
from clipspectra.jobs import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with job(snakemake.log[0]):
        params, root = snakemake.params, Path(snakemake.input.manifest).parent
        table, images = load_table(snakemake.input.table), load_table(snakemake.input.images)
        shown = {
            end: ([open_rgb(root / name) for name in rows["image"]], list(rows["score"]))
            for end, rows in images.groupby("end", sort=False)
        }
        asked, metadata = load_arrays(snakemake.input.query)
        last = table.iloc[-1]
        about = f"{len(table)} components rebuild it to {last['cosine']:.2f}, all to {last['reachable']:.2f}"
        unknown = json.loads(metadata.get("unknown", "[]"))
        about += f"\nnever learnt by the model: {', '.join(unknown)}" if unknown else ""
        figure = concepts.query(
            table,
            shown,
            picture=asked.get("picture"),
            title=f"What carries {params.query} in {params.of['model']}",
            footer=drawing.provenance(params.of, load_table(snakemake.input.chosen), params.protocol) + f" · {about}",
        )
        drawing.save(figure, *snakemake.output)
