"""Published archives of datasets, each unpacked to a folder of pictures and a manifest."""

import h5py
import numpy as np
import pandas as pd
from PIL import Image
from scipy.io import loadmat

from clipspectra import InputError
from clipspectra.data.own_tables import decode_utf8, read_own_table
from clipspectra.data.pictures import open_picture
from clipspectra.data.untrusted import extract_files, open_tar, plain_data
from clipspectra.jobs import progress

DEFAULT_COLUMNS = {"group": "", "split": "all", "mask": ""}


def imagenet(files, folder):
    """ILSVRC2012's validation set: files "images" (tar of JPEGs) and "devkit" (tar.gz).

    The devkit lists its own class ids, one per picture in the order of their names; labels here number the classes by
    sorted wnid, as is usual.
    """
    kit = "ILSVRC2012_devkit_t12/data"
    with open_tar(files["devkit"]) as tar:
        names = set(tar.getnames())
        labels_file, meta = f"{kit}/ILSVRC2012_validation_ground_truth.txt", f"{kit}/meta.mat"
        for name in (labels_file, meta):
            if name not in names:
                raise InputError(f"{files['devkit']} is not the devkit of ILSVRC2012: it lacks {name}.")
        try:
            ids = [int(line) for line in tar.extractfile(labels_file).read().split()]
            synsets = loadmat(tar.extractfile(meta), squeeze_me=True)["synsets"]
            wnids = {int(synset[0]): str(synset[1]) for synset in synsets if int(synset[4]) == 0}  # leaves only
        except Exception as error:  # damaged MATLAB files raise errors of every kind
            raise InputError(
                f"{files['devkit']} is damaged: {type(error).__name__}, {error}. Fetch it again."
            ) from error
    label_by_wnid = {wnid: label for label, wnid in enumerate(sorted(wnids.values()))}
    with open_tar(files["images"]) as tar:
        pictures = sorted(extract_files(tar, files["images"], folder, ending=".JPEG"))
    if len(pictures) != len(ids) or not set(ids) <= set(wnids):
        raise InputError(
            f"{files['devkit']} does not fit {files['images']}: it has {len(ids)} labels of {len(wnids)} classes for "
            f"{len(pictures)} pictures."
        )
    classes = [wnids[number] for number in ids]
    labels = [label_by_wnid[wnid] for wnid in classes]
    table = pd.DataFrame({"image": pictures, "label": labels, "class": classes})
    return table.assign(**DEFAULT_COLUMNS | {"split": "val"})


def imagenet_segmentation(files, folder):
    """ImageNet-segmentation (Guillaumin et al. 2014): file "archive", gtsegs_ijcv.mat, MATLAB 7.3, which is HDF5.

    It has no classes: the class of every picture is "".
    """
    rows, path = [], files["archive"]
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    try:
        with h5py.File(path) as file:
            count = len(file["/value/img"])
            for number in progress(range(count), "pictures", unit="picture"):
                picture = _pixels(file[file["/value/img"][number, 0]])
                mask = _pixels(file[file[file["/value/gt"][number, 0]][0, 0]]).T
                picture = picture.transpose(2, 1, 0) if picture.ndim == 3 else picture.T
                if picture.shape[:2] != mask.shape or not np.isin(mask, (0, 1)).all():
                    raise InputError(
                        f"Picture {number} of {path} has shape {picture.shape[:2]}, its mask {mask.shape} with values "
                        f"{np.unique(mask)[:5].tolist()}; both must have the same shape, and masks hold 0 and 1 only."
                    )
                name = f"{number:04d}.png"
                Image.fromarray(picture.astype(np.uint8)).save(folder / "images" / name)
                Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / name)
                rows.append({kind: f"{folder.name}/{kind}s/{name}" for kind in ("image", "mask")})
    except InputError:
        raise
    except Exception as error:  # damaged HDF5 raises errors of every kind
        if getattr(error, "errno", None):
            raise  # an error of this machine, such as a full disk
        raise InputError(f"{path} is not gtsegs_ijcv.mat, or it is damaged: {error}.") from error
    masks = [row["mask"] for row in rows]
    return pd.DataFrame(rows).assign(**DEFAULT_COLUMNS | {"label": 0, "class": "", "mask": masks})


