"""The part of a picture that a tower sees: its preprocessing's resizing and cropping, for pictures and masks."""

from copy import copy

import numpy as np
from open_clip.transform import CenterCropOrPad, ResizeKeepRatio
from PIL import Image
from torchvision import transforms

from clipspectra.data.pictures import open_rgb


def resize_and_crop(preprocess):
    """The resizing and cropping transforms of a model's preprocessing, as a list."""
    kinds = (transforms.Resize, transforms.CenterCrop, ResizeKeepRatio, CenterCropOrPad)
    return [step for step in preprocess.transforms if isinstance(step, kinds)]


def mask_transform(preprocess, image_size, squashed=False):
    """Transform of a mask to an integer tensor [1, height, width]: the image's resize and crop, nearest, padding 255.

    squashed: resize the whole mask to the image's shape instead, as the reference does.
    """
    if squashed:
        steps = [transforms.Resize(tuple(image_size), transforms.InterpolationMode.NEAREST)]
    else:
        steps = [copy(step) for step in resize_and_crop(preprocess)]
        for step in steps:
            if hasattr(step, "interpolation"):
                step.interpolation = transforms.InterpolationMode.NEAREST
            if hasattr(step, "fill"):
                step.fill = 255
    return transforms.Compose([*steps, transforms.PILToTensor()])


def model_view(path, preprocess):
    """A picture resized and cropped as the tower sees it, uint8 [height, width, 3]."""
    return np.array(transforms.Compose(resize_and_crop(preprocess))(open_rgb(path)))


def model_view_box(size, preprocess):
    """(top, left, height, width), in pixels of a picture of size (height, width), of the part that the tower sees."""
    picture, scale, box = Image.new("L", size[::-1]), np.ones(2), np.array([0.0, 0.0, *size])
    for step in resize_and_crop(preprocess):
        before, picture = picture, step(picture)
        if isinstance(step, transforms.CenterCrop | CenterCropOrPad):
            cut = np.array(before.size[::-1]) - picture.size[::-1]
            box = np.array([*(np.round(cut / 2) / scale), *(np.array(picture.size[::-1]) / scale)])
        else:
            scale = np.array(picture.size[::-1]) / size
    return tuple(box)
