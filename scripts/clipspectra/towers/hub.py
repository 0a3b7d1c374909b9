"""Files of repositories on the Hugging Face hub: fetched into its cache, taken from there, and checked."""

import hashlib
import re
import time
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from clipspectra import InputError
from clipspectra.towers.checkpoints import short_reason
from clipspectra.towers.model_files import choose_weights, shards_of, weights_in

TRIES = 3
DESCRIPTION = ("*.json", "*.txt", "*.model")  # configs and tokenizers


def fetch_snapshot(repository, revision, cache, subject, patterns=DESCRIPTION):
    """Folder in the cache, of one commit, with a repository's files that match the patterns, fetched if needed.

    revision: commit, branch or tag, None for main; cache: folder, None for the hub's default; subject: what it is for,
    the beginning of sentences. Raises InputError where neither the hub nor the cache has it, and for damaged files.
    """
    options = {"revision": revision, "cache_dir": cache, "allow_patterns": list(patterns)}
    try:
        folder = _fetch(snapshot_download, repository, **options)
    except Exception as error:
        raise fetch_error(subject, revision, error) from error
    for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        check_copy(path)
    return folder


def fetch_file(repository, names, revision, cache, subject):
    """Path in the cache of the first of the named files that a repository has; otherwise as fetch_snapshot."""
    problem = None
    for name in names:
        try:
            options = {"revision": revision, "cache_dir": cache, "local_files_only": problem is not None}
            return _fetch(hf_hub_download, repository, filename=name, **options)
        except LocalEntryNotFoundError as error:  # the hub does not answer: of the others, what the cache has
            problem = problem or error
        except EntryNotFoundError as error:
            absent = error
        except Exception as error:
            raise fetch_error(subject, revision, error) from error
    problem = problem or absent
    raise fetch_error(subject, revision, problem) from problem


def fetch_weights(repository, folder, cache, subject):
    """The weights, or their index, in a folder of fetch_snapshot, fetched if needed from the same commit."""
    commit = folder.name
    try:
        names = HfApi().list_repo_files(repository, revision=commit)
    except Exception as error:
        try:
            return weights_in(folder)
        except InputError:
            raise fetch_error(subject, commit, error) from error
    weights = fetch_file(repository, [choose_weights(names, f"The repository {repository}")], commit, cache, subject)
    if weights.name.endswith(".index.json"):
        for shard in shards_of(weights, must_exist=False):
            fetch_file(repository, [shard.name], commit, cache, subject)
    return weights


def _fetch(function, repository, **options):
    """Path that a function of huggingface_hub gives, which resumes most downloads that are cut off, but not all.

    Where an answer is not the hub's, it does not look into the cache itself.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return Path(function(repository, **options))
        except (EntryNotFoundError, HfHubHTTPError):
            raise
        except Exception as error:
            problem = error
        time.sleep(2**attempt / 10)
    try:
        return Path(function(repository, **options | {"local_files_only": True}))
    except EntryNotFoundError:
        raise problem from None


def check_copy(path, sha256=None):
    """Raise InputError if a file of the hub's cache, named there by its digest, has other content.

    sha256: of the file, if known. huggingface_hub itself compares lengths alone. Other files are not checked.
    """
    blob = Path(path).resolve()
    if blob.parent.name != "blobs" or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
        return
    if len(blob.name) == 40:  # of git, for small files
        content = blob.read_bytes()
        digest = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    elif sha256 is None:
        with open(blob, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    else:
        digest = sha256
    if digest != blob.name:
        raise InputError(
            f"{Path(path).name} was damaged on its way from the hub, or later: its digest is {digest}, the hub's "
            f"{blob.name}. Remove {blob}, and run again to fetch it anew."
        )


def fetch_error(subject, revision, error):
    """The InputError that says why something could not be fetched."""
    at_revision = f" at revision {revision}" if revision else ""
    return InputError(f"{subject}{at_revision} cannot be fetched, and the cache lacks a copy: {_reason(error)}")


def _reason(error):
    """Why the hub did not give a file, in plain words."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # of the request, where the cache was the last resort
    if isinstance(error, GatedRepoError):
        return "its repository is gated; accept its terms on its page, and set HF_TOKEN or run hf auth login."
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        return "the hub has no such repository, or it is private; check the name, or set HF_TOKEN."
    if isinstance(error, RevisionNotFoundError):
        return "its repository has no such revision."
    if isinstance(error, HfHubHTTPError) and not isinstance(error, EntryNotFoundError):
        return f"the hub answers {status} {error.response.reason_phrase}."
    if constants.HF_HUB_OFFLINE or isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; run once without it."
    if isinstance(error, FileMetadataError | ValueError):
        return (
            f"the answer is not one of a hub, perhaps the page of a proxy or a login; check the proxy, and "
            f"{constants.ENDPOINT} in a browser."
        )
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return "what came has another length than the hub promised; run again."
    return short_reason(error, 200)
