"""Datasets in tar files: as webdataset and img2dataset write them, read in place, and what is wrong with them."""

import hashlib
import io
import json
import pickle
import tarfile
from pathlib import Path

import braceexpand
import numpy as np
import pandas as pd
import pytest
import webdataset
from PIL import Image

from clipspectra import InputError
from clipspectra.data.datasets import read_manifest, with_digests
from clipspectra.data.pictures import BadPicture, ImageFiles, batches, open_rgb
from clipspectra.data.tar_names import Tar, expand_braces, expected_sum, read_sums, tar_files
from clipspectra.data.tars import _load_index, is_file, members, opened
from clipspectra.data.webdataset import read_classes, write_manifest

FETCHED = Path(__file__).parents[1] / "img2dataset"


def picture(number, kind="PNG"):
    """The bytes of a small picture of its own."""
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return file.getvalue()


def write_tar(path, entries, **options):
    """A tar of {name: bytes, or a TarInfo without content}."""
    with tarfile.open(path, "w", **options) as tar:
        for name, content in entries.items():
            member = tarfile.TarInfo(name) if isinstance(content, bytes) else content
            member.size = len(content) if isinstance(content, bytes) else 0
            tar.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return path


def listed(folder, *paths, **options):
    """(manifest, listing, table of what is left out) of tar files."""
    source = {"columns": options.pop("columns", {})} | {
        key: options.pop(key) for key in ("image", "mask") if key in options
    }
    tars = [Tar(Path(path).name, str(path), options.get("split", "all")) for path in paths]
    options.pop("split", None)
    folder.mkdir(exist_ok=True)
    listing = write_manifest(tars, folder / "manifest.csv", folder / "left-out.csv", source, **options)
    assert not [*folder.rglob("*.rows"), *folder.rglob("*.left-out")]
    return read_manifest(folder / "manifest.csv"), listing, pd.read_csv(folder / "left-out.csv")


def test_braces_are_expanded_as_webdataset_does():
    patterns = [
        "a.tar",
        "{00000..00331}.tar",
        "x-{0..11}-{a,b}.tar",
        "{3..1}",
        "{a..e}",
        "{E..A}",
        "{08..11}",
        "{0..9..4}",
    ]
    patterns += ["{1..3}{,x}", "{-1..1}", "{001..3}", "{a,b,}{10..9}", "{9..0..3}", "{0..07}", "{00..1}", "{5..5}"]
    for pattern in patterns:
        assert expand_braces(pattern) == list(braceexpand.braceexpand(pattern)), pattern
    for pattern, words in {"{0..3": "do not close", "{a,{b,c}}": "inside braces", "{03}": "neither a range"}.items():
        with pytest.raises(InputError, match=words):
            expand_braces(pattern)
    with pytest.raises(InputError, match="more than"):
        expand_braces("{0..99999999}")


def test_tar_files_have_names_splits_and_digests(tmp_path):
    shards = {"train": "/d/train/{0..1}.tar::/d/more/0.tar", "test": "https://h.org/x/test%20set/0.tar?download=true"}
    assert [(tar.name, tar.split) for tar in tar_files({"train": shards["train"]})] == [
        ("train/0.tar", "train"),
        ("train/1.tar", "train"),
        ("more/0.tar", "train"),
    ]
    (tar,) = tar_files({"test": shards["test"]})
    assert (tar.name, tar.is_remote, tar.split) == ("0.tar", True, "test")
    digest = hashlib.sha256(b"").hexdigest()
    (tmp_path / "sums").write_text(f"{digest}  ./test set/0.tar\n{digest.upper()} *other.tar\n\n")
    sums = read_sums(tmp_path / "sums")
    assert expected_sum(tar, sums) == {"sha256": digest}
    with pytest.raises(InputError, match="no digest of 1.tar"):
        expected_sum(tar_files("1.tar")[0], sums)
    (tmp_path / "sums").write_text("<html>\n")
    with pytest.raises(InputError, match="line 1, is not a digest"):
        read_sums(tmp_path / "sums")


