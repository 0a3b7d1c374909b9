"""Downloads that resume where they stopped, and digests that are checked before a file is used."""

import hashlib
import re
import time
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

from clipspectra import InputError
from clipspectra.data.store import locked

TRIES = 5
PASSING = (408, 429, 500, 502, 503, 504)  # answers of a server that may do better in a moment
HEADERS = {"Accept-Encoding": "identity"}
BY_HAND = "download it by hand and name the file in the config"


class _Passing(Exception):
    """A failure that may be over at the next try."""


def check_digest(path, expected, advice="Fetch it again, or change the digest in the config."):
    """Raise InputError, with both digests, unless the file's md5 or sha256 is the one expected: {"md5": hex, …}."""
    for kind, digest in expected.items():
        actual = pooch.file_hash(str(path), alg=kind)
        if actual != digest:
            raise InputError(f"{path} is damaged or another file: its {kind} is {actual}, expected {digest}. {advice}")


def fetch(url, target, expected, log=print):
    """Download a file whole to `target`, with a bar; a download that was cut off resumes where it stopped.

    expected: {"md5": hex} or {"sha256": hex}; {} where none is published: then the first download's sha256 is written
    beside the file, and a later download that differs is refused. A file with another digest is kept as target.wrong.
    A second process that fetches the same file waits, and takes what the first one fetched. Raises InputError where
    the file cannot be fetched.
    """
    target = Path(target)
    recorded = target.with_name(f"{target.name}.sha256")
    had_target = target.exists()
    with locked(target, log):
        if not expected and recorded.exists():
            expected = {"sha256": recorded.read_text().strip()}
        if target.exists() and not had_target and expected:
            return check_digest(target, expected)
        part = _fetch_part(url, target)
        wrong = target.with_name(f"{target.name}.wrong")
        try:
            check_digest(part, expected, advice=f"It is kept as {wrong}.")
        except InputError:
            part.replace(wrong)
            raise
        if not expected:
            recorded.write_text(pooch.file_hash(str(part), alg="sha256") + "\n")
        part.replace(target)
        for other in target.parent.glob(f".part-*-{target.name}"):  # of what the address gave before
            if re.fullmatch("[0-9a-f]{8}", other.name[6:14]) and other.name[15:] == target.name:
                other.unlink()


def _fetch_part(url, target):
    """Path of the whole file beside `target`, after several tries if need be."""
    for attempt in range(1, TRIES + 1):
        try:
            return _resume(url, target)
        except (_Passing, requests.RequestException) as error:
            if isinstance(error, requests.HTTPError):
                answer = f"{error.response.status_code} {error.response.reason}"
                if error.response.status_code not in PASSING or attempt == TRIES:
                    raise InputError(f"{url} cannot be fetched: the server answers {answer}.") from error
            elif isinstance(error, ValueError):
                raise InputError(f"{url} is not an address that files can be fetched from: {error}.") from error
            elif attempt == TRIES:
                reason = str(error) if isinstance(error, _Passing) else type(error).__name__
                raise InputError(
                    f"{url} cannot be fetched: {reason}. Run again to resume where it stopped, or {BY_HAND}."
                ) from error
        time.sleep(2**attempt / 10)


def _resume(url, target):
    """Fetch the missing rest of a file, or all of it where the server does not give parts; the path of the whole.

    The part's name has a digest of what the server says about the file, so that no two versions are mixed. Bytes are
    written at their own place: a second writer, where the file system has no locks, writes the same.
    """
    about = requests.head(url, headers=HEADERS, timeout=30, allow_redirects=True)
    if about.status_code in PASSING:
        about.raise_for_status()
    version = [about.headers.get(name, "") for name in ("ETag", "Last-Modified", "Content-Length")]
    version = hashlib.sha256("\n".join(version if about.ok else []).encode()).hexdigest()[:8]
    part = target.with_name(f".part-{version}-{target.name}")
    length = int(about.headers.get("Content-Length", -1)) if about.ok else -1
    part.touch()
    start = part.stat().st_size
    if not about.ok or about.headers.get("Accept-Ranges") != "bytes" or start > length:
        start = 0
    if start == length:
        return part
    headers = HEADERS | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, timeout=30, stream=True) as response, open(part, "r+b") as file:
        response.raise_for_status()
        if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            start = 0  # the whole file, although a part was asked for
        file.seek(start)
        chunks = response.iter_content(2**16)
        with tqdm(desc=target.name, total=max(length, 0) or None, initial=start, unit="B", unit_scale=True) as bar:
            for chunk in chunks:
                if file.tell() == 0:
                    _refuse_page(url, chunk)
                file.write(chunk)
                bar.update(len(chunk))
        file.truncate()
        fetched = file.tell()
    if length >= 0 and fetched != length and "Content-Encoding" not in response.headers:
        part.unlink()
        raise _Passing(f"{fetched} bytes came, but the server announces {length}")
    return part


def _refuse_page(url, beginning):
    """Raise InputError if a file begins as a web page does, before anything is written."""
    if re.match(rb"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html)", beginning[:1000], re.IGNORECASE | re.DOTALL):
        raise InputError(
            f"{url} gives a web page instead of the file, perhaps the login of a proxy, or a notice that the file has "
            f"moved. Open it in a browser, or {BY_HAND}."
        )
