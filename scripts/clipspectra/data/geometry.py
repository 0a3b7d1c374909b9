"""What a tower sees of a picture: the resizing and cropping of its preprocessing, for pictures and masks alike."""

from copy import copy

import numpy as np
from open_clip.transform import CenterCropOrPad, ResizeKeepRatio
from PIL import Image
from torchvision import transforms

from clipspectra.data.pictures import open_rgb


def spatial(preprocess):
    """The resizing and cropping that a model's preprocessing begins with, as a list of transforms of pictures."""
    kinds = (transforms.Resize, transforms.CenterCrop, ResizeKeepRatio, CenterCropOrPad)
    return [step for step in preprocess.transforms if isinstance(step, kinds)]


def mask_transform(preprocess, image_size, squashed=False):
    """A mask's way to an integer tensor [1, height, width]: the image's own resize and crop, unblended, padding 255.

    squashed: as the reference does instead, the whole mask resized to the image's shape.
    """
    if squashed:
        steps = [transforms.Resize(tuple(image_size), transforms.InterpolationMode.NEAREST)]
    else:
        steps = [copy(step) for step in spatial(preprocess)]
        for step in steps:
            if hasattr(step, "interpolation"):
                step.interpolation = transforms.InterpolationMode.NEAREST
            if hasattr(step, "fill"):
                step.fill = 255
    return transforms.Compose([*steps, transforms.PILToTensor()])


def model_view(path, preprocess):
    """A picture as the tower sees it, resized and cropped, uint8 [height, width, 3]."""
    return np.array(transforms.Compose(spatial(preprocess))(open_rgb(path)))


def model_view_box(size, preprocess):
    """(top, left, height, width) of what the tower sees of a picture, in its own pixels. size: its (height, width)."""
    picture, scale, box = Image.new("L", size[::-1]), np.ones(2), np.array([0.0, 0.0, *size])
    for step in spatial(preprocess):
        before, picture = picture, step(picture)
        if isinstance(step, transforms.CenterCrop | CenterCropOrPad):
            cut = np.array(before.size[::-1]) - picture.size[::-1]
            box = np.array([*(np.round(cut / 2) / scale), *(np.array(picture.size[::-1]) / scale)])
        else:
            scale = np.array(picture.size[::-1]) / size
    return tuple(box)
