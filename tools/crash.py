"""Kill a study at random moments with kill -9, run it again, and compare all results with those of a study left alone.

    python tools/crash.py [--kills 20] [--seed 0]

The study is the small one of the tests (tests/clones.py). It runs with one seed, and then with a second one, which
extends what is stored; one of the kills is for the job that does. What is killed: a job, Snakemake alone, or both.
After each kill the same plain command runs again, which the next kill stops.
"""

import argparse
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

from clones import Clone, environment  # noqa: E402

COMMAND = ["snakemake", "--cores", "2"]
UNCOMPARED = ("logs", "benchmarks")  # which hold times
MOST = 7  # jobs done before a kill, of the study's 89


class Run:
    """Snakemake at work in a folder, in a session of its own."""

    def __init__(self, folder, targets=()):
        self.folder, self.log = folder, open(folder / "run.log", "w+")  # noqa: SIM115
        options = {"cwd": folder, "env": environment(), "start_new_session": True}
        self.process = subprocess.Popen([*COMMAND, *targets], stdout=self.log, stderr=subprocess.STDOUT, **options)
        self.began = time.monotonic()
        self.wait_until(lambda: "\nJob " in self.output())
        self.seconds_to_work = time.monotonic() - self.began  # until the first job, with nothing in its way

    def output(self):
        return (self.folder / "run.log").read_text(errors="replace")

    def done(self):
        """How many jobs have been done."""
        return self.output().count("\nFinished jobid: ")

    def wait_until(self, condition):
        """Wait until a condition holds or the run ends."""
        while not condition() and self.process.poll() is None:
            time.sleep(0.05)

    def kill(self, what, rng):
        """Kill -9 "a job", "Snakemake" or "both"; the names of the jobs that were at work."""
        at_work = jobs(self.folder)
        if what == "a job":
            with suppress(ProcessLookupError):
                os.kill(rng.choice(sorted(at_work)), signal.SIGKILL)
        elif what == "Snakemake":
            self.process.kill()
        else:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return sorted(at_work.values())


def jobs(folder):
    """{number of a process: script} of the scripts at work in a folder, whoever their parent is."""
    scripts = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            script = re.search(rf"{re.escape(str(folder))}/\.snakemake/scripts/[^.]+\.(\w+)\.py", path.read_text())
        except OSError:  # it has ended
            continue
        if script:
            scripts[int(path.parent.name)] = script[1]
    return scripts


def digests(folder):
    """{path: sha256} of all results, hidden files too."""
    results = folder / "results"
    files = [
        path for path in results.rglob("*") if path.is_file() and path.relative_to(results).parts[0] not in UNCOMPARED
    ]
    return {str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def finish(folder, targets=()):
    """Run until the end; raise what was printed if it fails."""
    run = Run(folder, targets)
    if run.process.wait():
        sys.exit(f"The run failed:\n{run.output()}")
    return run


def killed_once(folder, what, rng, targets, most, script):
    """Start a run and kill it at a random moment, or in the middle of a script; (a row of the table or None, run)."""
    run = Run(folder, targets)
    count = rng.randint(0, most)
    run.wait_until(lambda: script in jobs(folder).values() if script else run.done() >= count)
    moment = time.monotonic() + rng.uniform(0, 4)
    run.wait_until(lambda: time.monotonic() > moment and (what != "a job" or jobs(folder)))
    if run.process.poll() is not None:
        if run.process.returncode:
            sys.exit(f"The run failed:\n{run.output()}")
        return None, run
    at_work = run.kill(what, rng)
    died = time.monotonic()
    while jobs(folder) and time.monotonic() - died < 30:
        time.sleep(0.02)
    orphans = time.monotonic() - died
    row = {
        "killed": what,
        "jobs at work": ", ".join(at_work) or "none",
        "jobs done": run.done(),
        "last job gone after (s)": f"{orphans:.1f}" if what == "Snakemake" and at_work else "-",
        "lock left": "yes" if any((folder / ".snakemake" / "locks").glob("*")) else "no",
        "parts left": sum(1 for _ in (folder / "results").rglob(".unfinished-*")),
    }
    return row, run


def crash(clone, kills, rng, studies=([0], [0, 1]), targets=(), most=MOST):
    """Kill a study so many times, evenly in each of its stages, and leave its last run alone; the rows of the table.

    studies: the seeds of each stage; the first kill of a later one is for the job that extends what is stored
    most: jobs that may be done before a kill
    """
    rows, kinds = [], rng.choices(["a job", "Snakemake", "both"], k=kills)
    for number, seeds in enumerate(studies):
        clone.configure(seeds=seeds)
        script = "extract_activations" if number else None
        while len(rows) < kills * (number + 1) // len(studies):
            what = "Snakemake" if script else kinds[len(rows)]
            row, run = killed_once(clone.directory, what, rng, targets, most, script)
            note_recovery(rows, run)
            if row is None:  # it was faster, so it gets work again
                for path in [clone.directory / path for path in targets or ("results/tables", "results/figures")]:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                continue
            rows.append({"number": len(rows) + 1, "seeds": len(seeds)} | row)
            script = None
        note_recovery(rows, finish(clone.directory, targets))
    return rows


def note_recovery(rows, run):
    """Add to the last row after how many seconds the run after the kill was at work again."""
    if rows:
        rows[-1].setdefault("next run at work after (s)", f"{run.seconds_to_work:.1f}")


def compare(killed, alone):
    """What differs between two dicts of digests, a sentence each."""
    return [
        f"{path}: {'differs' if path in killed and path in alone else 'only in one'}"
        for path in sorted(killed.keys() | alone.keys())
        if killed.get(path) != alone.get(path)
    ]


def as_table(rows):
    """Rows as a table in Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(map(str, row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of what is killed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve() / "study"  # the same for both
        clone = Clone(folder)
        for seeds in ([0], [0, 1]):
            clone.configure(seeds=seeds)
            finish(folder)
        alone = digests(folder)
        shutil.rmtree(folder)
        rows = crash(Clone(folder), options.kills, random.Random(options.seed))
        different = compare(digests(folder), alone)
    print(as_table(rows))
    print(f"{len(alone)} files compared; {len(different)} differ.", *different, sep="\n")
    sys.exit(bool(different))
