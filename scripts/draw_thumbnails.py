"""The pictures of a dataset for the explorer: their thumbnails in sheets, and the list of their names and values."""

from pathlib import Path

from clipspectra.arrays import load_table
from clipspectra.explorer.parts import write_part
from clipspectra.explorer.pictures import common_folder, picture_list, save_sheets, shown_pictures
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        params, folder = snakemake.params, Path(snakemake.output[0])
        sheets = f"pictures/{snakemake.wildcards.dataset}"
        tables = [load_table(path) for path in snakemake.input.images]
        table, total = shown_pictures(tables, params.protocol, params.pictures)
        paths = [Path(snakemake.input.manifest).parent / name for name in table["image"]]
        readable = save_sheets(folder / sheets, paths, snakemake.threads)
        common = common_folder(tables)
        pictures = picture_list(table, params.factors, readable, total, sheets=sheets, common=common)
        write_part(folder, f"{sheets}/list", pictures)
