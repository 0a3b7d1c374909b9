"""What a basis fitted on one dataset gives on another, against the number of components per head."""

from clipspectra.arrays import load_table
from clipspectra.figures import curves, drawing
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        wildcards = snakemake.wildcards
        table = load_table(snakemake.input.table, ["top1", "variance_held", "names_kept", "names_kept_by_chance"])
        table = drawing.rows_of(table, wildcards, ["transfer", "model"])
        first = table.iloc[0]
        layers, bounds = f"heads of layers {first['layers']}", ""
        if table["top1"].notna().any():
            layers += " replaced, the rest at its mean" + (", MLPs kept" if first["mlps"] == "kept" else "")
            bounds = f"bars: 95 % intervals over the images; bands: 95 % of {table['draws'].max():.0f} draws; "
        figure = curves.transfer(
            table,
            title=f"What components of {first['from']} give on {first['dataset']}, {wildcards.model}",
            footer=f"{wildcards.model} · {first['from']} to {first['dataset']} · texts {first['texts']} · {layers} · "
            f"{drawing.images_of(table, 'eval images')}, seeds {first['seeds']}, "
            f"{drawing.PROTOCOLS[first['protocol']]}\n{bounds}means over seeds",
        )
        drawing.save(figure, *snakemake.output)
