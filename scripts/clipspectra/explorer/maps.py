"""Maps over pictures: where in a picture a component, a class or a text finds its evidence, as layers of colour."""

import matplotlib
import numpy as np
from PIL import Image

from clipspectra.explorer.pictures import save_webp

SIDE = 168  # pixels of a picture and of each of its maps
SIGNED, POSITIVE = "RdBu_r", "cividis"  # as in the figures


def signed_layer(values):
    """Values [row, column] as a picture with transparency: red above 0, blue below, clear at 0; on its own scale."""
    limit = max(np.abs(values).max(), 1e-12)
    return _layer(values / limit, SIGNED, lambda v: (v + 1) / 2, np.abs)


def positive_layer(values):
    """Values in [0, 1] [row, column] as a picture with transparency: clear at 0."""
    return _layer(values, POSITIVE, np.asarray, np.asarray)


def _layer(values, colours, place, strength):
    smooth = Image.fromarray(np.nan_to_num(values).astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    values = np.asarray(smooth)
    pixels = np.round(255 * matplotlib.colormaps[colours](place(values))).astype(np.uint8)
    pixels[..., 3] = np.round(215 * np.clip(strength(values), 0, 1)).astype(np.uint8)
    return Image.fromarray(pixels, "RGBA")


def save_strip(path, picture, layers):
    """Write a picture, uint8 [height, width, 3], and layers of colour side by side, the picture first, as one WebP."""
    strip = Image.new("RGBA", (SIDE * (1 + len(layers)), SIDE))
    strip.paste(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC), (0, 0))
    for number, layer in enumerate(layers):
        strip.paste(layer, (SIDE * (number + 1), 0))
    save_webp(path, strip)
