# What a killed run left is recognised at the next start, so that running again is all there is to do; no rules here.
import shlex

from snakemake.logging import logger
from snakemake_interface_executor_plugins.settings import ExecMode

from clipspectra import processes


def check_dates():
    """Raise WorkflowError if what jobs read is dated in the future: Snakemake would drop what they make as too old."""
    waiting = list(workflow.dag.needrun_jobs())
    made = {str(path) for job in waiting for path in job.output}
    read = sorted({str(path) for job in waiting for path in job.input if not path.is_storage} - made)
    future = processes.dated_in_future(read, ".snakemake")
    if future:
        others = f" and {len(future) - 1} other inputs are" if len(future) > 1 else " is"
        places = " ".join(sorted({"results" if path.startswith("results/") else shlex.quote(path) for path in future}))
        raise WorkflowError(
            f"{future[0]}{others} dated in the future, so a clock is or was wrong, and Snakemake cannot tell old "
            f"results from new ones. When the clock is right, date them now: find {places} -newer "
            ".snakemake/clipspectra-run -exec touch -r .snakemake/clipspectra-run {} +"
        )


if workflow.exec_mode == ExecMode.DEFAULT:  # not that of a job
    sentence = processes.claim(".snakemake")
    if sentence:
        logger.warning(sentence)
if workflow.exec_mode != ExecMode.REMOTE:  # jobs on a cluster outlive the process that submitted them
    processes.end_with_run()
processes.lead_jobs()
