"""Every architecture of the installed open_clip: whether it is supported, by which adapter, or why not."""

import pandas as pd

from clipspectra.arrays import save_table
from clipspectra.jobs import job, progress

if __name__ == "__main__":
    with job(snakemake.log[0]):
        import open_clip

        from clipspectra.towers.families import describe

        names = sorted(open_clip.list_models(), key=str.lower)
        table = pd.DataFrame([describe(name) for name in progress(names, "architectures", unit="model")])
        save_table(snakemake.output[0], table)
        print(table.to_string(index=False), flush=True)
        print(f"{(table['supported'] == 'yes').sum()} of {len(table)} are supported; see {snakemake.output[0]}")
