"""What the demo's jobs asked a cluster for against what they took, by rule: python tools/benchmark_requests.py

After `snakemake --cores all` on the demo (`make demo`), whose results/benchmarks are read; nothing is run.
"""

import argparse
from pathlib import Path

import pandas as pd
from snakemake.api import SnakemakeApi
from snakemake.settings.types import DAGSettings, OutputSettings, Quietness, ResourceSettings

ROOT = Path(__file__).parents[1]


def requests():
    """{path of a benchmark: (rule, MB, minutes that it asks for)} of all jobs of the demo."""
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(ResourceSettings(cores=1), snakefile=ROOT / "Snakefile", workdir=ROOT)
        workflow.dag(DAGSettings(targets={"all"}, forceall=True)).execute_workflow(executor="dryrun")
        jobs = workflow._workflow.dag.jobs
        return {
            str(job.benchmark): (job.rule.name, job.resources["mem_mb"], job.resources["runtime"])
            for job in jobs
            if job.benchmark
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="the results of the demo")
    folder = parser.parse_args().results
    rows = []
    for path, (rule, memory, minutes) in requests().items():
        took = pd.read_csv(folder.parent / path, sep="\t").iloc[0]
        rows.append((rule, memory, took["max_rss"] * 1.049, minutes, took["s"] / 60))
    table = pd.DataFrame(rows, columns=["rule", "MB asked", "MB taken", "minutes asked", "minutes taken"])
    together = table.groupby("rule").agg(
        {"MB asked": "min", "MB taken": "max", "minutes asked": "min", "minutes taken": "max"}
    )
    print(together.round(1).to_string())
