# What is submitted to a cluster in one piece, and whether Slurm would take it; no rules here.
import shutil
import subprocess


def is_small():
    """Whether all work of a study together takes minutes, without a GPU: then starting a job takes longer than its work."""
    if config["gpu"]:
        return False
    minutes = 0
    for model, dataset, seed in itertools.product(MODELS, DATASETS, SEEDS):
        job = {"model": model, "dataset": dataset}
        minutes += (pass_needs(job)[1] - 10) / len(SEEDS) + analysis_needs(job)[1] - 5
    return minutes < 15


# Groups of rules, by their place in a study: jobs of a group read what earlier groups make, and nothing of later ones. A
# small study is submitted in three pieces; of a large one, jobs that pass images through a model stay by themselves. How many
# jobs of a group are put together is in the profile. A piece that fails is run again as a whole.
NAMES = ("data", "texts", "images", "explain", "evaluate", "edits", "compare", "results")
if not workflow.is_main_process:  # all that was submitted together
    GROUPS = dict.fromkeys(NAMES, "submitted")
elif is_small():
    GROUPS = dict.fromkeys(["data", "texts", "images"], "prepare")
    GROUPS |= dict.fromkeys(["explain", "evaluate", "edits", "compare"], "analyse")
else:
    GROUPS = {name: name for name in ("data", "texts", "explain", "evaluate", "compare")} | {
        "images": None,
        "edits": None,
    }
if workflow.is_main_process:
    GROUPS["results"] = "results"


def keep_pieces_together():
    """Have a cluster's job work off all that it was submitted with at once; Slurm's plugin alone would have it go one by one."""
    settings = workflow.group_settings
    settings.group_components = {**settings.group_components, "submitted": 1_000_000}
    workflow.executor_plugin.common_settings.pass_group_args = True


# --- Slurm


def check_requests():
    """Raise WorkflowError if Slurm is not there, or would refuse a job of this run, or never start it, or never be seen to end it."""
    if workflow.executor_plugin.name != "slurm":
        return
    if not shutil.which("sbatch"):
        raise WorkflowError(
            "There is no Slurm here: the program sbatch is not found. Run this where jobs are submitted from, or without "
            "--workflow-profile profiles/slurm."
        )
    if workflow.executor_settings.status_command == "sacct" and ask_slurm("sacct").returncode:
        raise WorkflowError(
            "This Slurm keeps no accounts, so sacct would never see a job end; set slurm-status-command to squeue in the "
            "profile."
        )
    partitions = dict(line.split() for line in ask_slurm("sinfo", "--noheader", "--format=%P %l").stdout.splitlines())
    jobs = [job for job in workflow.dag.needrun_jobs() if not job.is_local]
    pieces = {slurm_request(piece): piece for piece in (workflow.dag.get_job_group(job) or job for job in jobs)}
    for request, piece in pieces.items():
        partition = piece.resources.get("slurm_partition")
        check_time(str(partition) if partition else None, partitions, piece)
        answer = ask_slurm("sbatch", "--test-only", *request, "--wrap=true")
        if answer.returncode:
            raise WorkflowError(
                f"Slurm refuses a job ({', '.join(sorted(piece.rules))}) that asks for {' '.join(request)}: "
                f"{answer.stderr.strip().splitlines()[-1]}. Account, partition and the most that a job asks for are set in "
                "the profile."
            )


def check_time(partition, partitions, piece):
    """Raise WorkflowError if a partition is not there, or a piece may take longer than it lets jobs run: it would wait for ever.

    partitions: {name, with a star after that of the default: its time limit} as sinfo prints them.
    """
    from snakemake_executor_plugin_slurm.utils import parse_time_to_minutes  # takes a while, and is for Slurm alone

    names = [name.rstrip("*") for name in partitions]
    if partition and partition not in names:
        raise WorkflowError(
            f"Slurm has no partition {partition}; name one of {', '.join(names)} as slurm_partition in the profile."
        )
    if not partition:
        partition = next((name.rstrip("*") for name in partitions if name.endswith("*")), None)
    lasts = dict(zip(names, partitions.values())).get(partition, "infinite")
    allowed = limit_of("runtime")
    if lasts != "infinite" and (allowed is None or allowed > parse_time_to_minutes(lasts)):
        raise WorkflowError(
            f"The partition {partition} stops jobs after {lasts}, and the profile lets them ask for more; set runtime="
            f"{parse_time_to_minutes(lasts)} in its resources."
        )
    # Snakemake keeps each job within the limit, but not the sum of those that a group works off one after the other.
    minutes = piece.resources.get("runtime", 0) * (1 + workflow.execution_settings.retries)
    if allowed is not None and minutes > allowed and piece.is_group() and len(piece.jobs) > 1:
        raise WorkflowError(
            f"The jobs that are submitted as one ({', '.join(sorted(piece.rules))}) may ask for {minutes} minutes together, "
            f"on their last try, and the profile lets no job have more than {allowed}; lower the numbers of its "
            "group-components, raise cores, or raise runtime in its resources if the partition has more."
        )


def slurm_request(piece):
    """The options of sbatch for what a job, or a group of jobs, asks for."""
    asked_for = piece.resources.get
    options = {
        "account": asked_for("slurm_account"),
        "partition": asked_for("slurm_partition"),
        "time": asked_for("runtime"),
        "mem": asked_for("mem_mb"),
        "cpus-per-task": piece.threads,
        "gpus": asked_for("gpu"),
    }
    return tuple(f"--{key}={value}" for key, value in options.items() if value)


def ask_slurm(*command):
    """Run a program of Slurm."""
    return subprocess.run(command, capture_output=True, text=True, check=False)
