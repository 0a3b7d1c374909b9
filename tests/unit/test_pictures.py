"""Pictures and masks as cameras and programs write them, and batches of them in containers."""

import os
import resource
import signal
import subprocess
import sys
import tarfile
import time
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, PngImagePlugin
from torchvision import transforms

from clipspectra import InputError
from clipspectra.data.datasets import with_digests
from clipspectra.data.pictures import TURNS, BadPicture, ImageFiles, batches, open_rgb, upright_mask
from clipspectra.data.store import picture_ids
from clipspectra.data.tars import TarIndex, members

ROOT = Path(__file__).parents[2]
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
NORMALIZE = transforms.Normalize((0.4,) * 3, (0.3,) * 3)
PREPROCESS = transforms.Compose([transforms.Resize(16), transforms.CenterCrop(16), transforms.ToTensor(), NORMALIZE])


def chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png_with(path, *chunks):
    """Write a valid PNG with extra chunks after its header."""
    Image.fromarray(PIXELS).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:33] + b"".join(chunks) + whole[33:])


def test_good_pixels_with_bad_metadata_are_read(tmp_path):
    long = zlib.compress(b"a very long prompt " * 150_000)
    for name, data in {
        "text": chunk(b"zTXt", b"parameters\0\0" + long),
        "profile": chunk(b"iCCP", b"icc\0\0" + long),
        "exif": chunk(b"eXIf", b"this is no TIFF"),
        "cut exif": chunk(b"eXIf", b"II*\0\x08\0\0\0\x05\0\x12\x01"),
    }.items():
        png_with(tmp_path / "a.png", data)
        np.testing.assert_array_equal(open_rgb(tmp_path / "a.png"), PIXELS, err_msg=name)


