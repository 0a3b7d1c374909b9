# Results in a bucket of S3-compatible storage, see docs/storage.md; no rules here.
from snakemake.io import is_flagged


def check_bucket(provider, prefix):
    """Raise WorkflowError unless the bucket of an address s3://bucket/folder answers. Snakemake's plugin would create it."""
    bucket = prefix.removeprefix("s3://").split("/")[0]
    try:
        provider.s3c.meta.client.head_bucket(Bucket=bucket)
    except Exception as error:
        status = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
        reason = {
            404: "is not there; create it, or change default-storage-prefix",
            403: "is not yours: access is denied; check the access key and the secret key, and default-storage-prefix",
        }.get(status, f"cannot be reached: {' '.join(str(error).split())}")
        raise WorkflowError(f"The bucket {bucket} {reason}.") from None


# Before anything runs, and once.
if workflow.is_main_process and workflow.storage_settings.default_storage_provider == "s3":
    check_bucket(workflow.storage_registry.default_storage_provider, workflow.storage_settings.default_storage_prefix)


def fetch_extended():
    """Fetch what waiting jobs extend, where it is in the bucket alone: Snakemake would look for this machine's copy."""
    for job in list(workflow.dag.needrun_jobs()):
        for path in job.output:
            if path.is_storage and is_flagged(path, "update") and workflow.async_run(path.exists()):
                workflow.async_run(path.retrieve_from_storage())


def storage_options():
    """The options of this run that say where results are, for another snakemake; it leaves this one's copies there."""
    if not workflow.storage_settings.default_storage_provider:
        return []
    factory = workflow.spawned_job_args_factory
    options = [factory.get_default_storage_provider_args(), *factory.get_storage_provider_args()]
    options.append(factory.workflow_property_to_arg("storage_settings.local_storage_prefix"))
    return ["--keep-storage-local-copies", *shlex.split(" ".join(options))]


def check_opened_by_name():
    """Raise WorkflowError where results are in a bucket: notebooks open them by their names."""
    if workflow.storage_settings.default_storage_provider:
        raise WorkflowError(
            "Notebooks open results by their names, so they are not made where results are in a bucket: fetch a copy of "
            "the results, and make them without the storage's profile (docs/storage.md)."
        )
