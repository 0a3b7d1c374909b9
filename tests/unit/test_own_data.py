"""The user's own folders, tables, text pools and configs: read correctly, or refused with a clear message."""

import os
import re
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from clipspectra import InputError
from clipspectra.arrays import load_table, save_table
from clipspectra.data import pools, strict_yaml, texts
from clipspectra.data.choosing import choose_rows, shared_images
from clipspectra.data.datasets import (
    class_indices,
    folder_manifest,
    left_out,
    own_manifest,
    read_manifest,
    with_digests,
)
from clipspectra.data.files import manifest_files, stamp
from clipspectra.towers import models

ROOT = Path(__file__).parents[2]
HEADER = "image,label,class,group,split,mask"
ROWS = ["a.png,0,cat,,train,", "b.png,1,dog,,test,"]


def picture(path, colour=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(path)


def table(path, *lines, encoding="utf-8"):
    path.write_bytes("\n".join(lines).encode(encoding))
    return path


@pytest.mark.parametrize(
    ("lines", "options", "sentence"),
    [
        (
            [HEADER, "a.png,0,Käfer,,train,", ROWS[1]],
            {"encoding": "latin-1"},
            "line 2, is not UTF-8 .it may be Latin-1",
        ),
        ([HEADER, *ROWS], {"encoding": "utf-16"}, "is not UTF-8 but UTF-16; save it as"),
        ([], {}, "m.csv is empty"),
        ([HEADER.replace(",", ";"), *ROWS], {}, "is separated by semicolons, as Excel does .* use commas"),
        ([HEADER.replace(",", "\t"), *ROWS], {}, "is separated by tabs, as Excel does .* use commas"),
        ([HEADER, ROWS[0], "b.png,1,dog,big,,test,"], {}, "line 3, has 7 values where the header has 6"),
        ([HEADER, ROWS[0], "b.png,1,dog"], {}, "line 3, has 3 values where the header has 6"),
        ([HEADER, ROWS[0], 'b.png,1,"dog,,test,'], {}, "line 3, cannot be read: unexpected end of data"),
        ([HEADER + ",class", *(row + ",x" for row in ROWS)], {}, "has two columns 'class'"),
        ([HEADER, "a.png,0,cat ,,train,", ROWS[1]], {}, "line 2, has class 'cat ', which begins or ends with an inv"),
        ([HEADER, ROWS[0], "b.png,1,dog,,test\u00a0,"], {}, r"line 3, has split 'test\\xa0', which begins or ends"),
        ([HEADER, ROWS[0], "b.png,one,dog,,test,"], {}, "not whole numbers, the first in line 3: 'one'"),
        ([HEADER, ROWS[0], "b.png,1.5,dog,,test,"], {}, "not whole numbers, the first in line 3: '1.5'"),
        ([HEADER, ROWS[0], "b.png,1,cat,,test,"], {}, "gives class 'cat' more than one label: 0, 1"),
        ([HEADER, ROWS[0], "b.png,1,,,test,"], {}, "has no class in 1 rows, the first in line 3"),
        ([HEADER, ROWS[0], ",1,dog,,test,"], {}, "names no image in line 3"),
        (["PK\x03\x04 of Excel"], {}, "is an Excel workbook; save it as"),
        (["\x1f\x8b"], {"encoding": "latin-1"}, "is a gzip archive; unpack it first"),
        ([HEADER, ROWS[0], "b.png,1,dog,\0,test,"], {}, "is not a text: line 3 holds a zero byte"),
        ([HEADER + ",row", *(row + ",x" for row in ROWS)], {}, "has a column 'row', a name that the workflow needs"),
    ],
)
def test_ambiguous_tables_are_refused(lines, options, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        read_manifest(table(tmp_path / "m.csv", *lines, **options))


def test_every_column_but_label_is_text(tmp_path):
    """With a mark of UTF-8, commas at the ends of rows, blank lines, an index, and numbers that must not change."""
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    rows = [f"{ROWS[0]},00,1234567.25,NA", f"{ROWS[1]},01,1234567.75,1e5"]
    lines = [
        "\ufeff," + HEADER + ",code,angle,note",
        "",
        *(f"{place},{row}," for place, row in enumerate(rows)),
        ",,,,",
    ]
    lines = [line.replace(",0,cat", ",-1.0,cat") for line in lines]
    manifest = own_manifest(table(tmp_path / "m.csv", *lines))
    save_table(tmp_path / "written.csv", manifest)
    for again in (manifest, read_manifest(tmp_path / "written.csv"), load_table(tmp_path / "written.csv")):
        assert again["label"].tolist() == [-1, 1]
        assert again["code"].tolist() == ["00", "01"]
        assert again["angle"].tolist() == ["1234567.25", "1234567.75"]
        assert again["note"].tolist() == ["NA", "1e5"]
        assert next(iter(again)) == "image"


def test_class_indices_go_by_name_whatever_the_labels():
    rows = pd.DataFrame({"class": ["dog", "ape", "dog"], "label": [7, -1, 7]})
    assert class_indices(rows, "class", ["ape", "cat", "dog"], "mine").tolist() == [2, 0, 2]
    with pytest.raises(InputError, match="Images of mine have the class 'dog', which the classifier lacks"):
        class_indices(rows, "class", ["ape", "cat"], "mine")
    with pytest.raises(InputError, match="Images of mine have no class, so they cannot"):
        class_indices(pd.DataFrame({"class": [""]}), "class", ["ape", "cat"], "mine")


def test_folders_as_they_are(tmp_path):
    """Hidden copies, files of other systems, endings that Pillow reads, links; pictures left out are counted."""
    root = tmp_path / "pictures"
    for name in ("cat/a.jfif", "cat/b.JPG", "cat/deep/c.avif", "dog/d.webp", "dog/e.jp2"):
        picture(root / name)
    for name in ("cat/.ipynb_checkpoints/a-checkpoint.png", "__MACOSX/cat/f.png", ".cache/g.png", "dog/__MACOSX/h.png"):
        picture(root / name)
    (root / "dog" / "._d.png").write_bytes(b"\0\5\x16\7")
    (root / "cat" / "notes.txt").write_text("notes")
    (root / "cat" / "phone.HEIC").write_bytes(b"heic")
    picture(root / "beside.png")
    picture(tmp_path / "blobs" / "one.png")
    for name in ("linked-1.png", "linked-2.png"):
        os.symlink(tmp_path / "blobs" / "one.png", root / "dog" / name)
    os.symlink(root / "cat", root / "cat" / "loop")
    manifest = folder_manifest(root)
    names = [Path(name).relative_to(root).as_posix() for name in manifest["image"]]
    dogs = ["dog/d.webp", "dog/e.jp2", "dog/linked-1.png", "dog/linked-2.png"]
    assert names == ["cat/a.jfif", "cat/b.JPG", "cat/deep/c.avif", *dogs]
    assert manifest["class"].tolist() == ["cat"] * 3 + ["dog"] * 4
    pictures, endings = left_out(root)
    assert [path.name for path in pictures] == ["beside.png", "phone.HEIC"]
    assert endings == {".txt": 1, ".heic": 1, ".png": 1}


SPLIT = "cat/a.png", "dog/b.png"


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ([f"{split}/{name}" for split in ("train", "val") for name in SPLIT], "train"),
        ([f"{split}/{name}" for split in ("fold1", "fold2", "fold3") for name in SPLIT], "fold1"),
        ([f"train/{name}" for name in SPLIT], "train"),
        ([f"{split}/{name}" for split in ("train", "val") for name in SPLIT] + ["train/preview.jpg"], "train"),
        ([f"{split}/{name}" for split in ("train", "val") for name in SPLIT] + ["unlabeled/misc/c.jpg"], "train"),
        ([f"train/{name}" for name in SPLIT] + ["test/0.jpg"], "train"),
        (["Train/0.jpg", "Test/1.jpg"], "Test"),
        (["seg_train/seg_train/sea/0.jpg", "seg_test/seg_test/sea/1.jpg", "seg_pred/seg_pred/2.jpg"], "seg_test"),
        (["train2017/cat/0.jpg", "train2017/dog/1.jpg", "val2017/cat/2.jpg"], "train2017"),
        (["train_set/cat/0.jpg", "test_set/dog/1.jpg", "other/2.jpg"], "test_set"),
    ],
)
def test_folders_of_splits_are_no_classes(names, first, tmp_path):
    for name in names:
        picture(tmp_path / name)
    with pytest.raises(InputError, match=f"look like splits, not classes.* such as {tmp_path}/{first}, if it has"):
        folder_manifest(tmp_path)


