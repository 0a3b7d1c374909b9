"""Published archives, and archives that are not to be trusted."""

import errno
import hashlib
import os
import pickle
import tarfile

import archives_small
import h5py
import numpy as np
import pandas as pd
import pytest
from archives_small import COLOURS, SYNSETS, add
from PIL import Image

from clipspectra import InputError
from clipspectra.arrays import save_table
from clipspectra.data.archives import cifar, imagenet, imagenet_segmentation, pascal_voc, waterbirds
from clipspectra.data.choosing import choose_rows
from clipspectra.data.datasets import read_manifest
from clipspectra.data.downloads import check_digest
from clipspectra.data.pictures import BadPicture, open_mask, open_rgb
from clipspectra.jobs import job


def written(table, tmp_path):
    """The manifest as read back from disk; checks that every file is there."""
    save_table(tmp_path / "manifest.csv", table)
    read = read_manifest(tmp_path / "manifest.csv")
    assert all((tmp_path / name).is_file() for column in ("image", "mask") for name in read[column] if name)
    return read


def test_imagenet_labels_are_right(tmp_path):
    """A classifier by colour is always right, but not with the devkit's ids as labels."""
    pictures, kit, ids = archives_small.imagenet(tmp_path)
    table = written(imagenet({"images": pictures, "devkit": kit}, tmp_path / "images"), tmp_path)
    assert table["image"].tolist() == sorted(table["image"])
    assert sorted(table["class"].unique()) == ["n01", "n02", "n03", "n04"]
    colours = np.array([COLOURS[name] for name in sorted(COLOURS)])  # the classifier's order: sorted wnids

    def predicted(name):
        mean = np.array(Image.open(tmp_path / name)).mean((0, 1))
        return ((colours - mean) ** 2).sum(1).argmin()

    predictions = np.array([predicted(name) for name in table["image"]])
    assert (predictions == table["label"]).all()
    assert (predictions == ids - 1).mean() < 0.5
    assert [SYNSETS[number] for number in ids] == table["class"].tolist()


def test_a_devkit_that_does_not_fit_is_named(tmp_path):
    pictures, kit, _ = archives_small.imagenet(tmp_path)
    (tmp_path / "more").mkdir()
    more, _, _ = archives_small.imagenet(tmp_path / "more", count=50)
    with pytest.raises(InputError, match=r"devkit.tar.gz does not fit .*val.tar: it has 48 labels .* for 50 pictures"):
        imagenet({"images": more, "devkit": kit}, tmp_path / "images")
    with pytest.raises(InputError, match=r"val.tar is not the devkit of ILSVRC2012: it lacks"):
        imagenet({"images": pictures, "devkit": pictures}, tmp_path / "other")


def test_imagenet_segmentation(tmp_path):
    path = archives_small.segmentation(tmp_path)
    table = written(imagenet_segmentation({"archive": path}, tmp_path / "images"), tmp_path)
    assert (len(table), set(table["class"]), set(table["label"])) == (6, {""}, {0})
    picture, mask = (np.array(Image.open(tmp_path / table[column][2])) for column in ("image", "mask"))
    assert picture.shape == (54, 66, 3)
    assert mask.shape == (54, 66)
    assert mask[10:30, 15:40].all()
    assert mask.sum() == 20 * 25
    assert picture[mask == 1].min() >= 120
    assert np.array(open_mask(tmp_path / table["mask"][2])).max() == 1
    with h5py.File(path, "r+") as file:
        file["#refs#/mask3"][0, 0] = 7
    with pytest.raises(InputError, match=r"Picture 3 of .*gtsegs_ijcv.mat .* values \[0, 1, 7\]"):
        imagenet_segmentation({"archive": path}, tmp_path / "again")
    path.write_bytes(b"no HDF5 at all")
    with pytest.raises(InputError, match=r"gtsegs_ijcv.mat is not gtsegs_ijcv.mat, or it is damaged"):
        imagenet_segmentation({"archive": path}, tmp_path / "third")


