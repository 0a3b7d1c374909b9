"""The pictures of a dataset for the explorer: their thumbnails in sheets, and the list of their names and values."""

from pathlib import Path

import numpy as np

from clipspectra.arrays import load_table
from clipspectra.explorer.parts import write_part
from clipspectra.explorer.pictures import ON_A_SHEET, common_folder, picture_list, save_webp, sheets, shown_pictures
from clipspectra.jobs import job, progress

if __name__ == "__main__":
    with job(snakemake.log[0]):
        params, dataset, folder = snakemake.params, snakemake.wildcards.dataset, Path(snakemake.output[0])
        tables = [load_table(path) for path in snakemake.input.images]
        everything = shown_pictures(tables, params.protocol, count=np.inf)
        table = shown_pictures(tables, params.protocol, params.pictures)
        paths = [Path(snakemake.input.manifest).parent / name for name in table["image"]]
        below, readable = folder / "pictures" / dataset, []
        below.mkdir(parents=True)
        total = -(-len(paths) // ON_A_SHEET)
        for number, (sheet, read) in enumerate(progress(sheets(paths, snakemake.threads), "thumbnails", total=total)):
            save_webp(below / f"sheet-{number}.webp", sheet)
            readable += read
        pictures = picture_list(table, params.factors, readable, len(everything), common_folder(tables))
        write_part(folder, f"pictures/{dataset}/list", pictures)