def _pixels(stored):
    """An array of HDF5, unless it declares more pixels than a picture has."""
    if stored.size > 4 * Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"a picture of shape {stored.shape}")
    return np.array(stored)


def waterbirds(files, folder):
    """Waterbirds (Sagawa et al. 2020): file "archive", a tar.gz with metadata.csv. Groups: "{class} on {place}"."""
    path = files["archive"]
    with open_tar(path) as tar:
        names = extract_files(tar, path, folder)
    tables = [name for name in names if name.endswith("/metadata.csv")]
    if len(tables) != 1:
        problem = f"it has {len(tables)} files named metadata.csv, not one"
        raise InputError(f"{path} is not the archive of Waterbirds: {problem}.")
    metadata, root = f"metadata.csv of {path}", tables[0].removesuffix("metadata.csv")
    table = read_own_table((folder.parent / tables[0]).read_bytes(), metadata)
    missing = [column for column in ("img_filename", *WATERBIRDS) if column not in table.columns]
    if missing:
        raise InputError(
            f"{metadata} lacks the column {missing[0]}; it has {', '.join(table.columns)}. Only the columns and codes "
            "of the published archive are supported: write your own manifest from it."
        )
    words = {column: _decode(table[column], codes, metadata) for column, codes in WATERBIRDS.items()}
    result = pd.DataFrame({"image": root + table["img_filename"], "class": words["y"], "place": words["place"]})
    result["label"] = result["class"].map(list(WATERBIRDS["y"].values()).index)
    result["group"] = result["class"] + " on " + result["place"]
    absent = sorted(set(result["image"]) - set(names))
    if absent:
        raise InputError(f"{path} lacks {len(absent)} pictures that its metadata.csv names, the first {absent[0]}.")
    return result.assign(split=words["split"], mask="")[["image", "label", "class", "place", "group", "split", "mask"]]


# What the codes of Waterbirds' metadata.csv stand for; the words themselves are accepted too.
WATERBIRDS = {
    "y": {"0": "landbird", "1": "waterbird"},
    "place": {"0": "land", "1": "water"},
    "split": {"0": "train", "1": "val", "2": "test"},
}


def _decode(column, codes, name):
    """The words for a column's codes. Raises InputError naming the first value that is neither."""
    word_by_value = {word: word for word in codes.values()} | codes
    word_by_value |= {f"{code}.0": word for code, word in codes.items()}
    column = column.str.strip()
    unknown = column[~column.isin(list(word_by_value))]
    if len(unknown):
        listed = ", ".join(f"{code} ({word})" for code, word in codes.items())
        raise InputError(
            f"{name}, line {unknown.index[0]}, has {column.name} {unknown.iloc[0]!r}; it must be one of {listed}."
        )
    return column.map(word_by_value)


def cifar(files, folder):
    """CIFAR-10 or CIFAR-100 for Python (Krizhevsky 2009): file "archive", a tar.gz of pickles with plain arrays."""
    path, contents = files["archive"], {}
    with open_tar(path) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None and file.read(1) == b"\x80":  # a pickle; other files are notes
                file.seek(0)
                contents[member.name.rsplit("/", 1)[-1]] = plain_data(file, path)
    meta = contents.get("meta", contents.get("batches.meta"))
    if meta is None:
        raise InputError(f"{path} is not the archive of CIFAR for Python: it lacks the file of class names.")
    is_cifar100, rows = "meta" in contents, []
    classes = _class_names(meta, "fine_label_names" if is_cifar100 else "label_names", path)
    for name, batch in progress(sorted(contents.items()), "batches", unit="batch"):
        if "data" not in batch:
            continue
        split = "test" if name.startswith("test") else "train"
        (folder / split).mkdir(parents=True, exist_ok=True)
        data = batch["data"]
        labels = _labels(batch, "fine_labels" if is_cifar100 else "labels", classes, name, path)
        if getattr(data, "shape", None) != (len(labels), 3072) or data.dtype != np.uint8:
            raise InputError(f"{name} of {path} is not a CIFAR batch: it must hold a 32 × 32 px picture per label.")
        if is_cifar100:
            superclasses = _class_names(meta, "coarse_label_names", path)
            superclass_labels = _labels(batch, "coarse_labels", superclasses, name, path)
        for number, picture in enumerate(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)):
            image = f"{folder.name}/{split}/{name}-{number:05d}.png"
            Image.fromarray(picture).save(folder.parent / image)
            row = {"image": image, "label": labels[number], "class": classes[labels[number]], "split": split}
            rows.append(row | ({"superclass": superclasses[superclass_labels[number]]} if is_cifar100 else {}))
    return pd.DataFrame(rows).assign(group="", mask="")


