"""Time and memory of datasets in tar files: listing tars of three sizes, and opening pictures in them.

`PYTHONPATH=scripts python tools/benchmark_tars.py`; the numbers stand in docs/speed.md.
"""

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import numpy as np
from PIL import Image

from clipspectra.data.tar_names import Tar
from clipspectra.data.tars import opened
from clipspectra.data.webdataset import list_tar

SIZES = (1_000, 10_000, 100_000)
READ = 10_000  # pictures that are opened


def write_tar(path, count):
    """A tar of samples with picture, text, metadata and class, all alike."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(file, "JPEG")
    contents = {"jpg": file.getvalue(), "txt": b"a caption", "json": b'{"status": "success"}', "cls": b"1"}
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            for ending, content in contents.items():
                member = tarfile.TarInfo(f"{number:09}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            tar.members.clear()


def list_one(path):
    """Print what listing a tar takes, in a process of its own."""
    start = time.process_time()
    listing = list_tar(Tar(path.name, str(path), "all"), path.parent / "tars", {"columns": {}}, None, {})
    seconds, memory = time.process_time() - start, getrusage(RUSAGE_SELF).ru_maxrss / 1024
    each = f"{seconds / listing.images * 1e6:.0f} µs of CPU a sample"
    print(
        f"listing {listing.images:,} samples, {path.stat().st_size >> 20} MB: {each}, peak {memory:.0f} MiB", flush=True
    )


def forget(paths):
    """Drop files from the system's memory, as far as it lets us."""
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def time_reading(what, paths, sources):
    """Print the time to open and read files, in memory and from the disk."""
    for cold in (False, True):
        if cold:
            forget(sources)
        wall, cpu = time.perf_counter(), time.process_time()
        for path in paths:
            with opened(path) as file:
                file.read()
        wall, cpu = (
            1e6 * (now - then) / len(paths) for now, then in ((time.perf_counter(), wall), (time.process_time(), cpu))
        )
        print(f"{what}, {'from the disk' if cold else 'in memory'}: {cpu:.0f} µs of CPU, {wall:.0f} µs in all")


if __name__ == "__main__":
    if sys.argv[1:]:
        list_one(Path(sys.argv[1]))
        sys.exit()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        folder = Path(folder)
        for count in SIZES:
            write_tar(folder / f"{count}.tar", count)
            subprocess.run([sys.executable, __file__, folder / f"{count}.tar"], check=True)
        tar, files = folder / f"{READ}.tar", folder / "files"
        in_tar = [folder / "tars" / tar.name / f"{number:09}.jpg" for number in range(READ)]
        files.mkdir()
        for path in in_tar:
            with opened(path) as file:
                (files / path.name).write_bytes(file.read())
        alone = [files / path.name for path in in_tar]
        shuffled = np.random.default_rng(0).permutation(READ)
        time_reading("files of their own", alone, alone)
        time_reading("pictures in a tar", in_tar, [tar])
        time_reading("every eighth picture in a tar", in_tar[::8], [tar])
        time_reading("pictures in a tar, shuffled", [in_tar[number] for number in shuffled], [tar])
