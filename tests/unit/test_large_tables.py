"""Tables of images larger than memory: in pieces they give what they give as a whole, and memory stays as it is."""

import hashlib
import re
import sqlite3
import tracemalloc
from functools import partial

import numpy as np
import pandas as pd
import pytest

from clipspectra import InputError
from clipspectra.arrays import save_pieces, table_chunks
from clipspectra.contributions.shards import images_to_stream
from clipspectra.data import choosing, own_tables
from clipspectra.data.choosing import ChosenRows, check_requirements, shared_images
from clipspectra.data.datasets import Manifest, read_manifest
from clipspectra.data.samples import sample_images
from clipspectra.jobs import user_message
from clipspectra.on_disk import common, database, pieces_of
from clipspectra.paper import study


def manifest(path, count, classes):
    """Write a manifest of `count` pictures, in no order; its table."""
    rng = np.random.default_rng(count)
    labels = rng.integers(0, len(classes), count)
    columns = {"image": [f"é {number:06d}.png" for number in rng.permutation(count)], "label": labels}
    columns |= {"class": np.array(classes)[labels], "group": "", "split": rng.choice(["train", "test", "odd"], count)}
    pd.DataFrame(columns | {"mask": ""}).to_csv(path, index=False)
    return read_manifest(path)


def drawn_as_a_whole(table, roles, seed):
    """What ChosenRows promises, written plainly."""
    chosen = []
    for name, members in table.reset_index(names="row").groupby("class"):
        members = members.sort_values("image")
        members = members.iloc[np.random.default_rng([seed, *name.encode()]).permutation(len(members))]
        for split in sorted({rule["split"] for rule in roles.values()}, key=lambda split: (split is None, split)):
            remaining = members if split is None else members[members["split"] == split]
            of_split = {role: rule["per_class"] for role, rule in sorted(roles.items()) if rule["split"] == split}
            rest = max(0, len(remaining) - sum(most for most in of_split.values() if most != "all"))
            rest //= max(1, list(of_split.values()).count("all"))
            of_split = {role: rest if most == "all" else most for role, most in of_split.items()}
            total = sum(of_split.values())
            for role, most in of_split.items():
                count = most if total <= len(remaining) else most * len(remaining) // total
                total -= most
                chosen.append(remaining[:count].assign(role=role))
                members = members.drop(remaining.index[:count])
                remaining = remaining[count:]
    return pd.concat(chosen).sort_values(["role", "row"], ascending=[False, True], ignore_index=True)


@pytest.mark.parametrize(
    "roles",
    [
        {"fit": ("train", 7), "eval": ("test", "all")},
        {"fit": (None, "all"), "eval": (None, 4), "validation": ("odd", 3)},
        {"eval": ("train", 50), "validation": ("train", 20), "fit": (None, "all")},
        {"fit": (None, "all"), "eval": (None, "all")},
    ],
)
def test_images_drawn_on_disk_are_those_drawn_in_memory(roles, tmp_path, monkeypatch):
    roles = {role: {"split": split, "per_class": most} for role, (split, most) in roles.items()}
    table = manifest(tmp_path / "manifest.csv", 150, ["ä", "b, c", "d"] if len(roles) > 2 else [""])
    monkeypatch.setattr(own_tables, "CHUNK", 11)
    monkeypatch.setattr(choosing, "BLOCK", 13)
    monkeypatch.setattr(choosing, "pieces_of", partial(pieces_of, rows=17))
    chosen = ChosenRows(Manifest(tmp_path / "manifest.csv"), roles, 3)
    plain = drawn_as_a_whole(table, roles, 3)
    pd.testing.assert_frame_equal(pd.concat(chosen, ignore_index=True), plain)
    counts = plain.groupby(["role", "class"]).size().unstack(fill_value=0)
    pd.testing.assert_frame_equal(chosen.counts.sort_index(), counts, check_names=False)


