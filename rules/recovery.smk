# What a killed run left is recognised at the next start, so that running again is all there is to do; no rules here.
from snakemake.logging import logger
from snakemake_interface_executor_plugins.settings import ExecMode

from clipspectra import processes

if workflow.exec_mode == ExecMode.DEFAULT:  # not that of a job
    sentence = processes.claim(".snakemake")
    if sentence:
        logger.warning(sentence)
if workflow.exec_mode != ExecMode.REMOTE:  # jobs on a cluster outlive the process that submitted them
    processes.end_with_run()
processes.lead_jobs()

if workflow.dag_settings:  # what a killed job left is made again, with a profile of the user's own or none too
    workflow.dag_settings.force_incomplete = True