def test_class_folders_may_have_folders(tmp_path):
    for name in ("cat/2021/a.png", "dog/2022/b.png", "train/engine/c.png"):
        picture(tmp_path / name)
    assert folder_manifest(tmp_path)["class"].tolist() == ["cat", "dog", "train"]
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    with pytest.raises(InputError, match="The class folder .*empty has no images; fill it"):
        folder_manifest(tmp_path)
    (tmp_path / "empty" / "a.HEIC").write_bytes(b"heic")
    with pytest.raises(InputError, match=r"empty has no images of a supported kind .it holds .heic.; fill it"):
        folder_manifest(tmp_path)


def test_links_between_classes_take_nothing_away(tmp_path):
    for name in ("b/sub/1.jpg", "b/2.jpg", "a/3.jpg"):
        picture(tmp_path / name)
    os.symlink(tmp_path / "b" / "sub", tmp_path / "a" / "linked")
    os.symlink(tmp_path, tmp_path / "b" / "back")
    counts = folder_manifest(tmp_path)["class"].value_counts().to_dict()
    assert counts == {"a": 2, "b": 2}  # what is linked from another class counts there too; the link back does not


def test_folders_that_cannot_be_read_and_names_that_no_table_holds_are_named(tmp_path, monkeypatch):
    picture(tmp_path / "a" / "1.jpg")
    picture(tmp_path / "b" / "2.jpg")
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scan(path) if "b" not in Path(path).name else scan("/nowhere"))
    with pytest.raises(OSError, match="nowhere"):
        folder_manifest(tmp_path)
    monkeypatch.undo()
    picture(tmp_path / "b" / "with\rreturn.jpg")
    with pytest.raises(InputError, match="has a name that a table cannot hold; rename it"):
        folder_manifest(tmp_path)