@pytest.mark.parametrize(
    ("shards", "words"),
    [
        ("{0..1}.tar.gz", "compressed"),
        ("s3://bucket/0.tar", "neither a file nor an address"),
        ("pipe:cat 0.tar", "neither a file nor an address"),
        ("https://h.org/../0.tar", r"holds '\.\.'"),
        ("0.zip", "does not end in .tar"),
        ("a/0.tar::a/0.tar", "named twice"),
        ("a/0.tar::./a/0.tar", "are both 0.tar"),
        ("a/0.tar::http://h.org/0.tar", "are both 0.tar"),
        ("/tmp", "is a folder"),
    ],
)
def test_what_cannot_be_read_in_place_is_refused_by_its_name(shards, words):
    with pytest.raises(InputError, match=words):
        tar_files(shards)


def test_samples_are_those_of_webdataset(tmp_path):
    """Written and read by the library: the same samples, the same bytes, read through the manifest."""
    path, long = tmp_path / "00000.tar", "folder/" + "x" * 150  # a name that needs a header of its own
    with webdataset.TarWriter(str(path)) as writer:
        for number, key in enumerate(["000", "001", "sub.dir/002", long, "été"]):
            kind = ["png", "JPG", "webp"][number % 3]
            content = picture(number, {"png": "PNG", "JPG": "JPEG", "webp": "WEBP"}[kind])
            row = {
                "__key__": key,
                kind: content,
                "cls": number % 2,
                "txt": "a caption",
                "json": {"place": f"p{number}"},
            }
            writer.write(row)
        writer.write({"__key__": "no-picture", "txt": "alone", "npy": np.zeros(3)})
    manifest, listing, left_out = listed(tmp_path / "d", path, columns={"place": "place"}, split="train")
    read = [sample for sample in webdataset.WebDataset(str(path), shardshuffle=False)]
    expected = [next(sample[kind] for kind in ("png", "jpg", "webp") if kind in sample) for sample in read[:-1]]
    contents = []
    for name in manifest["image"]:
        with opened(tmp_path / "d" / name) as file:
            contents.append(file.read())
    assert contents == expected
    assert list(manifest["label"]) == [int(sample["cls"]) for sample in read[:-1]] == [0, 1, 0, 1, 0]
    assert list(manifest["class"]) == ["0", "1", "0", "1", "0"]
    assert list(manifest["place"]) == [json.loads(sample["json"])["place"] for sample in read[:-1]]
    assert set(manifest["split"]) == {"train"}
    assert manifest["image"][2] == "tars/00000.tar/sub.dir/002.webp"
    assert (left_out["sample"][0], left_out["reason"][0]) == ("tars/00000.tar/no-picture", "no picture (.npy, .txt)")
    assert (listing.images, dict(listing.reasons)) == (5, {"no picture (.npy, .txt)": 1})
    chosen = with_digests(manifest, tmp_path / "d")
    assert list(chosen["image_sha256"]) == [hashlib.sha256(content).hexdigest() for content in expected]


def test_what_img2dataset_fetched_is_read_as_it_is(tmp_path):
    """Its own files (tests/img2dataset): labels are optional, .parquet and _stats.json are left alone."""
    tars = tar_files(f"{FETCHED}/{{00000..00001}}.tar")
    manifest, listing, left_out = listed(
        tmp_path / "d", *[tar.place for tar in tars], columns={"place": "place"}, processes=2
    )
    assert list(manifest["image"]) == [
        *(f"tars/00000.tar/00000{number}.jpg" for number in (0, 1, 3)),
        *(f"tars/00001.tar/00001{number}.jpg" for number in (1, 2, 3)),
    ]
    assert list(manifest["place"]) == ["water", "land", "land", "land", "water", "land"]
    assert (set(manifest["label"]), set(manifest["class"]), len(left_out)) == ({0}, {""}, 0)
    assert open_rgb(tmp_path / "d" / manifest["image"][4]).size == (40, 32)
    assert not listing.first_with_class