def _class_names(meta, key, path):
    """Class names of CIFAR's meta file."""
    names = meta.get(key)
    is_names = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not is_names or len(set(names)) != len(names):
        raise InputError(f"{path} is not the archive of CIFAR for Python: its {key} must be distinct names.")
    return names


def _labels(batch, key, names, name, path):
    """Labels of a CIFAR batch, checked to be indices into the names."""
    labels = batch.get(key)
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < len(names) for label in labels):
        raise InputError(
            f"{name} of {path} is not a CIFAR batch: its {key} must be numbers from 0 to {len(names) - 1}."
        )
    return labels


VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog",
    "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor",
)  # fmt: skip


def pascal_voc(files, folder):
    """Pascal VOC 2012 segmentation: file "archive", VOCtrainval_11-May-2012.tar. Objects are foreground, void is 255.

    A picture's class is the object class with the most pixels.
    """
    root, path = f"{folder.name}/VOCdevkit/VOC2012", files["archive"]
    with open_tar(path) as tar:
        names = set(extract_files(tar, path, folder, ending=(".jpg", ".png", ".txt")))
    rows = []
    (folder / "masks").mkdir()
    for split in ("train", "val"):
        split_file = f"{root}/ImageSets/Segmentation/{split}.txt"
        listing = split_file.removeprefix("images/")
        if split_file not in names:
            raise InputError(f"{path} is not the archive of Pascal VOC 2012: it lacks {listing}.")
        lines = decode_utf8((folder.parent / split_file).read_bytes(), f"{listing} of {path}")
        for name in progress(lines.split(), split, unit="picture"):
            absent = {f"{root}/SegmentationClass/{name}.png", f"{root}/JPEGImages/{name}.jpg"} - names
            if absent:
                raise InputError(f"{path} lacks {sorted(absent)[0].removeprefix('images/')}, which {listing} lists.")
            # palette indices are the classes
            classes = np.array(open_picture(folder.parent / f"{root}/SegmentationClass/{name}.png"))
            is_mask = classes.ndim == 2 and classes.dtype == np.uint8
            counts = np.bincount(classes[(classes > 0) & (classes < 255)] if is_mask else [], minlength=21)[1:]
            if not is_mask or len(counts) > len(VOC_CLASSES) or not counts.any():
                raise InputError(
                    f"{path} is not the archive of Pascal VOC 2012: the mask of {name} holds "
                    f"{np.unique(classes)[:5].tolist()}, where the classes are 1 to {len(VOC_CLASSES)}."
                )
            label = int(counts.argmax())
            mask = np.where(classes == 255, 255, classes > 0).astype(np.uint8)
            Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
            row = {"image": f"{root}/JPEGImages/{name}.jpg", "mask": f"{folder.name}/masks/{name}.png", "split": split}
            rows.append(row | {"label": label, "class": VOC_CLASSES[label]})
    return pd.DataFrame(rows).assign(group="")


SOURCES = {
    "imagenet": imagenet,
    "imagenet_segmentation": imagenet_segmentation,
    "pascal_voc": pascal_voc,
    "waterbirds": waterbirds,
    "cifar10": cifar,
    "cifar100": cifar,
}

# Where to get an archive that is not free to download.
ACCESS_NOTES = {
    "imagenet": " ImageNet is for non-commercial research only: request access at https://image-net.org and download "
    "ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz."
}


def check_complete(table, dataset):
    """Raise InputError if some rows of a dataset's table have a class, group or split and others have none."""
    for column in ("class", "group", "split"):
        blank = table[column].isna() | (table[column] == "")
        if blank.any() and not (blank.all() and column != "split"):
            row = table[blank].iloc[0]
            raise InputError(f"{dataset}: {blank.sum()} pictures have no {column}, the first {row['image']}.")