def test_pictures_with_two_roles_are_counted_by_content(tmp_path):
    for number in range(8):
        picture(tmp_path / f"{number}.png", colour=number)
    same = [("5.png", "0.png"), ("6.png", "1.png")]
    for copy, original in same:
        (tmp_path / copy).write_bytes((tmp_path / original).read_bytes())
    chosen = pd.DataFrame({"image": [f"{number}.png" for number in range(8)] + ["absent.png"]})
    chosen["role"] = ["fit"] * 3 + ["eval"] * 6
    chosen.loc[2, "role"] = "eval"
    chosen = with_digests(chosen, tmp_path)
    assert chosen["image_sha256"].iloc[-1] == ""
    shared = pd.concat(shared_images([chosen[:4], chosen[4:]]))
    assert set(zip(shared["image"], shared["same_as"])) == set(same)
    assert set(shared["role"] + shared["its_role"]) == {"evalfit"}
    assert pd.concat(shared_images([chosen.assign(role="eval")])).empty


def test_rows_are_drawn_whatever_the_labels_are():
    rows = pd.DataFrame({"image": [f"{n}.png" for n in range(12)], "class": ["a", "b"] * 6, "split": "all"})
    few = {"fit": {"per_class": 2}, "eval": {"per_class": 2}}
    drawn = [choose_rows(rows.assign(label=labels), few, 0)["image"].tolist() for labels in ([0, 1] * 6, [-1, 1] * 6)]
    assert drawn[0] == drawn[1]


MARKS = ["a cat\u2028on a mat", "a dog\x85too", "an owl\x0bx", "a bat\x0cy", "an ant\x1cz", "last"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_a_pool_end_as_in_the_reference(end, tmp_path):
    (tmp_path / "pool.txt").write_bytes(end.join(MARKS).encode())
    assert pools.read_pool(tmp_path / "pool.txt")[0] == MARKS
    (tmp_path / "pool.txt").write_bytes((end.join(["", *MARKS, "last", ""])).encode("utf-8-sig"))
    assert pools.read_pool(tmp_path / "pool.txt") == (MARKS, {"blank": 1, "double": 1})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pool.csv", 'id,caption\n1,"a cat, two dogs"\n2,a sky\n'),
        ("pool.tsv", "id\tcaption\n1\ta cat, two dogs\n2\ta sky\n"),
        ("pool.jsonl", '{"id": 1, "caption": "a cat, two dogs"}\n{"id": 2, "caption": "a sky"}\n'),
        ("pool.json", '[{"id": 1, "caption": "a cat, two dogs"}, {"id": 2, "caption": "a sky"}]'),
    ],
)
def test_tables_as_pools_are_read_by_their_column(name, content, tmp_path):
    path = tmp_path / name
    path.write_text(content)
    assert pools.read_pool(path, "caption")[0] == ["a cat, two dogs", "a sky"]
    for column in (None, "text"):
        with pytest.raises(InputError, match="set 'column' in the config to the one that holds the texts: id, caption"):
            pools.read_pool(path, column)


