"""CPU seconds of the demo by rule script, from an empty results folder, in one run (`make benchmark`).

Every Python process that the run starts says at its end how much it took, its worker processes included. The rest is
Snakemake's own.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
# Run by every Python process at its start.
MEASURE = """
import atexit, json, os, resource, sys
start, leave = os.getpid(), os._exit
def say():
    if os.getpid() != start:
        return
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    record = [sys.argv[0], sum(part.ru_utime + part.ru_stime for part in usage), usage[0].ru_maxrss / 1024]
    with open(os.environ["MEASURED"], "a") as file:
        file.write(json.dumps(record) + "\\n")
def say_and_leave(status):
    say()
    leave(status)
atexit.register(say)
os._exit = say_and_leave
"""


def run_workflow(repository, cores, config=None, targets=()):
    """(wall seconds, CPU seconds in all, {script: [(CPU seconds, MiB) of each job]}) of a run in an empty folder.

    config: a file, the demo's by default
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sitecustomize.py").write_text(MEASURE)
        measured = Path(folder) / "measured.jsonl"
        environment = os.environ | {"PYTHONPATH": folder, "MEASURED": str(measured)}
        snakemake = shutil.which("snakemake", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        options = {"snakefile": repository / "Snakefile", "directory": f"{folder}/run", "cores": cores, "quiet": "all"}
        options |= {"configfile": config or repository / "config" / "config.yaml"}
        options |= {"workflow-profile": repository / "profiles" / "default"}
        command = [snakemake, *(f"--{name}={value}" for name, value in options.items()), *targets]
        start = time.perf_counter()
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if result.returncode:
            sys.exit(result.stdout + result.stderr)
        wall, usage = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        jobs = defaultdict(list)
        for name, seconds, memory in map(json.loads, measured.read_text().splitlines()):
            if "/scripts/" in name and name.endswith(".py"):
                jobs[name.split(".")[-2]].append((seconds, memory))
    return wall, usage.ru_utime + usage.ru_stime, dict(jobs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cores", default="all")
    parser.add_argument("--repository", type=Path, default=REPOSITORY, help="another clone to measure")
    arguments = parser.parse_args()
    wall, total, jobs = run_workflow(arguments.repository.resolve(), arguments.cores)
    print(f"demo: {wall:.0f} s on {os.cpu_count()} cores, {total:.0f} s of CPU\n")
    print("| script | jobs | CPU s | share | CPU s a job | largest MiB |\n|---|---|---|---|---|---|")
    sums = {script: sum(seconds for seconds, _ in measured) for script, measured in jobs.items()}
    for script in sorted(sums, key=sums.get, reverse=True):
        count, memory = len(jobs[script]), max(memory for _, memory in jobs[script])
        share, each = sums[script] / total, sums[script] / count
        print(f"| {script} | {count} | {sums[script]:.1f} | {100 * share:.0f} % | {each:.2f} | {memory:.0f} |")
    rest = total - sum(sums.values())
    print(f"| Snakemake itself | | {rest:.1f} | {100 * rest / total:.0f} % | | |")


if __name__ == "__main__":
    main()
