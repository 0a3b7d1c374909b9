"""Downloads of datasets and text pools from a server on 127.0.0.1 that cuts, lies and fails."""

import hashlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from loopback import Fault, LoopbackServer

from clipspectra import InputError
from clipspectra.data.downloads import fetch

CONTENT = np.random.default_rng(0).bytes(1_000_000)
DIGEST = {"sha256": hashlib.sha256(CONTENT).hexdigest()}


@pytest.fixture
def server(monkeypatch):
    """Serves CONTENT as `file`; the waits between tries are left out."""
    monkeypatch.setattr("clipspectra.data.downloads.time.sleep", lambda _: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with LoopbackServer({"file": CONTENT}) as server:
        server.url = f"{server.address}/file"
        yield server


def starts(server):
    """First bytes of the requests for bodies."""
    return [start for request, start in server.requests if request.startswith("GET")]


def files(folder):
    """Names in a folder, without locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


@pytest.mark.parametrize("reset", [False, True])
def test_a_download_that_is_cut_off_resumes(server, tmp_path, reset):
    server.faults = [Fault("GET", cut=500_000, reset=reset), Fault("GET", cut=100_000)]
    fetch(server.url, tmp_path / "file", DIGEST)
    assert (tmp_path / "file").read_bytes() == CONTENT
    first, second, third = starts(server)
    assert first == 0
    assert reset or 400_000 < second < third
    assert files(tmp_path) == ["file"]


def test_a_later_run_resumes_the_same_version_only(server, tmp_path):
    server.faults = [Fault("GET", cut=500_000), *[Fault("GET", cut=0) for _ in range(4)]]
    with pytest.raises(
        InputError, match="cannot be fetched: .*Run again to resume where it stopped, or download it by"
    ):
        fetch(server.url, tmp_path / "file", {})
    server.requests.clear()
    fetch(server.url, tmp_path / "file", {})
    assert starts(server)[0] > 400_000
    server.faults = [Fault("GET", cut=500_000), *[Fault("GET", cut=0) for _ in range(4)]]
    with pytest.raises(InputError):
        fetch(server.url, tmp_path / "other", {})
    server.files["file"] = CONTENT[::-1] + b"longer"
    fetch(server.url, tmp_path / "other", {})
    assert (tmp_path / "other").read_bytes() == CONTENT[::-1] + b"longer"
    assert files(tmp_path) == ["file", "file.sha256", "other", "other.sha256"]


def test_servers_that_give_no_parts(server, tmp_path, monkeypatch):
    for number, answer in enumerate(({}, {"Accept-Ranges": "bytes"})):  # says so; says otherwise and sends everything
        target = tmp_path / str(number)
        server.faults = [Fault("GET", cut=500_000), Fault("GET", whole=True)]
        monkeypatch.setattr(server, "answer", lambda path, headers, answer=answer: (200, answer, CONTENT))
        fetch(server.url, target, DIGEST)
        assert target.read_bytes() == CONTENT
    server.faults = [Fault("HEAD", status=405)]
    fetch(server.url, tmp_path / "no-head", DIGEST)
    server.faults = [Fault(".*", status=302, headers={"Location": server.url}, times=2)]
    fetch(f"{server.address}/elsewhere", tmp_path / "moved", DIGEST)
    assert files(tmp_path) == ["0", "1", "moved", "no-head"]


def test_failures_that_pass_and_those_that_do_not(server, tmp_path):
    server.faults = [Fault(".*", times=4, status=503)]
    fetch(server.url, tmp_path / "file", DIGEST)
    for status, answer in ((503, "503 Service Unavailable"), (404, "404 Not Found"), (403, "403 Forbidden")):
        server.faults = [Fault(".*", times=99, status=status)]
        with pytest.raises(InputError, match=f"/file cannot be fetched: the server answers {answer}.$"):
            fetch(server.url, tmp_path / "absent", DIGEST)
    with pytest.raises(InputError, match=r"127.0.0.1:9/x cannot be fetched: ConnectionError. Run again"):
        fetch("http://127.0.0.1:9/x", tmp_path / "x", {})
    with pytest.raises(InputError, match=r"ftp://127.0.0.1/x is not an address that files can be fetched from"):
        fetch("ftp://127.0.0.1/x", tmp_path / "x", {})


def test_wrong_lengths(server, tmp_path):
    """Fewer or more bytes than announced, where no digest would tell."""
    server.faults = [Fault("GET", change=lambda content: content[:-10])]
    fetch(server.url, tmp_path / "file", {})
    assert (tmp_path / "file").read_bytes() == CONTENT
    server.faults = [Fault("GET", times=9, change=lambda content: content + b"more")]
    with pytest.raises(InputError, match="1000004 bytes came, but the server announces 1000000. Run again"):
        fetch(server.url, tmp_path / "other", {})


def test_a_web_page_is_not_taken_for_the_file(server, tmp_path):
    """Nor does it destroy what had been fetched before."""
    server.faults = [Fault("GET", cut=500_000), *[Fault("GET", cut=0) for _ in range(4)]]
    with pytest.raises(InputError):
        fetch(server.url, tmp_path / "file", {})
    for pattern in (".*", "GET"):
        server.faults = [Fault(pattern, times=9, page=True)]
        with pytest.raises(
            InputError, match="/file gives a web page instead of the file, perhaps the login of a proxy"
        ):
            fetch(server.url, tmp_path / "file", {})
    assert not (tmp_path / "file").exists()
    server.faults.clear()
    server.requests.clear()
    fetch(server.url, tmp_path / "file", {})
    assert starts(server)[0] > 400_000
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_wrong_bytes_are_kept_aside_and_changes_are_refused(server, tmp_path):
    with pytest.raises(InputError, match=r"expected 0{64}. It is kept as .*file.wrong"):
        fetch(server.url, tmp_path / "file", {"sha256": "0" * 64})
    assert files(tmp_path) == ["file.wrong"]
    fetch(server.url, tmp_path / "free", {})
    recorded = (tmp_path / "free.sha256").read_text().strip()
    assert recorded == DIGEST["sha256"]
    (tmp_path / "free").unlink()
    server.files["file"] = CONTENT + b"changed"
    with pytest.raises(InputError, match=rf"expected {recorded}"):
        fetch(server.url, tmp_path / "free", {})
    assert not (tmp_path / "free").exists()


def test_two_at_once_fetch_one_whole_file(server, tmp_path, monkeypatch):
    """An orphan and its rerun: the second waits, and takes what the first one fetched."""
    code = "import sys; from clipspectra.data.downloads import fetch; fetch(sys.argv[1], sys.argv[2], {})"
    answer = server.answer

    def answer_slowly(path, headers):
        time.sleep(1)
        return answer(path, headers)

    server.answer = answer_slowly
    monkeypatch.undo()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", code, server.url, str(tmp_path / "file")]
    runs = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert starts(server) == [0]
    assert files(tmp_path) == ["file", "file.sha256"]