def test_pascal_voc(tmp_path):
    table = written(pascal_voc({"archive": archives_small.pascal_voc(tmp_path)}, tmp_path / "images"), tmp_path)
    assert table["split"].tolist() == ["train", "train", "val", "val"]
    assert set(zip(table["class"], table["label"])) == {("cat", 7)}
    mask = np.array(open_mask(tmp_path / table["mask"][0]))
    assert np.unique(mask).tolist() == [0, 1, 255]
    assert (mask == 1).sum() == 20 * 20 + 7 * 10
    with pytest.raises(InputError, match="waterbirds.tar.gz is not the archive of Pascal VOC 2012"):
        pascal_voc({"archive": archives_small.waterbirds(tmp_path)}, tmp_path / "other")
    with tarfile.open(tmp_path / "voc.tar", "a") as tar:
        add(tar, "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt", b"2007_000009")
    with pytest.raises(InputError, match="lacks VOCdevkit/.*/2007_000009.jpg, which VOCdevkit/.*/train.txt lists"):
        pascal_voc({"archive": tmp_path / "voc.tar"}, tmp_path / "again" / "images")


def test_waterbirds(tmp_path):
    table = written(waterbirds({"archive": archives_small.waterbirds(tmp_path)}, tmp_path / "images"), tmp_path)
    assert table.groupby(["class", "label"]).size().to_dict() == {("landbird", 0): 30, ("waterbird", 1): 30}
    assert set(table["split"]) == {"train", "val", "test"}
    assert set(table["group"]) == {
        f"{bird} on {place}" for bird in ("landbird", "waterbird") for place in ("land", "water")
    }
    row = table.iloc[6]  # y = 0, place = 1, split = 1
    assert (row["group"], row["split"], row["place"]) == ("landbird on water", "val", "water")
    broken = tmp_path / "broken.tar.gz"
    with tarfile.open(broken, "w:gz") as tar:
        add(tar, "w/metadata.csv", b"img_id,img_filename,y,split,place,place_filename\n1,a.jpg,0,0,0,x\n")
    with pytest.raises(InputError, match=r"lacks 1 pictures that its metadata.csv names, the first other/w/a.jpg"):
        waterbirds({"archive": broken}, tmp_path / "other")


@pytest.mark.parametrize("fine", [False, True], ids=["CIFAR-10", "CIFAR-100"])
def test_cifar(fine, tmp_path):
    path = archives_small.cifar(tmp_path, fine)
    table = written(cifar({"archive": path}, tmp_path / "images"), tmp_path)
    assert table.groupby("split").size().to_dict() == {"test": 16, "train": 24 if fine else 40}
    assert table.groupby(["label", "class"]).ngroups == 4
    assert ("superclass" in table) == fine
    root = "cifar-100-python/test" if fine else "cifar-10-batches-py/test_batch"
    with tarfile.open(path) as tar:
        data = pickle.loads(tar.extractfile(root).read())["data"]
    first = table[table["split"] == "test"].iloc[0]
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / first["image"]))[..., 0].ravel(), data[0, :1024])


def test_a_pickle_with_a_call_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'harm'}",)

    for content in (Evil(), {"data": Evil()}):
        with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as tar:
            add(tar, "cifar-10-batches-py/data_batch_1", pickle.dumps(content, protocol=2))
        with pytest.raises(InputError, match=r"evil.tar.gz is not trusted: it holds a pickle that calls posix.system"):
            cifar({"archive": tmp_path / "evil.tar.gz"}, tmp_path / "images")
    assert not (tmp_path / "harm").exists()


def test_archives_cannot_write_outside_their_folder(tmp_path):
    for name in ("../outside.JPEG", "/tmp/outside-of-all.JPEG", "a/../../outside.JPEG"):
        _, kit, _ = archives_small.imagenet(tmp_path)
        with tarfile.open(tmp_path / "val.tar", "w") as tar:
            add(tar, name, b"harm")
        with pytest.raises(InputError, match=r"val.tar holds .* outside its folder"):
            imagenet({"images": tmp_path / "val.tar", "devkit": kit}, tmp_path / "images")
        assert not (tmp_path / "outside.JPEG").exists()
        assert not os.path.exists("/tmp/outside-of-all.JPEG")
    with tarfile.open(tmp_path / "val.tar", "w") as tar:
        link = tarfile.TarInfo("link.JPEG")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(InputError, match=r"val.tar holds link.JPEG, not a plain file"):
        imagenet({"images": tmp_path / "val.tar", "devkit": kit}, tmp_path / "images")


