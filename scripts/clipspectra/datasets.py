"""A dataset is its manifest: a table with one row an image. Everything after it is the same for all datasets.

Columns: image and mask (paths relative to the manifest's folder), label (class number, from 0), class (its name),
group, split, and any number of factor columns. mask and group may be empty.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from clipspectra import InputError
from clipspectra.arrays import load_table

REQUIRED = ["image", "label", "class", "group", "split", "mask"]
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}


def read_manifest(path):
    """A manifest as a pandas table, checked. Raises InputError for missing columns or doubled images."""
    table = load_table(path)
    missing = [column for column in REQUIRED if column not in table.columns]
    if missing:
        raise InputError(f"The manifest {path} lacks the columns {', '.join(missing)}.")
    if table.empty:
        raise InputError(f"The manifest {path} has no rows.")
    if not pd.api.types.is_integer_dtype(table["label"]):
        raise InputError(f"The manifest {path} has labels that are no whole numbers; number the classes from 0.")
    pairs = table[["label", "class"]].drop_duplicates()
    for one, other in (("label", "class"), ("class", "label")):
        several = pairs[pairs[one].duplicated(keep=False)]
        if len(several):
            raise InputError(
                f"The manifest {path} gives {one} {several[one].iloc[0]} more than one {other}: "
                f"{', '.join(map(str, several[several[one] == several[one].iloc[0]][other]))}."
            )
    twice = table["image"][table["image"].duplicated()]
    if len(twice):
        raise InputError(f"The manifest {path} names {twice.iloc[0]} twice.")
    return table


def folder_manifest(folder):
    """Manifest of a folder of class folders: a class a subfolder, numbered in sorted order; absolute paths."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"The image folder {folder} is not there; set the dataset's 'folder' in the config.")
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    rows = [
        {"image": str(path.resolve()), "label": label, "class": name}
        for label, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in PICTURES
    ]
    if not rows:
        raise InputError(f"The image folder {folder} has no class folders with images.")
    empty = sorted(set(classes) - {row["class"] for row in rows})
    if empty:
        raise InputError(f"The class folder {folder / empty[0]} has no images; fill it or take it away.")
    return pd.DataFrame(rows).assign(group="", split="all", mask="")


def own_manifest(path):
    """A manifest of one's own, its files by absolute path. Raises InputError for files that are not there."""
    table = read_manifest(path)
    for column in ("image", "mask"):
        table[column] = [str((path.parent / name).resolve()) if name else "" for name in table[column]]
        absent = [name for name in table[column] if name and not Path(name).is_file()]
        if absent:
            raise InputError(
                f"The manifest {path} names {len(absent)} files that are not there, the first {absent[0]}."
            )
    return table


def choose_rows(manifest, roles, seed):
    """Rows that one seed uses: a copy of the manifest's rows with columns row and role.

    roles: {"fit": {"split": name or None, "per_class": n}, "eval": …}. From each class n images, or "all" that the
    other role leaves, are drawn without replacement; no image has two roles, and a class too small for both is shared
    in the proportion asked for. The draw of a class depends on the seed and on the names of the class and its images,
    not on the manifest's order.
    """
    table = manifest.reset_index(names="row")
    splits = {role: rule.get("split") for role, rule in roles.items()}
    chosen = []
    for name, members in table.groupby("class"):
        members = members.sort_values("image")
        members = members.iloc[np.random.default_rng([seed, *str(name).encode()]).permutation(len(members))]
        # Named splits first: a role without one draws from all that is left.
        for split in sorted(set(splits.values()), key=lambda split: (split is None, split)):
            left = members if split is None else members[members["split"] == split]
            asked = {role: roles[role]["per_class"] for role in sorted(roles) if splits[role] == split}
            rest = len(left) - sum(wanted for wanted in asked.values() if wanted != "all")
            rest = max(rest, 0) // max(list(asked.values()).count("all"), 1)
            asked = {role: rest if wanted == "all" else wanted for role, wanted in asked.items()}
            total = sum(asked.values())
            for role, wanted in asked.items():
                count = wanted if total <= len(left) else wanted * len(left) // total
                total -= wanted
                chosen.append(left[:count].assign(role=role))
                members = members.drop(left.index[:count])
                left = left[count:]
    result = pd.concat(chosen)
    for role in roles:
        if role not in set(result["role"]):
            raise InputError(
                f"No images are left for role '{role}' (split '{splits[role]}', of {len(table)} rows in the manifest)."
            )
    return result.sort_values(["role", "row"], ascending=[False, True], ignore_index=True)


