# Results in a bucket of S3-compatible storage (docs/storage.md): whether it is there, and ours, before anything runs.
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


if workflow.is_main_process and workflow.storage_settings.default_storage_provider == "s3":
    check_bucket(workflow.storage_registry.default_storage_provider, workflow.storage_settings.default_storage_prefix)