def test_pictures_are_read_by_worker_processes_as_from_a_folder(tmp_path):
    entries = {f"{number:03}.png": picture(number) for number in range(9)} | {"004.png": b"not a picture"}
    manifest, *_ = listed(tmp_path / "d", write_tar(tmp_path / "a.tar", entries))
    for name, content in entries.items():
        (tmp_path / name).write_bytes(content)
    roots = {tmp_path: pd.DataFrame({"image": list(entries)}), tmp_path / "d": manifest}

    def preprocess(image):
        import torch

        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    for workers in (0, 2):
        results = []
        for root, table in roots.items():
            skipped, options = [], {"workers": workers, "on_bad_image": "skip"}
            read = [
                images.numpy()
                for _, (images,) in batches(ImageFiles(table, root, preprocess), 2, skipped=skipped, **options)
            ]
            results.append((np.concatenate(read), skipped))
        np.testing.assert_array_equal(results[0][0], results[1][0])
        assert [row["image"] for row in results[0][1]] == [row["image"] for row in results[1][1]] == [4]


def test_classes_have_names_from_a_file_or_from_the_metadata(tmp_path):
    entries = {}
    for number, kind in enumerate(["owl", "cat", "owl"]):
        entries |= {f"{number}.png": picture(number), f"{number}.cls": b"1\n" if kind == "owl" else b"0"}
        entries |= {f"{number}.json": json.dumps({"kind": kind, "n": number, "o": None}).encode()}
    path = write_tar(tmp_path / "a.tar", entries)
    (tmp_path / "classes.txt").write_text("a cat\nan owl\nnone\n")
    names = read_classes(tmp_path / "classes.txt")
    manifest, *_ = listed(tmp_path / "d", path, classes=names)
    assert list(manifest["class"]) == ["an owl", "a cat", "an owl"]
    manifest, *_ = listed(tmp_path / "d", path, columns={"class": "kind", "group": "n", "other": "o"})
    assert list(manifest["class"]) == ["owl", "cat", "owl"]
    assert (list(manifest["label"]), list(manifest["group"]), set(manifest["other"])) == (
        [1, 0, 1],
        ["0", "1", "2"],
        {""},
    )
    with pytest.raises(InputError, match=r"a\.tar/0 has class 1, but the file of classes names only those from 0"):
        listed(tmp_path / "d", path, classes=["one"])
    for text, words in {"a\nb\na\n": "line 3, names 'a' a second time", "a\n\nb": "line 2, is blank"}.items():
        (tmp_path / "classes.txt").write_text(text)
        with pytest.raises(InputError, match=words):
            read_classes(tmp_path / "classes.txt")


def test_masks_and_pictures_of_several_kinds_are_named_by_their_endings(tmp_path):
    entries = {name: picture(1) for name in ("0.rgb.png", "0.depth.png", "0.mask.png")}
    path = write_tar(tmp_path / "a.tar", entries)
    with pytest.raises(InputError, match=r"a\.tar/0 has several pictures, \.rgb\.png, \.depth\.png: name"):
        listed(tmp_path / "d", path, mask="mask.png")
    manifest, *_ = listed(tmp_path / "d", path, mask="mask.png", image="rgb.png")
    assert manifest.iloc[0][["image", "mask"]].tolist() == ["tars/a.tar/0.rgb.png", "tars/a.tar/0.mask.png"]
    assert is_file(tmp_path / "d" / manifest["mask"][0])