def masked_rows(chosen, dataset):
    """The eval rows of a seed's table. Raises InputError if one has no mask."""
    table = chosen[chosen["role"] == "eval"].reset_index(drop=True)
    bare = table["image"][table["mask"] == ""]
    if len(bare):
        raise InputError(
            f"{len(bare)} eval images of {dataset} have no mask in the manifest, the first {bare.iloc[0]}; add their "
            "masks, or set masks: false in the config."
        )
    return table


class BadPicture(InputError):
    """A picture that is missing or cannot be decoded: path and cause, which says so without the path."""

    def __init__(self, path, cause):
        super().__init__(path, cause)
        self.cause = cause

    def __str__(self):
        return "The picture {} cannot be read: {}. Mend it, or take it out of the manifest.".format(*self.args)


class ImageFiles:
    """Pictures of a table's rows as preprocessed tensors, for `batches`.

    root: the manifest's folder; preprocess: picture -> tensor. Items are (row, tensors): the image, with mask_transform
    also its mask [height, width]; or the InputError that names what cannot be read.
    """

    def __init__(self, table, root, preprocess, mask_transform=None):
        self.images = [Path(root) / name for name in table["image"]]
        self.masks = [Path(root) / name for name in table["mask"]] if mask_transform else None
        self.preprocess, self.mask_transform = preprocess, mask_transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        try:
            picture = open_rgb(self.images[row])
            tensors = (self.preprocess(picture),)
        except BadPicture as error:
            return row, error
        if self.masks is None:
            return row, tensors
        try:
            mask = open_mask(self.masks[row])
            if mask.size != picture.size:
                raise InputError(
                    f"The mask {self.masks[row]} has {mask.width} × {mask.height} pixels, its image {self.images[row]} "
                    f"has {picture.width} × {picture.height}; they must be of one size."
                )
            return row, (*tensors, self.mask_transform(mask)[0])
        except InputError as error:
            return row, InputError(str(error))  # a bad mask is not to be skipped


def batches(files, batch_size, *, workers, on_bad_image="fail", skipped=None):
    """Batches of ImageFiles, decoded in worker processes: (rows, tensors stacked one by one), at most batch_size long.

    on_bad_image: "fail" raises the InputError of a picture that cannot be read; "skip" leaves it out and adds
    {"image": row, "reason": cause} to the list `skipped`
    """
    import torch
    from torch.utils.data import DataLoader

    for items in DataLoader(
        files, batch_size, num_workers=workers, collate_fn=list, pin_memory=torch.cuda.is_available()
    ):
        good = []
        for row, found in items:
            if not isinstance(found, InputError):
                good.append((row, found))
            elif on_bad_image == "skip" and isinstance(found, BadPicture):
                skipped.append({"image": row, "reason": found.cause})
            else:
                raise found
        if good:
            rows, tensors = zip(*good)
            yield list(rows), tuple(torch.stack(parts) for parts in zip(*tensors))


def open_mask(path):
    """A mask as a picture of the values 0 (background), 1 (foreground) and 255 (not labelled).

    Raises InputError for other values, and for 255 without any 1: most likely the foreground was painted white.
    """
    values = np.array(open_picture(path))
    if values.ndim != 2 or not np.isin(values, (0, 1, 255)).all() or (255 in values and 1 not in values):
        raise InputError(
            f"The mask {path} must hold one number a pixel: 0 for background, 1 for foreground, 255 for not labelled; "
            f"it holds {np.unique(values)[:5].tolist()} in shape {list(values.shape)}."
        )
    return Image.fromarray(values.astype(np.uint8))


def open_rgb(path):
    """A picture in RGB, as a viewer shows it: turned as its EXIF data say, transparent parts on white, 16 bit as 8."""
    picture = ImageOps.exif_transpose(open_picture(path))
    if picture.mode.startswith("I"):
        values = np.array(picture)
        if values.min() < 0 or values.max() > 65535:
            raise BadPicture(str(path), f"its values from {values.min()} to {values.max()} are not of 16 bit")
        picture = Image.fromarray((values // 257).astype(np.uint8))
    if picture.mode == "F":
        raise BadPicture(str(path), "it holds floating-point numbers, whose white is not known")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def open_picture(path):
    """A decoded picture. Raises BadPicture naming the file if it is missing or cannot be decoded."""
    try:
        picture = Image.open(path)
        picture.load()
    except (OSError, Image.DecompressionBombError) as error:
        cause = getattr(error, "strerror", None) or str(error).split(" '")[0]
        raise BadPicture(str(path), cause) from error
    return picture
