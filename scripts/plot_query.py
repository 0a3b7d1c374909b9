"""What carries a query: components with their texts, how well they rebuild it, and images along it."""

import json
from pathlib import Path

from clipspectra.arrays import load_arrays, load_table
from clipspectra.data.pictures import open_rgb
from clipspectra.explanations.catalogue import NAMES
from clipspectra.figures import concepts, drawing
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        entry, seed, protocol = snakemake.params.entry, snakemake.params.seed, snakemake.params.protocol
        root = Path(snakemake.input.manifest).parent
        table, images = load_table(snakemake.input.table), load_table(snakemake.input.images)
        pictures = {
            end: ([open_rgb(root / name) for name in rows["image"]], list(rows["score"]))
            for end, rows in images.groupby("end", sort=False)
        }
        query, metadata = load_arrays(snakemake.input.query)
        last = table.iloc[-1]
        summary = f"{len(table)} components rebuild it to {last['cosine']:.2f}, all to {last['reachable']:.2f}"
        unknown = json.loads(metadata.get("unknown", "[]"))
        summary += f"\ntexts: {NAMES[table['naming'].iloc[0]]}"
        summary += f"\nnever learnt by the model: {', '.join(unknown)}" if unknown else ""
        figure = concepts.query(
            table,
            pictures,
            picture=query.get("picture"),
            title=concepts.query_title(entry),
            footer=drawing.provenance(entry | {"seed": seed}, load_table(snakemake.input.chosen), protocol)
            + f" · {summary}",
        )
        drawing.save(figure, *snakemake.output)
