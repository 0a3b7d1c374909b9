"""What killed processes leave: parts of files, locks, jobs. Everything is done to real processes."""

import os
import platform
import signal
import subprocess
import sys
import time

import pytest

from clipspectra import processes
from clipspectra.arrays import UNFINISHED, atomic_write

WRITE = """
import sys, time
from clipspectra.arrays import atomic_write
with atomic_write(sys.argv[1]) as part:
    part.write_text("of the other writer")
    print("begun", flush=True)
    input()
"""


def start(code, *arguments, **environment):
    """A Python process at work on some code that prints a word and then waits for a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        text=True,
    )
    process.word = process.stdout.readline().strip()
    assert process.word
    return process


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.communicate()


def parts(folder):
    return [path for path in folder.iterdir() if path.name.startswith(UNFINISHED)]


def test_two_writers_of_a_file_never_share_a_part(tmp_path):
    path = tmp_path / "table.csv"
    other = start(WRITE, path)
    with atomic_write(path) as part:
        assert len(parts(tmp_path)) == 2  # the living writer's is left alone
        part.write_text("of this writer")
    assert path.read_text() == "of this writer"
    other.communicate("\n")
    assert other.returncode == 0
    assert path.read_text() == "of the other writer"
    assert list(tmp_path.iterdir()) == [path]


def test_the_part_of_a_killed_writer_goes_when_the_file_is_next_written(tmp_path):
    other = start(WRITE, tmp_path / "table.csv")
    kill(other)
    (left,) = parts(tmp_path)
    with atomic_write(tmp_path / "able.csv"), atomic_write(tmp_path / "a-table.csv"):  # not its file
        pass
    assert left.exists()
    with atomic_write(tmp_path / "table.csv") as part:
        assert not left.exists()
        assert part.exists()
    assert parts(tmp_path) == []


CLAIM = """
import sys
from clipspectra import processes
print(processes.claim(sys.argv[1]) or "nothing", flush=True)
input()
"""


def lock(folder):
    (folder / "locks").mkdir(parents=True, exist_ok=True)
    (folder / "locks" / "0.output.lock").write_text("results/table.csv\n")
    (folder / "backups" / "results").mkdir(parents=True, exist_ok=True)


def test_locks_of_a_killed_run_are_removed_and_those_of_a_living_one_kept(tmp_path):
    first = start(CLAIM, tmp_path)
    lock(tmp_path)
    second = start(CLAIM, tmp_path)
    assert (first.word, second.word) == ("nothing", "nothing")
    kill(first)
    third = start(CLAIM, tmp_path)
    assert third.word == "nothing"  # the second is alive, and might be what holds the lock
    assert (tmp_path / "locks" / "0.output.lock").exists()
    kill(second)
    kill(third)
    fourth = start(CLAIM, tmp_path)
    assert fourth.word.startswith("The run before this one was killed. Its lock is removed")
    assert os.listdir(tmp_path) == [processes.RECORD]
    kill(fourth)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("", "Another run has locked"),
        ("an-id another-host", "A run on another-host"),
        (f"an-id {platform.node()}{processes.SUBMITTED}", "The run before this one was killed, and the jobs that it"),
        (f"an-id {platform.node()}", "The run before this one was killed"),  # before the machine was started again
    ],
)
def test_locks_of_another_machine_are_kept_and_it_is_named(tmp_path, record, words):
    lock(tmp_path)
    (tmp_path / processes.RECORD).write_text(record)
    process = start(CLAIM, tmp_path)
    assert process.word.startswith(words)
    assert ("snakemake --unlock" in process.word) == (tmp_path / "locks").exists()
    kill(process)


LEAD = """
import subprocess, sys
from clipspectra import processes
processes.lead_jobs()
subprocess.Popen(["sh", "-c", f"{sys.executable} -c '{sys.argv[1]}'; true"])
input()
"""
FOLLOW = """
import os, time
from clipspectra import processes
processes.end_with_run()
print(os.getpid(), flush=True)
while True: time.sleep(0.1)
"""


@pytest.mark.parametrize("waits", ["for its end", "by asking"])
def test_a_job_ends_with_its_run_though_a_shell_is_between(waits):
    follow = (
        FOLLOW if waits == "for its end" else FOLLOW.replace("import os", "import os; del os.pidfd_open; import os")
    )
    run = start(LEAD, follow)
    job = int(run.word)
    os.kill(job, 0)
    run.send_signal(signal.SIGKILL)
    run.wait()
    deadline = time.monotonic() + 10
    while is_alive(job):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(number):
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before, or while, it is read
        return False


def test_a_job_of_a_run_on_another_machine_lives_on():
    job = start(FOLLOW, CLIPSPECTRA_RUN="another-machine 999999999")
    time.sleep(0.3)
    assert job.poll() is None
    kill(job)


def test_files_dated_in_the_future_are_found(tmp_path):
    late, early = tmp_path / "late", tmp_path / "early"
    for path, shift in ((late, 3600), (early, -3600)):
        path.touch()
        os.utime(path, (time.time() + shift,) * 2)
    assert processes.dated_in_future([late, early, tmp_path / "absent"], tmp_path) == [late]


def test_a_run_that_ended_leaves_no_record(tmp_path):
    """So that what locks the directory then, such as another workflow at work there, is left alone."""
    first = start(CLAIM, tmp_path)
    first.communicate("\n")
    lock(tmp_path)
    second = start(CLAIM, tmp_path)
    assert second.word.startswith("Another run has locked this directory")
    assert (tmp_path / "locks" / "0.output.lock").exists()
    kill(second)
