"""Figure of how well each head alone segments the object, and the best few heads together."""

from clipspectra.arrays import load_table
from clipspectra.figures import drawing, maps
from clipspectra.jobs import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        parts = load_table(snakemake.input.parts, ["mean_ap", "foreground_ap"])  # blank where no patch is foreground
        wildcards = snakemake.wildcards
        figure = maps.segmentation_parts(
            parts[parts["component"] < 0],
            load_table(snakemake.input.together),
            title=f"Which heads of {wildcards.model} point at the object on {wildcards.dataset}",
            footer=f"model {wildcards.model} · dataset {wildcards.dataset} · seed {wildcards.seed} · "
            f"{parts['images'].iloc[0]} eval images, half to choose the best and half to score them (95 % intervals) "
            f"· {parts['given'].iloc[0]}",
        )
        drawing.save(figure, *snakemake.output)
