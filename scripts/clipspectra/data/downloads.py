"""Downloads that resume where they stopped, and digests that are checked before a file is used."""

import time
from pathlib import Path

import pooch
import requests

from clipspectra import InputError

TRIES = 5


def check_digest(path, expected, advice="Fetch it again, or change the digest in the config."):
    """Raise InputError, with both digests, unless the file's md5 or sha256 is the one expected: {"md5": hex, …}."""
    for kind, digest in expected.items():
        actual = pooch.file_hash(str(path), alg=kind)
        if actual != digest:
            raise InputError(f"{path} is damaged or another file: its {kind} is {actual}, expected {digest}. {advice}")


def fetch(url, target, expected):
    """Download a file whole to `target`, with a bar; a download that was cut off resumes where it stopped.

    expected: {"md5": hex} or {"sha256": hex}; {} where none is published: then the first download's sha256 is written
    beside the file, and a later download that differs is refused. A file with another digest is kept as target.wrong.
    """
    target = Path(target)
    part, recorded = target.with_name(f".part-{target.name}"), target.with_name(f"{target.name}.sha256")
    if not expected and recorded.exists():
        expected = {"sha256": recorded.read_text().strip()}
    for attempt in range(1, TRIES + 1):
        try:
            _resume(url, part)
            break
        except requests.HTTPError as error:
            status = error.response.status_code
            if status < 500 or attempt == TRIES:
                raise InputError(
                    f"{url} cannot be fetched: the server answers {status} {error.response.reason}."
                ) from error
        except requests.RequestException as error:
            if attempt == TRIES:
                raise InputError(
                    f"{url} cannot be fetched: {type(error).__name__}. Run again to resume where it stopped, or "
                    "download it by hand and set the file as 'path' in the config."
                ) from error
        time.sleep(2**attempt / 10)
    wrong = target.with_name(f"{target.name}.wrong")
    try:
        check_digest(part, expected, advice=f"It is kept as {wrong}.")
    except InputError:
        part.replace(wrong)
        raise
    if not expected:
        recorded.write_text(pooch.file_hash(str(part), alg="sha256") + "\n")
    part.replace(target)


def _resume(url, part):
    """Fetch the missing rest of a file, or all of it where the server does not support ranges."""
    plain = {"Accept-Encoding": "identity"}
    response = requests.head(url, headers=plain, timeout=30, allow_redirects=True)
    length = int(response.headers.get("Content-Length", -1)) if response.ok else -1
    resumes = response.ok and response.headers.get("Accept-Ranges") == "bytes"
    with open(part, "ab") as file:
        if not resumes or file.tell() > length:
            file.seek(0)
            file.truncate()
        if file.tell() == length:
            return
        headers = plain | ({"Range": f"bytes={file.tell()}-"} if file.tell() else {})
        pooch.HTTPDownloader(progressbar=True, headers=headers)(url, file, None)
