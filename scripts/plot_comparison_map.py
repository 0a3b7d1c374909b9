"""Heads map of two models side by side: how alike the heads at each place are, and what changed there."""

from clipspectra.arrays import load_table
from clipspectra.figures import comparisons, drawing
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        table = load_table(snakemake.input.table, snakemake.params.numbers)
        table = drawing.rows_of(table, snakemake.wildcards, ["comparison"])
        first = table.iloc[0]
        table = table[table["compared"] == first["compared"]]  # at the same place, if the models have places in common
        others = f"{table['cka_others'].median():.2f}".replace("-", "−")
        figure = comparisons.comparison_map(
            table,
            title=f"The heads of {first['model']} beside those of {first['other_model']} on {first['dataset']}",
            footer=f"{first['model']} and {first['other_model']} · {first['dataset']} · {drawing.images_of(table)}, "
            f"seeds {first['seeds']} · {drawing.PROTOCOLS[first['protocol']]}\n"
            f"CKA: 1 for heads that tell the same images apart; with the other heads it is {others} (median), for "
            "unrelated ones 0 on average",
        )
        drawing.save(figure, *snakemake.output)