def bad_pictures(folder):
    """Write pictures that Pillow fails on, each for another reason; returns their sorted names."""
    Image.fromarray(PIXELS).save(folder / "cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:-3000])
    (folder / "size.ppm").write_bytes(b"P6 ten 10 255\n")
    (folder / "maxval.ppm").write_bytes(b"P6 10 10 99999\n")
    (folder / "none.jpg").write_bytes(b"not a picture")
    (folder / "empty.gif").write_bytes(b"")
    header = np.array([20_000, 20_000], ">u4").tobytes() + b"\x08\0\0\0\0"
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""))
    header = np.array([10_000, 10_000], ">u4").tobytes() + b"\x08\0\0\0\0"  # large enough for a warning only
    (folder / "warning.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""))
    Image.fromarray(np.full((4, 4), 200, np.int32)).save(folder / "integers.tif")
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("workers", [0, 2])
def test_whatever_pillow_raises_is_a_bad_picture(workers, tmp_path):
    bad = bad_pictures(tmp_path)
    for name in bad:
        with pytest.raises(BadPicture, match=name):
            open_rgb(tmp_path / name)
    Image.fromarray(PIXELS).save(tmp_path / "good.png")
    table, skipped = pd.DataFrame({"image": [*bad, "good.png"]}), []
    files = ImageFiles(table, tmp_path, PREPROCESS)
    read = [rows for rows, _ in batches(files, 3, workers=workers, on_bad_image="skip", skipped=skipped)]
    assert read == [[len(bad)]]
    assert sorted(row["image"] for row in skipped) == list(range(len(bad)))
    assert all(row["reason"] for row in skipped)
    with pytest.raises(BadPicture, match=bad[0]):
        list(batches(files, 3, workers=workers))


@pytest.mark.parametrize("in_tar", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_changed_since_it_was_chosen_is_refused(workers, in_tar, tmp_path):
    """Of the same size and date, in a file of its own or in a tar, and not skipped, as one that cannot be read is."""
    names, changed = ["a.bmp", "b.bmp", "bad.bmp"], tmp_path / ("t.tar" if in_tar else "b.bmp")
    Image.fromarray(255 - PIXELS).save(tmp_path / "a.bmp")
    Image.fromarray(PIXELS).save(tmp_path / "b.bmp")
    (tmp_path / "bad.bmp").write_bytes(b"no picture")
    content = (tmp_path / "b.bmp").read_bytes()
    if in_tar:
        with tarfile.open(changed, "w") as tar:
            for name in names:
                tar.add(tmp_path / name, name)
        index = TarIndex()
        for member, _ in members(changed):
            if member is not None:
                index.add(member)
        index.save(tmp_path / "tars" / "t.tar.safetensors", changed)
        names = [f"tars/t.tar/{name}" for name in names]
    table, skipped = with_digests(pd.DataFrame({"image": names}), tmp_path), []
    files = ImageFiles(table, tmp_path, PREPROCESS, ids=picture_ids(table["image_sha256"]))
    options = {"workers": workers, "on_bad_image": "skip", "skipped": skipped}
    assert [rows for rows, _ in batches(files, 3, **options)] == [[0, 1]]
    assert [row["image"] for row in skipped] == [2]
    times = os.stat(changed)
    changed.write_bytes(changed.read_bytes().replace(content, content[:-1] + bytes([content[-1] ^ 1])))
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(InputError, match=r"b\.bmp has changed since the images were chosen\. Run again") as error:
        list(batches(files, 3, **options))
    assert not isinstance(error.value, BadPicture)


def turned(pixels, orientation):
    """Pixels stored so that a viewer that heeds the orientation shows the given ones."""
    inverse = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}.get(orientation, TURNS[orientation])
    return Image.fromarray(pixels).transpose(inverse)


def oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("shape", [(40, 60), (48, 48)])
def test_masks_follow_their_pictures(orientation, shape, tmp_path):
    pixels = np.resize(PIXELS, (*shape, 3))
    mask = (np.random.default_rng(1).random(shape) > 0.5).astype(np.uint8)
    picture, path = tmp_path / "a.png", tmp_path / "mask.png"
    turned(pixels, orientation).save(picture, exif=oriented(orientation))
    np.testing.assert_array_equal(open_rgb(picture), pixels)
    size = shape[::-1]
    turned(mask, orientation).save(path, exif=oriented(orientation))  # as shown, like its picture
    np.testing.assert_array_equal(upright_mask(path, picture, size), mask)
    size_decides = orientation > 4 and shape[0] != shape[1]
    for mask_pixels, stored in (("stored", turned(mask, orientation)), ("shown", Image.fromarray(mask))):
        stored.save(path)
        np.testing.assert_array_equal(upright_mask(path, picture, size, mask_pixels), mask)
        if size_decides:
            np.testing.assert_array_equal(upright_mask(path, picture, size), mask)
        else:
            with pytest.raises(InputError, match=f"orientation {orientation}.*set mask_pixels of the dataset to"):
                upright_mask(path, picture, size)
    Image.fromarray(mask[:, :-4]).save(path)
    with pytest.raises(InputError, match=f"turned by EXIF .orientation {orientation}.; they must have the same size"):
        upright_mask(path, picture, size)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_turned_tiffs_are_not_scrambled(mode, compression, tmp_path):
    """Pillow maps uncompressed TIFFs into memory, and turns a TIFF when it loads it."""
    pixels = np.arange(8 * 12, dtype=np.uint16 if mode == "I;16" else np.uint8).reshape(8, 12) * 2
    picture = Image.fromarray(pixels) if mode in ("L", "I;16") else Image.fromarray(pixels).convert(mode)
    picture.save(tmp_path / "plain.png")
    picture.save(tmp_path / "a.tif", exif=oriented(6), compression=compression)
    expected = np.rot90(np.array(open_rgb(tmp_path / "plain.png")), -1)
    np.testing.assert_array_equal(open_rgb(tmp_path / "a.tif"), expected)
    mask = (pixels % 3 == 0).astype(np.uint8)
    for orientation in (3, 6):
        picture.save(tmp_path / "a.tif", exif=oriented(orientation), compression=compression)
        Image.fromarray(mask).save(tmp_path / "m.tif", exif=oriented(orientation), compression=compression)
        size = open_rgb(tmp_path / "a.tif").size
        shown = np.rot90(mask, 2 if orientation == 3 else -1)
        np.testing.assert_array_equal(upright_mask(tmp_path / "m.tif", tmp_path / "a.tif", size), shown)


def test_tiffs_whose_white_is_0_are_inverted(tmp_path):
    values = np.arange(96).reshape(8, 12).astype(np.uint16) * 600
    Image.fromarray(65535 - values).save(tmp_path / "a.tif", tiffinfo={262: 0})
    Image.fromarray(values).save(tmp_path / "plain.png")
    difference = np.array(open_rgb(tmp_path / "a.tif")).astype(int) - np.array(open_rgb(tmp_path / "plain.png"))
    assert np.abs(difference).max() <= 1


def starved(picture):
    raise MemoryError


def test_a_picture_that_needs_too_much_memory_is_a_bad_one(many):
    table, root = many
    skipped = []
    files = ImageFiles(table[:2], root, starved)
    assert list(batches(files, 2, workers=0, on_bad_image="skip", skipped=skipped)) == []
    assert skipped[0]["reason"] == "it needs more memory than there is"


@pytest.fixture
def many(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    return pd.DataFrame({"image": ["a.png"] * 1100, "mask": ""}), tmp_path


def test_workers_give_what_one_process_gives(many):
    table, root = many
    files = ImageFiles(table[:10], root, PREPROCESS)
    (rows, (images,)), *rest = batches(files, 10, workers=2)
    assert rows == list(range(10))
    assert rest == []
    assert (images == files[0][1][0]).all()


def test_few_open_files_are_enough(many):
    table, root = many
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        files = ImageFiles(table, root, PREPROCESS)
        rows = [row for batch, _ in batches(files, 512, workers=3, patience=60) for row in batch]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert rows == list(range(len(table)))


def test_little_shared_memory_is_enough(many):
    """64 KB, where Docker gives 64 MB: batches do not use it."""
    _, root = many
    code = (
        "import sys, pandas as pd; from pathlib import Path; from torchvision import transforms as t\n"
        "from clipspectra.data.pictures import ImageFiles, batches\n"
        f"files = ImageFiles(pd.DataFrame({{'image': ['a.png'] * 300}}), Path({str(root)!r}), "
        "t.Compose([t.Resize(64), t.CenterCrop(64), t.ToTensor()]))\n"
        "print(sum(len(rows) for rows, _ in batches(files, 100, workers=2, patience=60)))"
    )
    mounted = f'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec {sys.executable} -W ignore -c "$CODE"'
    environment = os.environ | {"CODE": code, "PYTHONPATH": str(ROOT / "scripts")}
    command = ["unshare", "-m" if os.getuid() == 0 else "-rm", "bash", "-c", mounted]  # -r: root for the mount
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    if "unshare" in result.stderr or "mount" in result.stderr:
        pytest.skip("mounting is not allowed here")
    assert result.stdout.strip() == "300", result.stderr


def slow(picture):
    time.sleep(60)


def test_a_disk_that_does_not_answer_is_reported(many):
    table, root = many
    with pytest.raises(InputError, match="No pictures arrived for 1 seconds: the disk"):
        list(batches(ImageFiles(table, root, slow), 4, workers=1, patience=1))


def suicide(picture):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_reported(many):
    table, root = many
    with pytest.raises(InputError, match="was killed, most likely for lack of memory"):
        list(batches(ImageFiles(table, root, suicide), 4, workers=1))


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_no_worker_outlives_its_parent(many, tmp_path):
    """The parent is killed while its workers wait to send a batch."""
    _, root = many
    code = (
        "import os, time, pandas as pd; from pathlib import Path; from torchvision import transforms as t\n"
        "from clipspectra.data.pictures import ImageFiles, batches\n"
        f"files = ImageFiles(pd.DataFrame({{'image': ['a.png'] * 900}}), Path({str(root)!r}), t.ToTensor())\n"
        "for _ in batches(files, 100, workers=2): print('batch', flush=True); time.sleep(600)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, env=environment)
    assert process.stdout.readline() == b"batch\n"
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(workers) >= 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(map(alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_long_texts_in_pictures_have_a_bound():
    assert 2**22 < PngImagePlugin.MAX_TEXT_CHUNK < 2**28
