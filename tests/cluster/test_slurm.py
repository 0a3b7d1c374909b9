"""The workflow on a real Slurm: the same bytes as on one machine, in few jobs, whatever becomes of a job."""

import os
import signal
import subprocess
import time

import pytest
from clones import environment

CLUSTER = ("--workflow-profile", "profiles/slurm", "--slurm-status-command", "squeue", "--slurm-no-account")
# What this Slurm's partition allows, and no waiting for a network's file system.
CLUSTER += ("--resources", "mem_mb=24000", "runtime=240", "--latency-wait", "5", "--seconds-between-status-checks", "3")
CLUSTER += ("--slurm-init-seconds-before-status-checks", "3")
TEXTS = "results/tables/texts.csv"


def tables_of(directory):
    """{name: bytes} of all tables."""
    paths = sorted((directory / "results").glob("tables/*"))
    return {path.name: path.read_bytes() for path in paths}


def start(clone, *arguments):
    """A snakemake on the cluster, running."""
    log = open(clone.directory / "output.txt", "w")  # noqa: SIM115, closed with the process
    command = ["snakemake", *CLUSTER, *arguments]
    return subprocess.Popen(command, cwd=clone.directory, env=environment(), stdout=log, stderr=subprocess.STDOUT)


def finish(clone, process, seconds=900):
    """Wait for a snakemake; what it printed."""
    try:
        code = process.wait(seconds)
    finally:
        process.kill()
    output = (clone.directory / "output.txt").read_text()
    assert code == 0, output
    return output


def first_running(slurm, before, process):
    """Number of the first job after `before` others, once it does its work."""
    slurm.wait_for(
        lambda: process.poll() is not None or any(job[1] == "RUNNING" for job in slurm.jobs()[before:]), "a job to run"
    )
    assert process.poll() is None
    time.sleep(3)
    return slurm.jobs()[before][0]


def test_same_tables_in_few_submissions(slurm, clone, tmp_path_factory):
    """Every table of the small study is that of a run on one machine, byte for byte, in three submissions."""
    local = type(clone)(tmp_path_factory.mktemp("local") / "clone")
    started = time.monotonic()
    result = local.snakemake("tables")
    assert result.returncode == 0, result.stdout
    seconds = time.monotonic() - started
    before, started = len(slurm.jobs()), time.monotonic()
    result = clone.run("snakemake", *CLUSTER, "tables")
    assert result.returncode == 0, result.stdout
    ratio = (time.monotonic() - started) / seconds
    submitted = slurm.jobs()[before:]
    print(f"\n{len(submitted)} submissions, {seconds:.0f} s on this machine, {ratio:.2f} times as long through Slurm")
    assert [job[1] for job in submitted] == ["COMPLETED"] * 3
    tables = tables_of(local.directory)
    assert len(tables) > 20
    assert tables_of(clone.directory) == tables
    assert "Nothing to be done" in local.run("snakemake", *CLUSTER, "--dry-run", "tables").stdout


def test_large_study_by_pieces(slurm, clone):
    """Of a study that is not small, images pass through models in jobs of their own, the rest in groups."""
    clone.configure(models={name: clone.demo["models"][name] for name in clone.demo["models"]})
    path = clone.directory / "rules" / "submission.smk"
    path.write_text(path.read_text().replace("return minutes < 15", "return minutes < 0"))
    before = len(slurm.jobs())
    result = clone.run("snakemake", *CLUSTER, *(f"results/tables/{name}.csv" for name in ("accuracy", "segmentation")))
    assert result.returncode == 0, result.stdout
    assert {job[1] for job in slurm.jobs()[before:]} == {"COMPLETED"}
    print(f"\n{len(slurm.jobs()) - before} submissions")


def test_cancelled_job_is_tried_again_with_twice_as_much(slurm, clone):
    before = len(slurm.jobs())
    process = start(clone, TEXTS)
    slurm.ask("scancel", first_running(slurm, before, process))
    output = finish(clone, process)
    first, second, last = slurm.jobs()[before:]
    assert (first[1], second[1], last[1]) == ("CANCELLED", "COMPLETED", "COMPLETED")
    assert "Trying to restart" in output
    assert int(second[2].rstrip("M")) == 2 * int(first[2].rstrip("M"))
    assert (clone.directory / TEXTS).exists()