def test_what_is_no_sample_is_left_out_and_counted(tmp_path):
    link = tarfile.TarInfo("000.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device = tarfile.TarInfo("001.png")
    device.type = tarfile.CHRTYPE
    entries = {"000.png": link, "001.png": device, "__key__/x.png": picture(0), "README": b"no dot", ".hidden.png": b""}
    entries |= {"./002.png": picture(2), "./002.txt": "ein Gruß".encode("latin-1"), "two\nlines.png": picture(3)}
    entries |= {
        "003.json": b'{"status": "failed_to_download"}',
        "004.txt": b"alone",
        "005.json": b"\xff{",
        "006.heic": b"x",
    }
    manifest, listing, left_out = listed(tmp_path / "d", write_tar(tmp_path / "a.tar", entries))
    assert list(manifest["image"]) == ["tars/a.tar/002.png"]  # its caption is not UTF-8, and not read
    assert dict(listing.reasons) == {
        "not a plain file": 2,
        "a name that a table cannot hold": 1,
        "img2dataset did not get it (failed_to_download)": 1,
        "no picture (.txt)": 1,
        "no picture (.json)": 1,
        "no picture (.heic)": 1,
    }
    assert len(left_out) == sum(listing.reasons.values())
    assert listing.first_left_out[0] == "tars/a.tar/000.png"
    broken = write_tar(tmp_path / "b.tar", {"0.png": picture(0), "0.json": b"{", "1.png": picture(1), "1.json": b"{}"})
    manifest, listing, _ = listed(tmp_path / "e", broken, columns={"place": "place"})
    assert (list(manifest["image"]), dict(listing.reasons)) == (["tars/b.tar/1.png"], {"no .json that can be read": 1})


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"../0.png": b""}, "points outside"),
        ({"/0.png": b""}, "points outside"),
        ({"0.png": b"1", "0.PNG": b"2"}, "holds 0.png twice"),
        ({"0.png": b"1", "0.cls": b"three"}, "must hold a whole number, the class; it holds 'three'"),
        (
            {"0.png": b"1", "0.cls": b"3", "1.png": b"2"},
            r"tars/a.tar/1 has no class, but others have one, the first tars/a",
        ),
        ({"0.txt": b"1"}, r"hold no pictures: no picture \(.txt\)"),
        ({}, "hold no pictures"),
    ],
)
def test_a_tar_whose_samples_are_ambiguous_or_unsafe_is_refused(tmp_path, entries, words):
    with pytest.raises(InputError, match=words):
        listed(tmp_path / "d", write_tar(tmp_path / "a.tar", entries))


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("size", [-512, -1, 2**40, 2**62])
def test_an_entry_of_an_impossible_size_is_refused(tmp_path, kind, size):
    member = tarfile.TarInfo("0.png")
    member.type, member.size = kind, size
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(InputError, match=r"a\.tar is damaged"):
        list(members(tmp_path / "a.tar"))


def test_a_file_twice_in_a_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("0.png", "1.png", "0.png"):
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(InputError, match=r"a\.tar holds 0\.png twice"):
        listed(tmp_path / "d", tmp_path / "a.tar")