def test_a_wrong_or_cut_archive_is_named(tmp_path):
    path = archives_small.waterbirds(tmp_path)
    with pytest.raises(InputError, match=r"its md5 is [0-9a-f]{32}, expected 0{32}. Fetch it again"):
        check_digest(path, {"md5": "0" * 32})
    check_digest(path, {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    whole = path.read_bytes()
    for place in range(60, len(whole), len(whole) // 20):  # one bit, anywhere after the header
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"waterbirds.tar.gz is damaged or cut off"):
            waterbirds({"archive": path}, tmp_path / f"flipped-{place}")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"waterbirds.tar.gz is damaged or cut off"):
        waterbirds({"archive": path}, tmp_path / "images")


def picture(mode, path, **options):
    """A picture of 8 x 6 pixels, its left half dark and its right half bright, in a mode of PIL."""
    grey = np.zeros((6, 8), np.uint8)
    grey[:, 4:] = 255 if mode == "1" else 200
    if mode == "I;16":
        Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    else:
        Image.fromarray(grey).convert("RGB").convert(mode).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("1", "a.png"),
        ("L", "a.png"),
        ("P", "a.gif"),
        ("I;16", "a.png"),
        ("I;16", "a.tiff"),
        ("CMYK", "a.jpg"),
        ("RGBA", "a.webp"),
    ],
)
def test_every_mode_of_picture_is_converted_to_rgb(mode, name, tmp_path):
    pixels = np.array(open_rgb(picture(mode, tmp_path / name))).astype(int)
    assert pixels.shape == (6, 8, 3)
    assert pixels[:, :2].max() < 40
    assert abs(pixels[:, 6:] - (255 if mode == "1" else 200)).max() < 40


def test_transparency_and_rotation(tmp_path):
    pixels = np.zeros((6, 8, 4), np.uint8)
    pixels[:, 4:] = (10, 200, 10, 255)  # the left half is transparent black
    Image.fromarray(pixels).save(tmp_path / "a.png")
    shown = np.array(open_rgb(tmp_path / "a.png"))
    assert (shown[:, 0] == 255).all()
    assert (shown[:, 7] == (10, 200, 10)).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    picture("RGB", tmp_path / "b.jpg", exif=exif)
    turned = np.array(open_rgb(tmp_path / "b.jpg")).astype(int)
    assert turned.shape == (8, 6, 3)
    assert turned[:2].max() < 60 < 140 < turned[6:].min()
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "c.tiff")
    with pytest.raises(BadPicture, match="floating-point"):
        open_rgb(tmp_path / "c.tiff")
    Image.fromarray(np.full((4, 4), 70000, np.int32)).save(tmp_path / "d.tiff")
    with pytest.raises(BadPicture, match="integers of 32 bit"):
        open_rgb(tmp_path / "d.tiff")


def test_all_of_a_class_and_no_fit_rows():
    table = pd.DataFrame({"image": [f"{n}.png" for n in range(9)], "label": 0, "class": "", "split": "all"})
    table = table.assign(group="", mask="")
    assert len(choose_rows(table, {"eval": {"per_class": "all"}}, seed=0)) == 9
    both = choose_rows(table, {"fit": {"per_class": 3}, "eval": {"per_class": "all"}}, seed=0)
    assert both["role"].value_counts().to_dict() == {"eval": 6, "fit": 3}


def test_a_full_disk_is_reported(tmp_path, capsys):
    with pytest.raises(SystemExit), job(tmp_path / "log"):
        raise OSError(errno.ENOSPC, "No space left on device", "results/x.safetensors")
    assert capsys.readouterr().err == (
        "\nError: No space is left on the disk for results/x.safetensors; make room and run again.\n"
    )
    assert "Traceback" in (tmp_path / "log").read_text()
