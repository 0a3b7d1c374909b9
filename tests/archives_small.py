"""Small archives in exactly the published layouts: ILSVRC2012, gtsegs_ijcv.mat, Waterbirds, VOC, CIFAR for Python."""

import io
import pickle
import tarfile

import h5py
import numpy as np
from PIL import Image
from scipy.io import savemat

rng = np.random.default_rng(4)
KIT = "ILSVRC2012_devkit_t12/data"
# devkit id -> wnid, in another order than the wnids; 5 is not a leaf
SYNSETS = {1: "n03", 2: "n01", 3: "n04", 4: "n02", 5: "n00"}
COLOURS = {"n01": (250, 0, 0), "n02": (0, 250, 0), "n03": (0, 0, 250), "n04": (250, 250, 0)}


def add(tar, name, data):
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def jpeg(colour, size=(70, 60)):
    noise = rng.integers(-5, 6, (*size[::-1], 3))
    file = io.BytesIO()
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(file, "JPEG")
    return file.getvalue()


def imagenet(folder, count=48):
    """(tar of pictures, devkit, ids in the order of the pictures); each class has its own colour."""
    ids = np.resize([2, 3, 1, 4, 4, 1], count)
    with tarfile.open(folder / "val.tar", "w") as tar:
        for number in rng.permutation(count):
            add(tar, f"ILSVRC2012_val_{number + 1:08d}.JPEG", jpeg(COLOURS[SYNSETS[ids[number]]]))
    fields = [
        "ILSVRC2012_ID",
        "WNID",
        "words",
        "gloss",
        "num_children",
        "children",
        "wordnet_height",
        "num_train_images",
    ]
    synsets = np.zeros((len(SYNSETS), 1), dtype=[(field, "O") for field in fields])
    for row, (number, wnid) in enumerate(SYNSETS.items()):
        leaf = number < 5
        synsets[row, 0] = (
            number,
            wnid,
            f"thing {wnid}",
            "what it is",
            0 if leaf else 4,
            [] if leaf else [1, 2],
            1,
            1300,
        )
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    with tarfile.open(folder / "devkit.tar.gz", "w:gz") as tar:
        add(tar, f"{KIT}/meta.mat", meta.getvalue())
        add(tar, f"{KIT}/ILSVRC2012_validation_ground_truth.txt", "".join(f"{number}\n" for number in ids).encode())
    return folder / "val.tar", folder / "devkit.tar.gz", ids


def segmentation(folder, count=6):
    """gtsegs_ijcv.mat, HDF5 as MATLAB 7.3 writes it: references to pictures, and to references to masks."""
    with h5py.File(folder / "gtsegs_ijcv.mat", "w") as file:
        for name in ("img", "gt"):
            file.create_dataset(f"value/{name}", (count, 1), dtype=h5py.ref_dtype)
        for number in range(count):
            width, height = 60 + 3 * number, 50 + 2 * number
            mask = np.zeros((height, width), np.uint8)
            mask[10:30, 15:40] = 1
            picture = rng.integers(0, 120, (height, width, 3), np.uint8) + 120 * mask[..., None]
            stored = file.create_dataset(f"#refs#/img{number}", data=picture.transpose(2, 1, 0))
            inner = file.create_dataset(f"#refs#/mask{number}", data=mask.T)
            outer = file.create_dataset(f"#refs#/gt{number}", (1, 1), dtype=h5py.ref_dtype)
            outer[0, 0] = inner.ref
            file["value/img"][number, 0], file["value/gt"][number, 0] = stored.ref, outer.ref
    return folder / "gtsegs_ijcv.mat"


def waterbirds(folder, count=60):
    """The tar.gz with metadata.csv; y, place and split take all values."""
    root = "waterbird_complete95_forest2water2"
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    with tarfile.open(folder / "waterbirds.tar.gz", "w:gz") as tar:
        for number in range(count):
            y, place, split = number % 2, number // 2 % 2, number // 4 % 3
            name = f"{number % 5:03d}.Bird/Bird_{number:04d}.jpg"
            lines.append(f"{number + 1},{name},{y},{split},{place},/o/ocean/{number}.jpg")
            add(tar, f"{root}/{name}", jpeg((200 * y, 100, 200 * place)))
        add(tar, f"{root}/metadata.csv", "\n".join(lines).encode())
    return folder / "waterbirds.tar.gz"


def pascal_voc(folder, count=4):
    """VOCtrainval_11-May-2012.tar: palette masks with two objects and void borders."""
    root = "VOCdevkit/VOC2012"
    with tarfile.open(folder / "voc.tar", "w") as tar:
        for number in range(count):
            classes = np.zeros((40, 50), np.uint8)
            classes[5:25, 5:25], classes[28:35, 30:40] = 8, 15  # a cat, and a smaller person
            classes[4, 5:25] = 255
            picture = Image.fromarray(classes, "P")
            picture.putpalette(bytes(range(256)) * 3)
            file = io.BytesIO()
            picture.save(file, "PNG")
            add(tar, f"{root}/SegmentationClass/2007_{number:06d}.png", file.getvalue())
            add(tar, f"{root}/JPEGImages/2007_{number:06d}.jpg", jpeg((90, 90, 200), (50, 40)))
        for split, rows in (("train", range(0, count, 2)), ("val", range(1, count, 2))):
            listed = "".join(f"2007_{number:06d}\n" for number in rows)
            add(tar, f"{root}/ImageSets/Segmentation/{split}.txt", listed.encode())
    return folder / "voc.tar"


def cifar(folder, fine):
    """CIFAR-100 (fine) or CIFAR-10: pickles in protocol 2, as published."""
    root = "cifar-100-python" if fine else "cifar-10-batches-py"

    def batch(count):
        data = rng.integers(0, 256, (count, 3072), np.uint8)
        labels = [number % 4 for number in range(count)]
        if fine:
            return {"data": data, "fine_labels": labels, "coarse_labels": [label // 2 for label in labels]}
        return {"data": data, "labels": labels, "batch_label": "a batch", "filenames": ["x.png"] * count}

    names = ["apple", "bear", "cup", "dog"]
    if fine:
        files = {"train": batch(24), "test": batch(16), "file.txt~": None}
        files["meta"] = {"fine_label_names": names, "coarse_label_names": ["living", "other"]}
    else:
        files = {f"data_batch_{number}": batch(8) for number in (1, 2, 3, 4, 5)} | {"test_batch": batch(16)}
        files |= {"batches.meta": {"label_names": names, "num_vis": 3072}, "readme.html": None}
    path = folder / f"{root}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            add(tar, f"{root}/{name}", b"text" if content is None else pickle.dumps(content, protocol=2))
    return path
