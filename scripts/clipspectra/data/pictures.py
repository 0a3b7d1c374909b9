"""Pictures and masks from files, turned as a viewer shows them, and batches of them from worker processes."""

import hashlib
import re
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from clipspectra import InputError
from clipspectra.data.store import picture_ids
from clipspectra.data.tars import opened
from clipspectra.processes import end_with_parent

# Image generators and colour profiles write long metadata; readable pixels are not refused because of it.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**26
ORIENTATION, PHOTOMETRIC = 0x0112, 0x0106
TURNS = {  # EXIF orientation -> the transposition that undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BATCH_TIMEOUT = 600  # seconds to wait for a batch before giving up on the disk or the workers


class BadPicture(InputError):
    """A picture that is missing or cannot be decoded: its path and the cause, a phrase without the path."""

    def __init__(self, path, cause):
        super().__init__(path, cause)
        self.cause = cause

    def __str__(self):
        return "The picture {} cannot be read: {}. Repair it, or remove it from the dataset.".format(*self.args)


class ImageFiles:
    """Pictures of a table's rows as preprocessed tensors, for `batches`.

    root: the manifest's folder; preprocess: picture -> tensor
    mask_transform: mask -> tensor [1, height, width], for items with masks; mask_pixels: see `upright_mask`
    ids: store.picture_ids of the images alone [image], where it is known what they were; others are refused

    Items are (row, tensors): the image [3, height, width], with mask_transform also its mask [height, width]; or
    (row, the InputError that names what cannot be read).
    """

    def __init__(self, table, root, preprocess, mask_transform=None, mask_pixels=None, ids=None):
        self.images = [Path(root) / name for name in table["image"]]
        self.masks = [Path(root) / name for name in table["mask"]] if mask_transform else None
        self.preprocess, self.mask_transform, self.mask_pixels = preprocess, mask_transform, mask_pixels
        self.ids = [None] * len(self.images) if ids is None else ids

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return self.item(row, self.preprocess)

    def item(self, row, preprocess):
        """The item of a row, with another preprocessing of its image."""
        try:
            picture = open_rgb(self.images[row], self.ids[row])
            tensors = (preprocess(picture),)
        except BadPicture as error:
            return row, error
        except InputError as error:
            return row, InputError(str(error))  # a picture, or a tar, that was changed must not be skipped
        except MemoryError as error:
            return row, BadPicture(str(self.images[row]), _cause(error))
        if self.masks is None:
            return row, tensors
        try:
            return row, (*tensors, self.mask_transform(self.mask(row, picture.size))[0])
        except InputError as error:
            return row, InputError(str(error))  # a bad mask must not be skipped

    def mask(self, row, size=None):
        """The mask of a row, turned like its picture. size: (width, height) of the picture, if known."""
        size = size or open_rgb(self.images[row]).size
        return upright_mask(self.masks[row], self.images[row], size, self.mask_pixels)


def filled(count, batch_size):
    """Indices that fill a batch of `count` images up to batch_size with its last one.

    What is computed for an image must not depend on how many others there are, and matrices of other sizes are
    multiplied in another order. (jobs.py sees to it that its place in the batch does not matter.)
    """
    return [*range(count), *[-1] * (batch_size - count)]


def named_skipped(skipped, table):
    """The pictures that `batches` skipped, [{"image", "reason"}], by their names in the table instead of their rows."""
    names = table["image"].to_numpy()
    return [picture | {"image": names[picture["image"]]} for picture in skipped]


def check_readable(skipped, table):
    """Raise InputError if the named_skipped pictures are all images of a table."""
    if len(skipped) == len(table):
        first = skipped[0]
        raise InputError(
            f"None of the {len(table)} images can be read; the first, {first['image']}: {first['reason']}."
        )


def batches(files, batch_size, *, workers, device="cpu", on_bad_image="fail", skipped=None, patience=BATCH_TIMEOUT):
    """Batches of ImageFiles, decoded in worker processes: (rows, stacked tensors), at most batch_size long.

    device: torch device that the images are on, and are normalised on; masks stay on the CPU
    on_bad_image: "fail" raises the InputError of a picture that cannot be read; "skip" leaves it out and adds
    {"image": row, "reason": cause} to the list `skipped`

    Workers send images as bytes through pipes: shared memory and open files, which torch's tensors need, are scarce
    in containers. Raises InputError if no batch arrives for `patience` seconds, or if a worker is killed.
    """
    import torch
    from torch.utils.data import DataLoader

    options = {"timeout": patience, "worker_init_fn": end_with_parent} if workers else {}
    decode, normalise_images = _split_preprocess(files.preprocess) if workers else (files.preprocess, None)
    rows = range(len(files))
    collate = partial(_collate, files, decode)
    loader = iter(DataLoader(rows, batch_size, num_workers=workers, collate_fn=collate, **options))
    try:
        while batch := _next_batch(loader, patience):
            rows, arrays, errors = batch
            for row, error in errors:
                if on_bad_image != "skip" or not isinstance(error, BadPicture):
                    raise error
                skipped.append({"image": row, "reason": error.cause})
            if rows:
                images, *masks = map(torch.from_numpy, arrays)
                if torch.device(device).type == "cuda":
                    images = images.pin_memory()  # else the copy waits for all that the device has been told to do
                images = images.to(device, non_blocking=True)
                yield rows, (normalise_images(images) if normalise_images else images, *masks)
    finally:
        del loader  # an error keeps this frame alive: end the workers now, not at garbage collection


def _next_batch(loader, patience):
    """The next batch of a DataLoader, None after the last one."""
    try:
        return next(loader, None)
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        raise InputError(_loader_message(str(error), patience)) from error


def _split_preprocess(preprocess):
    """A preprocessing split into (picture -> bytes, bytes -> normalised numbers), or (preprocess, None)."""
    from open_clip.transform import MaybeToTensor
    from torchvision import transforms
    from torchvision.transforms.functional import normalize

    *steps, to_tensor, norm = [None, None, *getattr(preprocess, "transforms", ())]
    if type(to_tensor) not in (transforms.ToTensor, MaybeToTensor) or type(norm) is not transforms.Normalize:
        return preprocess, None
    decode = transforms.Compose([*filter(None, steps), transforms.PILToTensor()])
    return decode, lambda images: normalize(images.float().div_(255), norm.mean, norm.std, inplace=True)


def _collate(files, decode, rows):
    """(rows, stacked arrays, [(row, error)]) of a batch's rows, which are read here, in the worker."""
    items = [files.item(row, decode) for row in rows]
    errors = [(row, content) for row, content in items if isinstance(content, InputError)]
    readable = [(row, content) for row, content in items if not isinstance(content, InputError)]
    rows, tensors = zip(*readable) if readable else ((), ())
    return list(rows), tuple(np.stack([tensor.numpy() for tensor in stack]) for stack in zip(*tensors)), errors


def _loader_message(error, patience):
    """The user's message for an error of the DataLoader."""
    if "timed out" in error:
        return (
            f"No pictures arrived for {patience} seconds: the disk that holds them does not answer, or the processes "
            "that read them hang. Run again; with threads: 1 the main process reads them."
        )
    return (
        "A process that reads pictures was killed, most likely for lack of memory; set threads or batch_size lower, or "
        "request more memory."
    )


def open_mask(path):
    """A mask as a picture of the values 0 (background), 1 (foreground) and 255 (not labelled), as it is stored.

    Raises InputError for other values, and for 255 without any 1: the foreground is most likely white.
    """
    return _check_mask(open_picture(path), path)


def _check_mask(picture, path):
    values = np.array(picture)
    if values.ndim != 2 or not np.isin(values, (0, 1, 255)).all() or (255 in values and 1 not in values):
        raise InputError(
            f"The mask {path} must hold one number per pixel: 0 for background, 1 for foreground, 255 for not labelled"
            f"; it holds {np.unique(values)[:5].tolist()} in shape {list(values.shape)}."
        )
    return Image.fromarray(values.astype(np.uint8))


def upright_mask(path, image, size, mask_pixels=None):
    """A mask turned like its picture, which is shown in size (width, height).

    A mask with its own EXIF orientation is turned by it. If only the picture has one, the mask may fit its pixels as
    stored or as shown: decided by the mask's size, or else by `mask_pixels`, "stored" or "shown". Raises InputError if
    neither decides, and if the sizes differ.
    """
    stored = open_picture(path)
    mask_turn, turn = _file_orientation(path), _file_orientation(image)  # unloaded: loading turns a TIFF
    mask = _check_mask(stored, path)
    if mask_turn in TURNS:
        mask = mask.transpose(TURNS[mask_turn]) if orientation(stored) in TURNS else mask
    elif turn in TURNS:
        turned = mask.transpose(TURNS[turn])
        fits = {pixels: fit for pixels, fit in (("stored", turned), ("shown", mask)) if fit.size == size}
        if mask_pixels is None and len(fits) == 2:
            raise InputError(
                f"EXIF turns the picture {image} (orientation {turn}), and its mask {path} has no orientation: set "
                "mask_pixels of the dataset to 'stored' or 'shown', the pixels that its masks were drawn on."
            )
        mask = fits.get(mask_pixels) or next(iter(fits.values()), mask)
    if mask.size != size:
        turns = f", turned by EXIF (orientation {turn})" if turn in TURNS else ""
        raise InputError(
            f"The mask {path} has {mask.width} × {mask.height} pixels, its image {image} has {size[0]} × {size[1]}"
            f"{turns}; they must have the same size."
        )
    return mask


def orientation(picture):
    """EXIF's orientation of a picture, 1 (as stored) where it has none or its EXIF cannot be read."""
    try:
        with _quiet():
            return picture.getexif().get(ORIENTATION, 1)
    except Exception:
        return 1


def _file_orientation(path):
    try:
        with _quiet(), opened(path) as file, Image.open(file) as picture:
            return orientation(picture)
    except InputError:
        raise
    except Exception as error:
        raise BadPicture(str(path), _cause(error)) from error


def open_rgb(path, picture_id=None):
    """A picture in RGB, as a viewer shows it: turned by its EXIF data, transparent parts on white, 16 bit as 8.

    picture_id: of store.picture_ids, where it is known what the file was; raises InputError if it is another one now.
    Raises BadPicture if it cannot be decoded, and for numbers whose white is unknown.
    """
    picture = open_picture(path, picture_id)
    file_format = picture.format
    white_is_0 = file_format == "TIFF" and picture.tag_v2.get(PHOTOMETRIC) == 0  # Pillow heeds it in 8 bit only
    try:
        with _quiet():
            picture = ImageOps.exif_transpose(picture)
    except Exception:  # EXIF that cannot be read
        turn = TURNS.get(orientation(picture))
        picture = picture if turn is None else picture.transpose(turn)
    try:
        if picture.mode.startswith("I;16") or (picture.mode == "I" and file_format in ("PPM", "PNG")):
            values = np.array(picture) // 257
            picture = Image.fromarray((255 - values if white_is_0 else values).astype(np.uint8))
        if picture.mode == "I":
            raise BadPicture(str(path), "it holds integers of 32 bit, whose white is unknown")
        if picture.mode == "F":
            raise BadPicture(str(path), "it holds floating-point numbers, whose white is unknown")
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return picture.convert("RGB")
    except BadPicture:
        raise
    except Exception as error:
        raise BadPicture(str(path), _cause(error)) from error


def open_picture(path, picture_id=None):
    """A decoded picture. Raises BadPicture, naming the file, for any error of Pillow and for possible bombs.

    picture_id: as in open_rgb
    """
    try:
        # From an open file: given a path, Pillow maps turned TIFFs with their sides swapped, and scrambles them.
        with _quiet(), opened(path) as file:
            if picture_id is not None:
                if picture_ids([hashlib.file_digest(file, "sha256").hexdigest()])[0] != picture_id:
                    raise InputError(
                        f"The picture {path} has changed since the images were chosen. Run again; if this comes again, "
                        "with --forcerun choose_images."
                    )
                file.seek(0)
            picture = Image.open(file)
            picture.load()
            if picture.format == "PNG":  # Pillow heeds the check sums of its pixels here only
                file.seek(0)
                Image.open(file).verify()
    except InputError:
        raise
    except Exception as error:
        is_heic = str(path).lower().endswith((".heic", ".heif"))
        cause = "HEIC is not supported, convert it to JPEG" if is_heic else _cause(error)
        raise BadPicture(str(path), cause) from error
    return picture


@contextmanager
def _quiet():
    """Turn Pillow's warnings of decompression bombs into errors, and silence the others: none names a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _cause(error):
    """The message of an error of Pillow, without the path."""
    message = getattr(error, "strerror", None) or re.split(r" ['<]", str(error))[0].rstrip(".")
    return message or {"MemoryError": "it needs more memory than there is"}.get(
        type(error).__name__, type(error).__name__
    )