def test_job_out_of_time_is_tried_again(slurm, clone):
    before = len(slurm.jobs())
    process = start(clone, TEXTS)
    number = first_running(slurm, before, process)
    for pid in slurm.processes():  # it hangs
        os.kill(int(pid), signal.SIGSTOP)
    slurm.ask("scontrol", "update", f"jobid={number}", "TimeLimit=1")
    finish(clone, process)
    assert [job[1] for job in slurm.jobs()[before:]] == ["TIMEOUT", "COMPLETED", "COMPLETED"]


def test_job_out_of_memory_is_tried_again(slurm, clone):
    """Without cgroups this Slurm looks at what a job uses once a second, and kills it (OverMemoryKill)."""
    before = len(slurm.jobs())
    memory = "embed_texts:mem_mb=500 if attempt == 1 else 4000"
    output = finish(clone, start(clone, "--set-resources", memory, "--", TEXTS))
    states = [job[1] for job in slurm.jobs()[before:]]
    assert states in ([failed, "COMPLETED", "COMPLETED"] for failed in ("OUT_OF_MEMORY", "FAILED"))
    assert "exceeded memory limit" in (slurm.directory / "slurmd.log").read_text()
    assert "Trying to restart" in output


def test_lost_node(slurm, clone):
    """Slurm itself queues the job again, and it runs when the node is back."""
    before = len(slurm.jobs())
    process = start(clone, TEXTS)
    first_running(slurm, before, process)
    slurm.lose_node()
    slurm.wait_for(lambda: "down" in slurm.ask("sinfo", "--noheader", "--format=%T"), "the node to be missed")
    slurm.start_node()
    finish(clone, process)
    assert slurm.jobs()[-1][1] == "COMPLETED"
    assert (clone.directory / TEXTS).exists()


def test_killed_run_whose_jobs_go_on(slurm, clone):
    """They are not made twice: the next run says that they may be at work, and leaves the lock."""
    before = len(slurm.jobs())
    process = start(clone, TEXTS)
    first_running(slurm, before, process)
    process.kill()
    process.wait()
    result = clone.run("snakemake", *CLUSTER, TEXTS)
    assert result.returncode != 0
    assert "the jobs that it submitted may still be at work" in " ".join(result.stdout.split())
    slurm.wait_for(lambda: slurm.jobs()[before][1] == "COMPLETED", "the job to end")
    assert len(slurm.jobs()) == before + 1
    assert clone.run("snakemake", "--unlock").returncode == 0
    finish(clone, start(clone, TEXTS))


def test_failed_job_of_a_group_fails_the_group_and_a_plain_run_goes_on(slurm, clone):
    texts = clone.directory / "results" / "text"
    texts.parent.mkdir()
    texts.write_text("in the way")
    result = clone.run("snakemake", *CLUSTER, "--retries", "0", "tables")
    assert result.returncode != 0
    texts.unlink()
    result = clone.run("snakemake", *CLUSTER, TEXTS)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--slurm-status-command", "sacct"], "set slurm-status-command to squeue in the profile"),
        (["--resources", "mem_mb=64000", "runtime=1440"], "set runtime=240 in its resources"),
        (["--resources", "mem_mb=1000", "runtime=240"], "and the profile lets no job have more than 1000"),
        (["--default-resources", "slurm_partition='fast'"], "Slurm has no partition fast; name one of main, short"),
        (["--set-resources", "embed_texts:mem_mb=40000", "--resources", "runtime=240"], "Slurm refuses a job"),
        (["--set-resources", "draw_demo_images:runtime=100", "choose_images:runtime=100"], "400 minutes together"),
    ],
)
def test_what_slurm_would_not_run_is_one_sentence(slurm, clone, arguments, sentence):
    before = len(slurm.jobs())
    result = clone.run("snakemake", *CLUSTER, *arguments, "--", TEXTS, "results/tables/shared-images.csv")
    assert result.returncode != 0
    assert sentence in " ".join(result.stdout.split())
    assert len(slurm.jobs()) == before


def test_wrong_account_is_one_sentence(slurm, clone, tmp_path):
    """This Slurm keeps no accounts, so a stand-in says what one that does says."""
    program = tmp_path / "sbatch"
    program.write_text(
        "#!/bin/sh\necho 'sbatch: error: Invalid account or account/partition combination' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    account = ("--default-resources", "slurm_account='nobody'")
    result = clone.run("env", f"PATH={tmp_path}:{environment()['PATH']}", "snakemake", *CLUSTER, *account, "--", TEXTS)
    assert "Slurm refuses a job" in result.stdout
    assert "--account=nobody" in result.stdout
    assert "Invalid account" in result.stdout
