"""Datasets in tar files, as WebDataset and img2dataset write them: the manifest, made without unpacking.

A sample is the files of one name up to its first dot, one after another in a tar: a picture, and with it .cls (the
number of its class), .json, .txt and more. Labels are optional; captions are not read.
"""

import csv
import json
import re
import unicodedata
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from clipspectra import InputError
from clipspectra.arrays import atomic_write
from clipspectra.data.datasets import REQUIRED_COLUMNS, is_picture
from clipspectra.data.downloads import check_digest
from clipspectra.data.own_tables import INVISIBLE, decode_utf8
from clipspectra.data.tars import INDEX, TarIndex, is_plain, member_name, members
from clipspectra.jobs import progress
from clipspectra.processes import end_with_parent

NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)  # (key, extension), as WebDataset splits it
META = re.compile(r"__[^/]*__($|/)")  # what WebDataset keeps for itself
LARGEST_JSON = 2**24
LONGEST_TEXT = 10_000  # characters
FAILED = "img2dataset did not get it"  # how the reason begins


class Listing:
    """What a tar holds: counts of images, of samples left out by reason, and the classes; the first of each kind."""

    def __init__(self):
        self.images, self.reasons, self.classes = 0, Counter(), set()
        self.first_left_out = self.first_without_class = self.first_with_class = None

    def add(self, other):
        """Add the listing of the next tar."""
        self.images += other.images
        self.reasons += other.reasons
        self.classes |= other.classes
        for first in ("first_left_out", "first_without_class", "first_with_class"):
            setattr(self, first, getattr(self, first) or getattr(other, first))


def read_classes(path):
    """Names of classes, one a line, the first that of class 0. Raises InputError for a blank line and a name twice."""
    names = [line.strip(INVISIBLE) for line in decode_utf8(Path(path).read_bytes(), path).rstrip().splitlines()]
    names = [unicodedata.normalize("NFC", name) for name in names]
    for number, name in enumerate(names, 1):
        if not name or name in names[: number - 1]:
            problem = f"names {name!r} a second time" if name else "is blank"
            raise InputError(f"{path}, line {number}, {problem}; it must name each class once, one a line.")
    return names


def samples(path):
    """Yield (key, {extension: TarInfo}, TarFile) of each sample of a tar; (name, None, TarFile) of links and devices.

    Extensions are in small letters. Raises InputError for names that leave the tar, and as `members` does.
    """
    key, files = None, {}
    for member, tar in members(path):
        if member is None:  # the tar is whole to its end
            if files:
                yield key, files, tar
            return
        if member.isdir():
            continue
        name = member_name(member)
        if name.startswith("/") or ".." in member.name.split("/"):
            raise InputError(f"The tar file {path} holds {name}, which points outside its folder; it is not trusted.")
        if not is_plain(member):
            yield name, None, tar
            continue
        match = NAME.fullmatch(name)
        if match is None or META.match(name):
            continue
        if match[1] != key:
            if files:
                yield key, files, tar
            key, files = match[1], {}
        extension = match[2].lower()
        if extension in files:
            raise InputError(f"The tar file {path} holds {key}.{extension} twice.")
        files[extension] = member


def list_tar(tar, folder, source, classes, digests):
    """Write the index of a tar and tables of its rows and of what is left out, below a folder; the Listing.

    tar: tar_names.Tar on this machine; the others as for write_manifest
    """
    check_digest(tar.place, digests.get(tar.name, {}))
    listing, index, target = Listing(), TarIndex(), folder / f"{tar.name}{INDEX}"
    target.parent.mkdir(parents=True, exist_ok=True)
    options = {"mode": "w", "newline": "", "encoding": "utf-8"}
    with open(_rows(target), **options) as rows_file, open(_left_out(target), **options) as left_out_file:
        rows, left_out = (csv.writer(file, lineterminator="\n") for file in (rows_file, left_out_file))
        for key, files, archive in samples(tar.place):
            name = f"{folder.name}/{tar.name}/{key}"
            try:
                image, mask, metadata = _chosen(files, archive, source, name)
                label, value = _class(files, archive, metadata, source, classes, name)
                of_json = {column: _text(metadata.get(key)) for column, key in source["columns"].items()}
            except _LeftOut as reason:
                listing.reasons[str(reason)] += 1
                listing.first_left_out = listing.first_left_out or (None if FAILED in str(reason) else (name, reason))
                left_out.writerow([name.encode(errors="replace").decode(), reason])
                continue
            for member in filter(None, (image, mask)):
                index.add(member)
            kind = "first_with_class" if value else "first_without_class"
            setattr(listing, kind, getattr(listing, kind) or name)
            listing.images += 1
            listing.classes.add(value)
            image, mask = (
                f"{folder.name}/{tar.name}/{member_name(member)}" if member else "" for member in (image, mask)
            )
            columns = {"image": image, "label": label, "class": value, "group": "", "split": tar.split, "mask": mask}
            columns |= {column: text for column, text in of_json.items() if column != "class"}
            rows.writerow(columns.values())
    index.save(target, tar.place)
    return listing


def _rows(target):
    return target.with_suffix(".rows")


def _left_out(target):
    return target.with_suffix(".left-out")


class _LeftOut(Exception):
    """Why a sample has no row."""