def test_values_and_files_that_are_not_texts_are_refused(tmp_path):
    pd.DataFrame({"text": ["a", None, "b"]}).to_parquet(tmp_path / "p.parquet")
    assert pools.read_pool(tmp_path / "p.parquet") == (["a", "b"], {"blank": 1, "double": 0})
    pd.DataFrame({"text": [["a", "c"], ["b"]]}).to_parquet(tmp_path / "p.parquet")
    with pytest.raises(InputError, match="holds a ndarray in row 1, not a text"):
        pools.read_pool(tmp_path / "p.parquet")
    (tmp_path / "p.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        pools.read_pool(tmp_path / "p.parquet")
    (tmp_path / "p.jsonl").write_text('{"a": "b"}\n{"a": "c"}\n{"a": \n')
    with pytest.raises(InputError, match="p.jsonl, line 3, is not JSON"):
        pools.read_pool(tmp_path / "p.jsonl", "a")
    (tmp_path / "p.csv").write_text("a dog\na cat\na bird\n")
    with pytest.raises(InputError, match="A list of texts without a header must be a .txt"):
        pools.read_pool(tmp_path / "p.csv")
    (tmp_path / "p.tsv").write_text("text,label\na dog,1\n")
    with pytest.raises(InputError, match="p.tsv is separated by commas"):
        pools.read_pool(tmp_path / "p.tsv")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("templates: ['a {n}']\nwords: {n: cat}", "'words', a list for each name"),
        ("templates: 'a {n}'\nwords: {n: [cat]}", "needs 'templates', a list"),
        ("templates: ['{}']\nwords: {n: [cat]}", "has .. without a name; write .name."),
        ("templates: ['a {n']\nwords: {n: [cat]}", "cannot be filled"),
        ("templates: ['{n:5d}']\nwords: {n: [cat]}", "cannot be filled"),
        ("templates: ['{n}']\nwords: {n: [[a], cat]}", "must be texts; .* is not"),
        ("templates: ['{n.x}']\nwords: {n.x: [a], n: [b]}", "cannot be filled"),
    ],
)
def test_lists_of_words_that_cannot_be_filled_in_are_named(content, sentence, tmp_path):
    (tmp_path / "words.yaml").write_text(content)
    with pytest.raises(InputError, match=sentence):
        pools.generated_pool(tmp_path / "words.yaml")


def test_words_of_a_list_are_as_they_are_written(tmp_path):
    (tmp_path / "words.yaml").write_text("templates: ['a {n}']\nwords: {n: [1.10, 1e3, 0x10, 007, no, 'yes']}")
    expected = ["a 1.10", "a 1e3", "a 0x10", "a 007", "a no", "a yes"]
    assert pools.generated_pool(tmp_path / "words.yaml")[0] == expected


def test_classes_of_the_same_tokens_are_refused(tmp_path):
    loaded = models.load(ROOT / "tests/golden/model_config.json", ROOT / "tests/golden/model.safetensors")
    for same in (["hot dog", "Hot  Dog"], [["a", "b"], ["b", "a"]], ["big cat", "big\u00a0cat"]):
        with pytest.raises(InputError, match="stand for two classes, but are the same tokens to the model; give them"):
            texts.check_distinct(loaded, same)
    texts.check_distinct(loaded, ["hot dog", ["hot dog", "sausage"], "cat"])
    decomposed, composed = "Ka\u0308se", "K\u00e4se"
    picture(tmp_path / decomposed / "a.png")
    picture(tmp_path / "Brot" / "b.png")
    assert folder_manifest(tmp_path)["class"].tolist() == ["Brot", composed]
    assert texts.prompt_phrases([composed], {decomposed: "cheese"}, "class") == ["cheese"]
    rows = pd.DataFrame({"class": ["a", "b"], "label": [0, 1], "colour": ["", "red"]})
    with pytest.raises(InputError, match="column 'colour' is blank in 1 rows"):
        texts.classifier_values([rows], "colour", {})