def test_tars_that_are_missing_cut_off_or_no_tars_are_named(tmp_path):
    whole = write_tar(tmp_path / "a.tar", {f"{number}.png": picture(number) for number in range(3)}).read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        last = tar.getmembers()[-1]
    path = tmp_path / "b.tar"
    with pytest.raises(InputError, match=r"1 of the 2 tar files are not there, the first .*b\.tar"):
        listed(tmp_path / "d", tmp_path / "a.tar", path)
    bad = {"at a picture": (whole[: last.offset_data + 10], "unexpected end of data")}
    bad["in a header"] = (whole[: last.offset + 100], "no mark of its end")
    bad["between pictures"] = (whole[: last.offset], "no mark of its end")
    bad["in the middle"] = (whole[: last.offset] + b"x" * 512 + whole[last.offset + 512 :], "no header at byte")
    bad["joined"] = (whole + whole, "goes on after its end")
    bad["a page"] = (b"\n <!DOCTYPE html><html>", "is a page of HTML")
    bad["a pointer"] = (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull")
    bad["gzip"] = (b"\x1f\x8b" + bytes(600), "compressed with gzip")
    bad["nothing"] = (b"", "damaged or cut off: empty file")
    bad["noise"] = (b"no tar" * 200, "damaged or cut off")
    for kind, (content, words) in bad.items():
        path.write_bytes(content)
        with pytest.raises(InputError, match=words) as error:
            listed(tmp_path / "d", path)
        assert str(path) in str(error.value), kind
    path.write_bytes(whole)
    digest = hashlib.sha256(whole).hexdigest()
    listed(tmp_path / "d", path, digests={"b.tar": {"sha256": digest}})
    with pytest.raises(InputError, match=r"b\.tar is damaged or another file"):
        listed(tmp_path / "d", path, digests={"b.tar": {"sha256": digest[::-1]}})


def test_a_tar_that_changed_since_it_was_listed_is_never_read_as_it_was(tmp_path):
    """Neither skipped as a bad picture nor read as another one."""
    entries = {f"{number}.png": picture(number) for number in range(3)}
    path = write_tar(tmp_path / "a.tar", entries)
    manifest, *_ = listed(tmp_path / "d", path)
    image, files = tmp_path / "d" / manifest["image"][1], ImageFiles(manifest, tmp_path / "d", np.array)
    open_rgb(image)
    whole = path.read_bytes()
    others = {
        "other order": write_tar(tmp_path / "b.tar", dict(reversed(entries.items()))).read_bytes(),
        "longer": whole + bytes(10240),
        "noise": bytes(range(256)) * (len(whole) // 256),
    }
    for kind, content in others.items():
        path.write_bytes(content)
        with pytest.raises(InputError, match="has changed since its images were listed") as error:
            open_rgb(image) if kind != "other order" else open_rgb(tmp_path / "d" / manifest["image"][0])
        assert not isinstance(error.value, BadPicture)
    with pytest.raises(InputError, match="has changed"):
        list(batches(files, 3, workers=0, on_bad_image="skip", skipped=[]))
    path.unlink()
    with pytest.raises(InputError, match="is not there any more") as error:
        open_rgb(image)
    pickle.loads(pickle.dumps(files[1][1]))  # as worker processes send it
    with pytest.raises(BadPicture, match="No such file"):
        open_rgb(tmp_path / "d/tars/a.tar/absent.png")
    with pytest.raises(BadPicture, match="No such file"):
        open_rgb(tmp_path / "nowhere.tar/absent.png")
    index = tmp_path / "d/tars/a.tar.safetensors"
    index.write_bytes(index.read_bytes()[:-1])
    _load_index.cache_clear()
    advice = f"Remove {tmp_path}/d/manifest.csv, so that the tar files are listed anew"
    with pytest.raises(InputError, match=f"a.tar.safetensors, the index of a tar file, is damaged. {advice}"):
        open_rgb(tmp_path / "d/tars/a.tar/absent.png")
    index.unlink()
    with pytest.raises(InputError, match=f"a.tar.safetensors, the index of a tar file, is not there. {advice}"):
        open_rgb(tmp_path / "d/tars/a.tar/absent.png")


def test_damage_anywhere_in_a_header_is_one_sentence(tmp_path):
    """Flipped bytes where a tar has check sums: never another error, another name or another place."""
    entries = {
        f"{number}.{kind}": content
        for number in range(4)
        for kind, content in {"png": picture(number), "cls": b"1"}.items()
    }
    path = write_tar(tmp_path / "a.tar", entries, format=tarfile.PAX_FORMAT)
    listed(tmp_path / "d", path)
    whole, rng = bytearray(path.read_bytes()), np.random.default_rng(0)
    with tarfile.open(path) as tar:
        headers = [member.offset for member in tar]
    for _ in range(60):
        damaged = whole.copy()
        damaged[int(rng.choice(headers)) + int(rng.integers(345))] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="a.tar"):
            listed(tmp_path / "d", path)


@pytest.mark.parametrize("value", ["x\ud800", "x\0y", "x" * 200_000], ids=["half a character", "NUL", "long"])
def test_a_json_value_that_no_table_can_hold_leaves_out_its_sample(tmp_path, value):
    entries = {"0.png": picture(0), "0.json": json.dumps({"place": value}).encode()}
    entries |= {"1.png": picture(1), "1.json": json.dumps({"place": "here"}).encode()}
    manifest, _, left_out = listed(tmp_path / "d", write_tar(tmp_path / "a.tar", entries), columns={"place": "place"})
    assert manifest["place"].tolist() == ["here"]
    assert left_out.to_numpy().tolist() == [["tars/a.tar/0", "a value in its .json that a table cannot hold"]]


def test_names_with_further_slashes_are_found(tmp_path):
    tar = write_tar(tmp_path / "a.tar", {"x//a.png": picture(0), "./x/./b.png": picture(1)})
    manifest, _, _ = listed(tmp_path / "d", tar)
    assert manifest["image"].tolist() == ["tars/a.tar/x/a.png", "tars/a.tar/x/b.png"]
    for number, name in enumerate(manifest["image"]):
        with opened(tmp_path / "d" / name) as file:
            assert file.read() == picture(number)


def test_tar_files_in_different_places_have_names_inside_the_folder():
    names = [tar.name for tar in tar_files("/data/mix/a.tar::mix2/b.tar::../up/c.tar")]
    assert names == ["data/mix/a.tar", "mix2/b.tar", "up/c.tar"]
    with pytest.raises(InputError, match="has a wildcard; name the files with braces"):
        tar_files("wds/*.tar")