def _chosen(files, archive, source, name):
    """(TarInfo of a sample's picture, of its mask or None, its metadata as far as they are asked for)."""
    if files is None:
        raise _LeftOut("not a plain file")
    wanted = source.get("image")
    pictures = [ending for ending in files if ending == wanted] if wanted else list(filter(_is_picture, files))
    pictures = [ending for ending in pictures if ending != source.get("mask")]
    if len(pictures) > 1:
        raise InputError(
            f"{name} has several pictures, .{', .'.join(pictures[:3])}{' …' * (len(pictures) > 3)}: name the ending of "
            "the right one under image. All files of one name up to its first dot are one sample."
        )
    metadata = {}
    if "json" in files and (source["columns"] or not pictures):
        metadata = _metadata(archive, files["json"])
    if not pictures:
        if metadata and metadata.get("status", "success") != "success":
            raise _LeftOut(f"{FAILED} ({_text(metadata['status'])})")
        raise _LeftOut(f"no picture (.{', .'.join(sorted(files))})")
    if metadata is None or (source["columns"] and "json" not in files):
        raise _LeftOut("no .json that can be read")
    image = files[pictures[0]]
    if not _is_storable(image.name):
        raise _LeftOut("a name that a table cannot hold")
    return image, files.get(source.get("mask")), metadata


def _is_picture(extension):
    return is_picture(f"x.{extension}")


def _is_storable(name):
    return name.isprintable()  # neither line breaks nor bytes that are not UTF-8


def _metadata(archive, member):
    """The object in a .json; None if it cannot be read."""
    try:
        content = json.loads(archive.extractfile(member).read(LARGEST_JSON))
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _text(value):
    """A value of a .json as a manifest has it. Raises _LeftOut for one that a table cannot hold."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    if len(text) > LONGEST_TEXT or "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise _LeftOut("a value in its .json that a table cannot hold")
    return unicodedata.normalize("NFC", text.strip(INVISIBLE))


def _class(files, archive, metadata, source, classes, name):
    """(label, name of the class) of a sample; (0, "") if it has none. A class of a .json gets its label later."""
    if "class" in source["columns"]:
        return 0, _text(metadata.get(source["columns"]["class"]))
    if "cls" not in files:
        return 0, ""
    text = archive.extractfile(files["cls"]).read(100).decode(errors="replace").strip()
    if not re.fullmatch(r"-?\d+", text):
        raise InputError(f"{name}.cls must hold a whole number, the class; it holds {text[:40]!r}.")
    if classes is None:
        return int(text), str(int(text))
    if not 0 <= int(text) < len(classes):
        raise InputError(
            f"{name} has class {text}, but the file of classes names only those from 0 to {len(classes) - 1}."
        )
    return int(text), classes[int(text)]


def write_manifest(tars, manifest, left_out, source, *, digests=None, classes=None, processes=1):
    """Write the manifest of a dataset, indexes of its tars beside it, and the table of what is left out; the Listing.

    tars: of tar_names.Tar, on this machine; manifest: path, beside a folder tars
    source: columns, image and mask of the dataset's entry in the config; classes: names, by the number in .cls
    digests: {name of a tar: the digest that is checked first, {"sha256": hex}}

    One tar after another goes through each process, and rows go to the disk at once: memory grows neither with the
    number of tars nor of images. Raises InputError, among others if only some images have a class.
    """
    folder, whole = Path(manifest).parent / "tars", Listing()
    folder.mkdir(parents=True, exist_ok=True)
    absent = [tar.place for tar in tars if not Path(tar.place).is_file()]
    if absent:
        raise InputError(f"{len(absent)} of the {len(tars)} tar files are not there, the first {absent[0]}.")
    work = partial(list_tar, folder=folder, source=source, classes=classes, digests=digests or {})
    with ProcessPoolExecutor(processes, initializer=end_with_parent) as pool:
        for listing in progress(pool.map(work, tars), "tar files", total=len(tars), unit="file"):
            whole.add(listing)
    if not whole.images:
        reasons = "; ".join(reason for reason, _ in whole.reasons.most_common(3))
        raise InputError(f"The {len(tars)} tar files hold no pictures{': ' if reasons else ''}{reasons}.")
    if whole.first_with_class and whole.first_without_class:
        raise InputError(
            f"{whole.first_without_class} has no class, but others have one, the first {whole.first_with_class}."
        )
    labels = {}
    if "class" in source["columns"]:
        labels = {value: label for label, value in enumerate(sorted(whole.classes))}
    targets = [folder / f"{tar.name}{INDEX}" for tar in tars]
    columns = list(dict.fromkeys([*REQUIRED_COLUMNS, *source["columns"]]))
    _join(manifest, columns, map(_rows, targets), labels)
    _join(left_out, ["sample", "reason"], map(_left_out, targets), {})
    return whole


def _join(path, columns, parts, labels):
    """Write a table from its parts, which are removed; labels: {class: label}, in place of the label in the row."""
    with atomic_write(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for rows in parts:
            with open(rows, newline="", encoding="utf-8") as lines:
                for row in csv.reader(lines):
                    if labels:
                        row[1] = labels[row[2]]
                    writer.writerow(row)
            rows.unlink()