def test_imagenets_names_go_by_wnid():
    from open_clip import IMAGENET_CLASSNAMES

    wnids = [f"n{number:08d}" for number in range(1000)]
    assert texts.prompt_phrases(wnids, "imagenet", "class") == list(IMAGENET_CLASSNAMES)
    assert texts.prompt_phrases(wnids[::-1], "imagenet", "class") == list(IMAGENET_CLASSNAMES[::-1])
    with pytest.raises(InputError, match="are not wnids"):
        texts.prompt_phrases([str(number) for number in range(1000)], "imagenet", "class")


def test_texts_of_the_same_tokens_count_once():
    loaded = models.load(ROOT / "tests/golden/model_config.json", ROOT / "tests/golden/model.safetensors")
    long = "word " * loaded.tokenizer.context_length
    pool = ["A photo of Cardiff", "a photo of cardiff", "a  photo of\tCardiff", "another", long + "one", long + "two"]
    assert texts.distinct_texts(loaded, pool) == (["A photo of Cardiff", "another", long + "one"], 3)


YAML = """\
base: &base {templates: [a], names: {007: bond, 1.0: one, 2024-01-01: new year, "no": nope}}
same: *base
more:
  <<: *base
  templates: [b]
"""


def test_keys_of_a_config_are_texts_as_written_and_nothing_is_shared(tmp_path):
    (tmp_path / "c.yaml").write_text(YAML)
    config = strict_yaml.load(tmp_path / "c.yaml")
    assert list(config["base"]["names"]) == ["007", "1.0", "2024-01-01", "no"]
    assert config["more"] == {"templates": ["b"], "names": config["base"]["names"]}
    config["same"]["default"] = 1
    assert "default" not in config["base"]
    (tmp_path / "n.yaml").write_text("[1e-1, 10, 0x1f, 0, 1_000, 2.5]")
    assert strict_yaml.load(tmp_path / "n.yaml") == [0.1, 10, 31, 0, 1000, 2.5]
    assert strict_yaml.line_of(tmp_path / "c.yaml", ["more", "templates", 0]) == 5


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a:\n  b: 1\nc: 2\na:\n  d: 3\n", "line 4: the key 'a' is given twice, first in line 1"),
        ("a:\n  no: 1\n", 'line 2: YAML does not read the key no as text; write it in quotes, "no"'),
        ("a: {on: 1}\n", 'line 1: YAML does not read the key on as text; write it in quotes, "on"'),
        ("a:\n\tb: 1\n", "line 2: .*Indent with spaces, not with tabs"),
        ("a: [1, 2\nb: 3\n", "line 2: "),
        ("? [a, b]\n: 1\n", "line 1: a list cannot be a key"),
        ("a: [1,\n  010]\n", "line 2: YAML reads 010 as another number"),
        ("a: 1:30\n", "line 1: YAML reads 1:30 as another number"),
        ("a: \x07\n", "c.yaml cannot be read as YAML"),
    ],
)
def test_traps_of_yaml_are_named_with_their_line(text, sentence, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=sentence) as error:
        strict_yaml.load(tmp_path / "c.yaml")
    assert len(re.findall("c.yaml", str(error.value))) == 1


def test_a_replaced_file_is_noticed_without_reading_it(tmp_path):
    path = tmp_path / "a.png"
    picture(path)
    before = stamp([path])
    assert stamp([path]) == before
    os.utime(path, (0, 0))  # an older file under the old name
    older = stamp([path])
    assert older != before
    path.write_bytes(path.read_bytes() + b"x")
    os.utime(path, (0, 0))
    assert stamp([path]) not in (before, older)
    assert stamp([path, tmp_path / "absent"]) == stamp([path])
    table(tmp_path / "m.csv", HEADER, "a.png,0,cat,,train,m/a.png")
    assert manifest_files(tmp_path / "m.csv", "mask") == [str(tmp_path / "m/a.png")]
    assert manifest_files(tmp_path / "absent.csv", "image") == []
