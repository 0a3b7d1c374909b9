"""Results in a bucket: Snakemake's S3 plugin against moto on 127.0.0.1, whose connections are cut in the middle.

`make test-s3` installs both where only it looks; elsewhere these tests are skipped.
"""

import importlib.util
import io
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import suppress

import pytest

ABSENT = [name for name in ("snakemake_storage_plugin_s3", "moto") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(ABSENT), reason=f"{', '.join(ABSENT)} not installed; run make test-s3")

TABLES = ["accuracy", "texts", "segmentation", "shared-images"]
TARGETS = [f"results/tables/{name}.csv" for name in TABLES]
PROFILE = ("--workflow-profile", "profiles/s3", "--default-storage-prefix")


class Cutter:
    """Passes connections on to a port of this machine; resets those of `cuts` after so many bytes were sent there.

    In a `with` block; cut: how many were reset
    """

    def __init__(self, target, cuts):
        self.target, self.cuts, self.cut = target, list(cuts), 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.socket.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self.socket.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(*ends, ends[0] is client), daemon=True).start()

    def _pass_on(self, source, sink, upwards):
        passed = 0
        with suppress(OSError):
            while data := source.recv(2**14):
                passed += len(data)
                if upwards and self.cuts and passed > self.cuts[0]:
                    self.cuts.pop(0)
                    self.cut += 1
                    source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    source.close()
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Port of moto's server, stopped at the end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = open(tmp_path_factory.mktemp("moto") / "log", "w")  # noqa: SIM115
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    for _ in range(300):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.1)
    yield port
    process.terminate()
    process.wait()
    log.close()


@pytest.fixture
def bucket(server, monkeypatch):
    """The client of a new bucket "studies", which snakemake is told of as the docs say."""
    import boto3

    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{server}", **keys)
    client.create_bucket(Bucket="studies")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SNAKEMAKE_STORAGE_S3_ACCESS_KEY", "key")
    monkeypatch.setenv("SNAKEMAKE_STORAGE_S3_SECRET_KEY", "secret")
    point_to(server, monkeypatch)
    return client


def point_to(port, monkeypatch):
    monkeypatch.setenv("SNAKEMAKE_STORAGE_S3_ENDPOINT_URL", f"http://127.0.0.1:{port}")


def content(client, key):
    return client.get_object(Bucket="studies", Key=key)["Body"].read()


def objects(client):
    """{key: time of its last change} of all objects."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="studies")
    return {found["Key"]: found["LastModified"] for page in pages for found in page.get("Contents", [])}


def test_tables_in_a_bucket_are_those_of_a_local_run(clone, bucket, server, tmp_path, monkeypatch):
    """Although connections are cut in the middle, and a seed is added; and another folder goes on from the bucket."""
    clone.configure(seeds=[0])
    result = clone.snakemake(*PROFILE, "s3://studies/one", "--dry-run", *TARGETS)
    assert result.returncode == 0, result.stdout
    with Cutter(server, cuts=[100_000] * 3 + [20_000] * 3) as cutter:
        point_to(cutter.port, monkeypatch)
        result = clone.snakemake(*PROFILE, "s3://studies/one", *TARGETS)
        assert result.returncode == 0, result.stdout
        assert cutter.cut == 6
    point_to(server, monkeypatch)
    before = objects(bucket)
    shutil.rmtree(clone.directory / ".snakemake" / "storage")
    clone.configure(seeds=[0, 1])
    result = clone.snakemake(*PROFILE, "s3://studies/one", *TARGETS)
    assert result.returncode == 0, result.stdout
    after = objects(bucket)
    assert before.keys() < after.keys()
    kept = ("one/results/data/digits/seed-0/", "one/results/text/", "one/results/activations/demo/basis.")
    assert len([key for key in before if key.startswith(kept) and after[key] == before[key]]) == 5
    extracted = content(bucket, "one/results/logs/activations/demo/digits/shard-0-of-1.log").decode()
    assert re.match(r"(\d+) images extracted, of (?!\1 )\d+ that the seeds use", extracted), extracted
    clone.directory, remote = shutil.copytree(clone.directory, tmp_path / "local", symlinks=True), clone.directory
    shutil.rmtree(clone.directory / ".snakemake")
    shutil.rmtree(clone.directory / "results")
    result = clone.snakemake(*TARGETS)
    assert result.returncode == 0, result.stdout
    for target in TARGETS:
        assert content(bucket, f"one/{target}") == (clone.directory / target).read_bytes(), target
    assert not (remote / "results" / "tables").exists()
    shutil.rmtree(remote / ".snakemake" / "storage")
    clone.directory = remote
    result = clone.snakemake(*PROFILE, "s3://studies/one", *TARGETS)
    assert "Nothing to be done" in result.stdout, result.stdout


def test_report_paper_and_archive_in_a_bucket(clone, bucket):
    """They name results as those of a local run do, not as copies of a bucket."""
    names = ("queries", "neighbours", "spatial", "interventions")
    clone.configure(seeds=[0], evaluation={"methods": ["components"], "budgets": [0]}, **{name: {} for name in names})
    prefix = "s3://studies/two"
    result = clone.snakemake(*PROFILE, prefix, "report", "archive")
    assert result.returncode == 0, result.stdout
    assert f"Done. The results are in {prefix}." in result.stdout
    report, archive = (
        zipfile.ZipFile(io.BytesIO(content(bucket, f"two/results/{name}.zip"))) for name in ("report", "archive")
    )
    page = report.read("report/report.html").decode()
    shown = {path for path in objects(bucket) if f'"{path.removeprefix("two/")}":' in page}
    assert {"two/results/paper.pdf", "two/results/tables/accuracy.csv"} < shown
    assert not [place for place in (".snakemake", str(clone.directory)) if place in page]
    assert archive.read("paper.pdf") == content(bucket, "two/results/paper.pdf")
    assert {"tables/accuracy.csv", "tables/accuracy.tex", "study.json"} < set(archive.namelist())
    result = clone.snakemake(*PROFILE, prefix, "--dry-run", "results/notebooks/look.png")
    assert "Notebooks open results by their names, so they are not made where results are in a bucket" in result.stdout


def test_a_bucket_that_is_not_there_or_not_yours(clone, bucket, tmp_path, monkeypatch):
    def sentence():
        output = clone.snakemake(*PROFILE, "s3://nobodys/one", "--dry-run", TARGETS[0]).stdout
        return re.search(r"^The bucket nobodys .*$", output, re.MULTILINE)[0]

    assert sentence() == "The bucket nobodys is not there; create it, or change default-storage-prefix."
    point_to(9, monkeypatch)
    assert sentence().startswith("The bucket nobodys cannot be reached: Could not connect to the endpoint")
    from loopback import Fault, LoopbackServer

    with LoopbackServer() as other:  # moto gives every bucket to everybody
        other.faults = [Fault(".*", times=99, status=403)]
        point_to(other.port, monkeypatch)
        assert sentence().startswith("The bucket nobodys is not yours: access is denied; check the access key and")
    assert "nobodys" not in [found["Name"] for found in bucket.list_buckets()["Buckets"]]