def test_seeds_are_compared_and_described_in_pieces_as_a_whole(tmp_path, monkeypatch):
    rng, tables, paths = np.random.default_rng(0), [], [tmp_path / f"{seed}.csv" for seed in range(3)]
    for path in paths:
        rows = np.sort(rng.choice(60, 40, replace=False))
        table = pd.DataFrame({"row": rows, "image": [f"{row}.png" for row in rows], "label": 0, "class": "a"})
        table["group"], table["split"] = np.where(rows % 2, "odd", ""), rng.choice(["train", "test"], 40)
        table["role"] = np.where(rng.random(40) < 0.6, "fit", "eval")
        table["image_sha256"] = [hashlib.sha256(bytes([row % 50])).hexdigest() for row in rows]  # some come twice
        tables.append(table.sort_values(["role", "row"], ascending=[False, True]))
        tables[-1].to_csv(path, index=False)
    digests = [set(table["image_sha256"]) for table in tables]
    assert common(iter(table["image_sha256"]) for table in tables).tolist() == [
        [len(first & second) for second in digests] for first in digests
    ]
    monkeypatch.setattr(study, "table_chunks", partial(table_chunks, rows=7))
    described, images = study.describe_dataset({"name": "d"}, paths), pd.concat(tables).drop_duplicates("row")
    assert described["sha256"] == hashlib.sha256("".join(sorted(images["image_sha256"])).encode()).hexdigest()
    assert (described["images"], described["classes"], described["groups"]) == (len(images), 1, 1)
    most = max((table["role"] == "fit").sum() for table in tables)
    assert described["roles"]["fit"] == {"images": most, "split": "test+train"}


def test_memory_does_not_grow_with_the_images(tmp_path, monkeypatch):
    """What is allocated by all that reads a table of images, but for SQLite's cache, which has a size of its own."""
    monkeypatch.setattr(own_tables, "CHUNK", 200)
    monkeypatch.setattr(own_tables, "BLOCK", 2**14)
    monkeypatch.setattr(choosing, "BLOCK", 200)
    monkeypatch.setattr(choosing, "pieces_of", partial(pieces_of, rows=200))
    monkeypatch.setattr(study, "table_chunks", chunks := partial(table_chunks, rows=200))
    monkeypatch.setattr(study, "pieces_of", partial(pieces_of, rows=200))
    monkeypatch.setattr("clipspectra.contributions.shards.table_chunks", chunks)
    roles = {role: {"split": split, "per_class": "all"} for role, split in (("fit", "train"), ("eval", None))}
    images, sample, peaks = tmp_path / "images.csv", tmp_path / "sample.csv", []

    def digested(piece):
        return piece.assign(image_sha256=[hashlib.sha256(name.encode()).hexdigest() for name in piece["image"]])

    def read_everything(count):
        chosen = ChosenRows(Manifest(tmp_path / "manifest.csv"), roles, 0)
        check_requirements(chosen, [], False, "d")
        save_pieces(images, map(digested, chosen))
        save_pieces(tmp_path / "shared.csv", shared_images(chunks(images)))
        sample_images(chunks(images), "0", 40).to_csv(sample, index=False)
        images_to_stream({"0": images}, {"0": sample}, 0, count // 200, "held_out")
        study.describe_dataset({}, [images, images])
        common((digest for chunk in chunks(images) for digest in chunk["image_sha256"]) for _ in range(2))

    for count in (400, 800, 3_200):  # the first pays for what is imported late
        manifest(tmp_path / "manifest.csv", count, ["a", "b"])
        tracemalloc.start()
        read_everything(count)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.4 * peaks[1], peaks


def test_a_manifest_is_checked_beyond_its_first_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(own_tables, "CHUNK", 2)
    monkeypatch.setattr(own_tables, "BLOCK", 16)
    lines = ["image,label,class,group,split,mask", *(f"{n}.png,{n % 2},{'ab'[n % 2]},,," for n in range(7))]

    def problem(*changed):
        table = [dict(changed).get(number, line) for number, line in enumerate(lines, 1)]
        (tmp_path / "m.csv").write_bytes("\n".join(table).encode("latin-1"))
        with pytest.raises(InputError) as error:
            pd.concat(ChosenRows(Manifest(tmp_path / "m.csv"), {"fit": {"per_class": 1}}, 0))
        return str(error.value)

    assert "line 7, is not UTF-8" in problem((7, "\xe9.png,1,b,,,"))
    assert "the first in line 6: 'x'" in problem((6, "x.png,x,a,,,"))
    assert "gives class 'a' more than one label: 0, 5" in problem((8, "6.png,5,a,,,"))
    assert "names 1.png twice" in problem((8, "1.png,0,a,,,"))
    assert "no class in 2 rows, the first in line 6" in problem((6, "4.png,3,,,,"), (8, "6.png,3,,,,"))
    assert "line 7, has 5 values where the header has 6" in problem((7, "5.png,1,b,,"))


NO_ROOM = {"FULL": "No space is left .* make room", "IOERR_WRITE": "is a quota used up, or is the disk damaged"}


@pytest.mark.parametrize("code", NO_ROOM)
def test_no_room_for_temporary_files_is_a_sentence(code):
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{code}")
    with pytest.raises(OSError, match=".") as raised, database("texts (text TEXT)"):
        raise error
    assert re.search(NO_ROOM[code], user_message(raised.value))
