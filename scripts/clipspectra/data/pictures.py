"""Pictures and masks from files, as a viewer shows them, and batches of them from worker processes."""

import os
import re
import threading
import time
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from clipspectra import InputError

# Metadata of image generators and colour profiles: good pixels are not refused for a long text beside them.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**26
ORIENTATION, PHOTOMETRIC = 0x0112, 0x0106
TURNS = {  # how EXIF's orientation is undone
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
PATIENCE = 600  # seconds without a single batch, after which a disk or a worker is given up


class BadPicture(InputError):
    """A picture that is missing or cannot be decoded: path and cause, which says so without the path."""

    def __init__(self, path, cause):
        super().__init__(path, cause)
        self.cause = cause

    def __str__(self):
        return "The picture {} cannot be read: {}. Mend it, or take it out of the dataset.".format(*self.args)


class ImageFiles:
    """Pictures of a table's rows as preprocessed tensors, for `batches`.

    root: the manifest's folder; preprocess: picture -> tensor
    mask_transform: mask -> tensor [1, height, width], for items with masks; mask_pixels: see `upright_mask`

    Items are (row, tensors): the image [3, height, width], with mask_transform also its mask [height, width]; or
    (row, the InputError that names what cannot be read).
    """

    def __init__(self, table, root, preprocess, mask_transform=None, mask_pixels=None):
        self.images = [Path(root) / name for name in table["image"]]
        self.masks = [Path(root) / name for name in table["mask"]] if mask_transform else None
        self.preprocess, self.mask_transform, self.mask_pixels = preprocess, mask_transform, mask_pixels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return self.item(row, self.preprocess)

    def item(self, row, preprocess):
        """An item with another preprocessing of its image."""
        try:
            picture = open_rgb(self.images[row])
            tensors = (preprocess(picture),)
        except BadPicture as error:
            return row, error
        except MemoryError as error:
            return row, BadPicture(str(self.images[row]), _cause(error))
        if self.masks is None:
            return row, tensors
        try:
            return row, (*tensors, self.mask_transform(self.mask(row, picture.size))[0])
        except InputError as error:
            return row, InputError(str(error))  # a bad mask is not to be skipped

    def mask(self, row, size=None):
        """The mask of a row as its picture is shown. size: (width, height) of the picture, if it is known."""
        size = size or open_rgb(self.images[row]).size
        return upright_mask(self.masks[row], self.images[row], size, self.mask_pixels)


def batches(files, batch_size, *, workers, on_bad_image="fail", skipped=None, patience=PATIENCE):
    """Batches of ImageFiles, decoded in worker processes: (rows, tensors stacked one by one), at most batch_size long.

    on_bad_image: "fail" raises the InputError of a picture that cannot be read; "skip" leaves it out and adds
    {"image": row, "reason": cause} to the list `skipped`

    Images are handed over as bytes, and through pipes: shared memory and open files, which torch's tensors need, are
    short in containers. Raises InputError if no batch arrives for `patience` seconds, or if a worker is killed.
    """
    import torch
    from torch.utils.data import DataLoader

    options = {"timeout": patience, "worker_init_fn": _end_with_parent} if workers else {}
    decode, finish = _in_two(files.preprocess) if workers else (files.preprocess, None)
    rows = range(len(files))
    collate = partial(_collated, files, decode)
    loader = iter(DataLoader(rows, batch_size, num_workers=workers, collate_fn=collate, **options))
    try:
        while batch := _next(loader, patience):
            rows, arrays, errors = batch
            for row, error in errors:
                if on_bad_image != "skip" or not isinstance(error, BadPicture):
                    raise error
                skipped.append({"image": row, "reason": error.cause})
            if rows:
                images, *masks = map(torch.from_numpy, arrays)
                yield rows, (finish(images) if finish else images, *masks)
    finally:
        del loader  # an error keeps this frame: its workers end now, not when garbage is collected


def _next(loader, patience):
    """The next batch of a DataLoader, None after the last one."""
    try:
        return next(loader, None)
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        raise InputError(_why_no_batch(str(error), patience)) from error


def _in_two(preprocess):
    """A preprocessing as (picture -> bytes, bytes -> numbers, which is what it ends with), or (all of it, None)."""
    from open_clip.transform import MaybeToTensor
    from torchvision import transforms
    from torchvision.transforms.functional import normalize

    *steps, to_tensor, norm = [None, None, *getattr(preprocess, "transforms", ())]
    if type(to_tensor) not in (transforms.ToTensor, MaybeToTensor) or type(norm) is not transforms.Normalize:
        return preprocess, None
    decode = transforms.Compose([*filter(None, steps), transforms.PILToTensor()])
    return decode, lambda images: normalize(images.float().div_(255), norm.mean, norm.std, inplace=True)


def _collated(files, decode, rows):
    """(rows, tensors stacked as arrays, errors by row) of a batch's rows, read here, in a worker."""
    items = [files.item(row, decode) for row in rows]
    errors = [(row, part) for row, part in items if isinstance(part, InputError)]
    good = [(row, part) for row, part in items if not isinstance(part, InputError)]
    rows, parts = zip(*good) if good else ((), ())
    return list(rows), tuple(np.stack([tensor.numpy() for tensor in part]) for part in zip(*parts)), errors


def _end_with_parent(worker):
    """End a worker whose parent was killed: it would wait for ever to hand over its batch."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _why_no_batch(error, patience):
    if "timed out" in error:
        return (
            f"No pictures arrived for {patience} seconds: the disk that holds them does not answer, or the processes "
            "that read them hang. Run again; with threads: 1 the pictures are read without other processes."
        )
    return (
        "A process that reads pictures was killed, most likely for lack of memory; set threads or batch_size lower, or "
        "ask for more memory."
    )


def open_mask(path):
    """A mask as a picture of the values 0 (background), 1 (foreground) and 255 (not labelled), as it is stored.

    Raises InputError for other values, and for 255 without any 1: most likely the foreground was painted white.
    """
    return _checked_mask(open_picture(path), path)


def _checked_mask(picture, path):
    values = np.array(picture)
    if values.ndim != 2 or not np.isin(values, (0, 1, 255)).all() or (255 in values and 1 not in values):
        raise InputError(
            f"The mask {path} must hold one number a pixel: 0 for background, 1 for foreground, 255 for not labelled; "
            f"it holds {np.unique(values)[:5].tolist()} in shape {list(values.shape)}."
        )
    return Image.fromarray(values.astype(np.uint8))


def upright_mask(path, image, size, mask_pixels=None):
    """A mask as its picture is shown, size (width, height).

    A mask with an EXIF orientation of its own is turned by it. One without, of a picture that EXIF turns, lies on the
    pixels as they are stored or as they are shown: its size tells, or else `mask_pixels`, "stored" or "shown".
    Raises InputError where neither does, and where the sizes do not fit.
    """
    stored = open_picture(path)
    own, turn = _orientation_of(path), _orientation_of(image)  # before they are loaded, which turns a TIFF
    mask = _checked_mask(stored, path)
    if own in TURNS:
        mask = mask.transpose(TURNS[own]) if orientation(stored) in TURNS else mask
    elif turn in TURNS:
        turned = mask.transpose(TURNS[turn])
        fits = {kind: part for kind, part in (("stored", turned), ("shown", mask)) if part.size == size}
        if mask_pixels is None and len(fits) == 2:
            raise InputError(
                f"EXIF turns the picture {image} (orientation {turn}), and its mask {path} has no orientation: set "
                "mask_pixels of the dataset to 'stored' or 'shown', the pixels that the masks lie on."
            )
        mask = fits.get(mask_pixels) or next(iter(fits.values()), mask)
    if mask.size != size:
        turns = f", turned by EXIF (orientation {turn})" if turn in TURNS else ""
        raise InputError(
            f"The mask {path} has {mask.width} × {mask.height} pixels, its image {image} has {size[0]} × {size[1]}"
            f"{turns}; they must be of one size."
        )
    return mask


def orientation(picture):
    """EXIF's orientation of a picture, 1 (as stored) where it has none or its EXIF cannot be read."""
    try:
        with _quiet():
            return picture.getexif().get(ORIENTATION, 1)
    except Exception:
        return 1


def _orientation_of(path):
    try:
        with _quiet(), Image.open(path) as picture:
            return orientation(picture)
    except Exception as error:
        raise BadPicture(str(path), _cause(error)) from error


def open_rgb(path):
    """A picture in RGB, as a viewer shows it: turned as its EXIF data say, transparent parts on white, 16 bit as 8.

    Raises BadPicture for what cannot be decoded, and for numbers whose white is not known.
    """
    picture = open_picture(path)
    kind = picture.format
    white_is_0 = kind == "TIFF" and picture.tag_v2.get(PHOTOMETRIC) == 0  # which Pillow heeds in 8 bit only
    try:
        with _quiet():
            picture = ImageOps.exif_transpose(picture)
    except Exception:  # EXIF that cannot be read turns nothing
        turn = TURNS.get(orientation(picture))
        picture = picture if turn is None else picture.transpose(turn)
    try:
        if picture.mode.startswith("I;16") or (picture.mode == "I" and kind in ("PPM", "PNG")):
            values = np.array(picture) // 257
            picture = Image.fromarray((255 - values if white_is_0 else values).astype(np.uint8))
        if picture.mode == "I":
            raise BadPicture(str(path), "it holds integers of 32 bit, whose white is not known")
        if picture.mode == "F":
            raise BadPicture(str(path), "it holds floating-point numbers, whose white is not known")
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return picture.convert("RGB")
    except BadPicture:
        raise
    except Exception as error:
        raise BadPicture(str(path), _cause(error)) from error


def open_picture(path):
    """A decoded picture. Raises BadPicture naming the file for whatever Pillow raises, and for what it warns of."""
    try:
        # By the open file: of a TIFF's path, Pillow maps turned pictures by their sides as shown, and scrambles them.
        with _quiet(), open(path, "rb") as file:
            picture = Image.open(file)
            picture.load()
    except Exception as error:
        phone = str(path).lower().endswith((".heic", ".heif"))
        cause = "HEIC is not read here, convert it to JPEG" if phone else _cause(error)
        raise BadPicture(str(path), cause) from error
    return picture


@contextmanager
def _quiet():
    """Pillow's warnings, which name no file: those of pictures that may be bombs are errors, others of no account."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _cause(error):
    """What an error of Pillow says, without the path."""
    said = getattr(error, "strerror", None) or re.split(r" ['<]", str(error))[0].rstrip(".")
    return said or {"MemoryError": "it needs more memory than there is"}.get(type(error).__name__, type(error).__name__)
