"""The demo world: real handwritten digits drawn on real photographed textures.

Every image has five factors (digit, ink colour, texture, size, position), and captions mention any subset of
them. Handwriting comes from scikit-learn (1,797 digits), textures from photographs that ship inside the
scikit-image and scikit-learn wheels. Training and test images share neither a digit nor a texture region,
so test accuracy measures generalisation. The demo datasets and the demo models' training both draw from it.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

IMAGE_SIZE = 64

# factor -> value -> the phrases a caption may use for it
FACTORS = {
    "digit": {
        name: (name, str(number))
        for number, name in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    },
    "colour": {name: (name,) for name in ["red", "green", "blue", "yellow", "orange", "purple", "pink", "white"]},
    "texture": {
        "brick": ("brick", "a brick wall"),
        "grass": ("grass", "a lawn"),
        "gravel": ("gravel", "pebbles"),
        "wood": ("wood", "a wooden table"),
        "fur": ("fur", "cat fur"),
        "stars": ("stars", "outer space"),
        "moon": ("the moon", "lunar ground"),
        "sky": ("the sky", "a clear sky"),
    },
    "size": {"large": ("large", "big"), "small": ("small", "tiny")},
    "position": {
        "left": ("on the left", "at the left side"),
        "right": ("on the right", "at the right side"),
        "top": ("at the top", "in the upper part"),
        "bottom": ("at the bottom", "in the lower part"),
        "centre": ("in the centre", "in the middle"),
    },
}
VALUES = {factor: list(phrases) for factor, phrases in FACTORS.items()}
NOUNS = ("digit", "number")
PREFIXES = ("a photo of", "a picture of", "an image of", "", "", "a close photo of")

# The spurious pairing, in the manner of Waterbirds: low digits on the ground, high digits in the sky.
PLACES = {"ground": ("brick", "grass", "gravel", "wood"), "sky": ("stars", "moon", "sky")}
CLASSES = {"low": range(0, 5), "high": range(5, 10)}

INK = {
    "red": (215, 25, 30), "green": (25, 160, 45), "blue": (35, 70, 225), "yellow": (245, 225, 30),
    "orange": (250, 130, 15), "purple": (130, 35, 165), "pink": (255, 130, 190), "white": (250, 250, 250),
}  # fmt: skip
CENTRES = {
    "left": (0.33, 0.5), "right": (0.67, 0.5), "top": (0.5, 0.33), "bottom": (0.5, 0.67), "centre": (0.5, 0.5),
}  # fmt: skip

# texture -> (photograph, box left/top/right/bottom as a share of its sides, side of a crop in its pixels)
_REGIONS = {
    "train": {
        "brick": [("brick.png", (0, 0, 0.7, 1), (90, 150))],
        "grass": [("grass.png", (0, 0, 0.7, 1), (70, 140))],
        "gravel": [("gravel.png", (0, 0, 0.7, 1), (70, 140))],
        "wood": [
            ("coffee.png", (0.8, 0, 1, 0.35), (60, 100)),
            ("coffee.png", (0.8, 0.65, 1, 1), (60, 100)),
            ("coffee.png", (0, 0.35, 0.13, 1), (60, 78)),
        ],
        "fur": [("chelsea.png", (0.28, 0, 0.75, 0.32), (50, 85)), ("chelsea.png", (0, 0.55, 0.33, 1), (50, 85))],
        "stars": [("hubble_deep_field.jpg", (0, 0, 0.7, 1), (110, 220))],
        "moon": [("moon.png", (0, 0, 0.7, 1), (70, 140))],
        "sky": [("rocket.jpg", (0.2, 0, 0.45, 0.7), (60, 110)), ("china.jpg", (0.55, 0, 1, 0.33), (60, 120))],
    },
    "test": {
        "brick": [("brick.png", (0.7, 0, 1, 1), (90, 150))],
        "grass": [("grass.png", (0.7, 0, 1, 1), (70, 140))],
        "gravel": [("gravel.png", (0.7, 0, 1, 1), (70, 140))],
        "wood": [("coffee.png", (0.8, 0.35, 1, 0.65), (60, 100))],
        "fur": [("chelsea.png", (0, 0, 0.24, 0.4), (50, 85))],
        "stars": [("hubble_deep_field.jpg", (0.7, 0, 1, 1), (110, 220))],
        "moon": [("moon.png", (0.7, 0, 1, 1), (70, 140))],
        "sky": [("rocket.jpg", (0.56, 0, 0.76, 0.7), (60, 110)), ("china.jpg", (0, 0, 0.2, 0.22), (60, 90))],
    },
}  # fmt: skip

_CELLS = 12  # a digit's 8 x 8 cells with a margin of 2 on each side
_VALIDATION_DIGITS = 150  # training digits held out from the demo models, to monitor their training


def _folder(package):
    """Folder of an installed package, whose files are read without importing it: that takes longer than drawing."""
    return Path(find_spec(package).origin).parent


@cache
def _handwriting(split):
    """Digits of one split as (list of 8-bit pictures of 48 x 48 pixels, labels)."""
    data = np.loadtxt(_folder("sklearn") / "datasets" / "data" / "digits.csv.gz", delimiter=",", dtype=int)
    grids, labels = data[:, :-1].reshape(-1, 8, 8), data[:, -1]
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[:1297], order[1297:]
    rows = {
        "train": train,
        "test": test,
        "fitting": train[_VALIDATION_DIGITS:],
        "validation": train[:_VALIDATION_DIGITS],
    }[split]
    pictures = [
        Image.fromarray(np.pad(grids[row] * (255 / 16), 2).astype(np.uint8)).resize(
            (4 * _CELLS, 4 * _CELLS), Image.Resampling.BICUBIC
        )
        for row in rows
    ]
    return pictures, labels[rows]


@cache
def _photographs(split):
    """texture -> list of (cropped photograph, range of crop sides)."""
    folders = [_folder("skimage") / "data", _folder("sklearn") / "datasets" / "images"]

    def region(name, box, sides):
        path = next(folder / name for folder in folders if (folder / name).exists())
        photograph = Image.open(path).convert("RGB")
        return photograph.crop([int(share * side) for share, side in zip(box, photograph.size * 2)]), sides

    return {texture: [region(*entry) for entry in entries] for texture, entries in _REGIONS[split].items()}


class World:
    """One split of the demo world.

    split: "train" or "test"; "fitting" and "validation" are two disjoint parts of "train" (in handwriting)
    that the demo models' training uses.
    """

    def __init__(self, split):
        self.digits, labels = _handwriting(split)
        self.rows_by_digit = [np.flatnonzero(labels == digit) for digit in range(10)]
        self.photographs = _photographs("test" if split == "test" else "train")

    def draw_factors(self, rng, images, *, agreement=None, empty=0.0):
        """Factor values of `images` images as indices into VALUES, int array [image, factor].

        agreement: share of images whose digit class (CLASSES) matches their place (PLACES), the same in either class,
        and all digits equally often; None for independent factors. empty: share of images with a texture only;
        their other factors are -1.
        """
        factors = np.stack([rng.integers(0, len(values), images) for values in VALUES.values()], axis=1)
        if agreement is not None:
            factors[:, 0] = rng.permutation(images) % 10
            high = factors[:, 0] >= 5
            agree = np.empty(images, bool)
            for digit_class in (high, ~high):
                count = digit_class.sum()
                # A fraction is rounded up with its own probability.
                agreeing = int(round(agreement * count, 6) + rng.random())
                agree[digit_class] = rng.permutation(count) < agreeing
            sky = high == agree
            for place, in_place in (("ground", ~sky), ("sky", sky)):
                textures = [VALUES["texture"].index(texture) for texture in PLACES[place]]
                factors[in_place, 2] = rng.choice(textures, in_place.sum())
        is_empty = rng.random(images) < empty
        if is_empty.any():
            factors[is_empty] = [[-1, -1, texture, -1, -1] for texture in rng.integers(0, 8, is_empty.sum())]
        return factors

    def draw_pair(self, factors, changed, rng):
        """Indices into VALUES of the second image of a pair [factor]: those of the first, but for one factor."""
        others = np.delete(np.arange(len(VALUES[changed])), factors[list(VALUES).index(changed)])
        return np.where(np.array(list(VALUES)) == changed, rng.choice(others), factors)

    def render(self, factors, rng, background_rng=None):
        """Draw an image from indices into VALUES [factor]: (uint8 [height, width, 3], bool mask of the ink).

        background_rng: what draws the background, if not rng. With both generators in the same state, two images that
        differ in one factor differ in nothing else: crop, handwriting, strokes and place are the same.
        """
        digit, colour, texture, size, position = (int(value) for value in factors)
        picture = self._background(VALUES["texture"][texture], background_rng or rng)
        if digit < 0:
            return picture.round().clip(0, 255).astype(np.uint8), np.zeros((IMAGE_SIZE, IMAGE_SIZE), bool)
        side = rng.uniform(0.62, 0.70) if VALUES["size"][size] == "large" else rng.uniform(0.40, 0.46)
        centre = np.array(CENTRES[VALUES["position"][position]]) + rng.uniform(-0.035, 0.035, 2)
        strokes = self._strokes(self.digits[rng.choice(self.rows_by_digit[digit])], side, centre, rng)
        opacity = 1 / (1 + np.exp(-14 * (strokes - 0.42)))
        opacity = np.where(opacity > 0.03, opacity, 0)[:, :, None]
        ink = np.array(INK[VALUES["colour"][colour]]) + rng.uniform(-18, 18, 3)
        picture = picture * (1 - opacity) + ink * opacity + rng.normal(0, 3, picture.shape)
        return picture.round().clip(0, 255).astype(np.uint8), opacity[:, :, 0] > 0.5

    def _background(self, texture, rng):
        """A random crop of the texture with jittered contrast and brightness, float [height, width, 3]."""
        regions = self.photographs[texture]
        photograph, sides = regions[rng.integers(len(regions))]
        side = min(int(rng.integers(sides[0], sides[1] + 1)), *photograph.size)
        left, top = (int(rng.integers(0, length - side + 1)) for length in photograph.size)
        method = Image.Resampling.BOX if side > IMAGE_SIZE else Image.Resampling.BICUBIC
        crop = photograph.resize((IMAGE_SIZE, IMAGE_SIZE), method, (left, top, left + side, top + side))
        picture = np.asarray(crop, np.float32)
        if rng.random() < 0.5:
            picture = picture[:, ::-1]
        mean = picture.mean((0, 1))
        return (picture - mean) * rng.uniform(0.75, 1.15) + np.minimum(mean * rng.uniform(0.75, 1.15), 175)

    @staticmethod
    def _strokes(digit, side, centre, rng):
        """The digit turned, sheared, scaled to `side` and moved to `centre` (shares of the image), [height, width]."""
        angle, shear, stretch = rng.uniform(-0.15, 0.15), rng.uniform(-0.125, 0.125), rng.uniform(0.9, 1.1)
        turn = np.array([[np.cos(angle) / stretch, np.sin(angle) + shear], [-np.sin(angle), np.cos(angle)]])
        to_source = turn * (4 * 8 / (side * IMAGE_SIZE))  # image pixels -> pixels of the digit's picture
        shift = 4 * _CELLS / 2 - to_source @ (centre * IMAGE_SIZE)
        affine = (*to_source[0], shift[0], *to_source[1], shift[1])
        moved = digit.transform((IMAGE_SIZE, IMAGE_SIZE), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
        return np.asarray(moved, np.float32) / 255


def caption(values, *, prefix="a photo of", phrasing=(0, 0, 0, 0, 0), noun=0, place_first=True):
    """A caption in the demo's language.

    values: index into VALUES for each factor, -1 if not mentioned. phrasing: which phrase of each value.
    """

    def phrase(factor):
        index = list(VALUES).index(factor)
        if values[index] < 0:
            return ""
        phrases = FACTORS[factor][VALUES[factor][values[index]]]
        return phrases[phrasing[index] % len(phrases)]

    texture = phrase("texture")
    if texture and all(value < 0 for index, value in enumerate(values) if index != 2):
        return f"{prefix} {texture}".strip()
    tail = [f"on {texture}" if texture else "", phrase("position")]
    words = [
        prefix,
        "a",
        phrase("size"),
        phrase("colour"),
        phrase("digit") or NOUNS[noun],
        *(tail if place_first else tail[::-1]),
    ]
    return " ".join(word for word in words if word)


def text_pool():
    """A few hundred captions of the demo's language: every value of one factor, and every pair of values of two."""
    names = list(VALUES)
    pool = []
    for first in range(len(names)):
        for value in range(len(VALUES[names[first]])):
            single = [-1] * len(names)
            single[first] = value
            pool += [caption(single, phrasing=(choice,) * 5, noun=choice) for choice in (0, 1)]
            for second in range(first + 1, len(names)):
                for second_value in range(len(VALUES[names[second]])):
                    pool.append(caption([*single[:second], second_value, *single[second + 1 :]]))
    return list(dict.fromkeys(pool))


def describe(factors, spurious):
    """Manifest columns of an image: its factors by name, and label, class and group.

    The class is the digit; in a spurious world it is the digit class (low, high), and the group is class and place.
    """
    named = {factor: values[value] for (factor, values), value in zip(VALUES.items(), factors)}
    if not spurious:
        return named | {"label": int(factors[0]), "class": named["digit"], "group": ""}
    low_or_high = next(name for name, digits in CLASSES.items() if factors[0] in digits)
    place = next(name for name, textures in PLACES.items() if named["texture"] in textures)
    label = list(CLASSES).index(low_or_high)
    return named | {"label": label, "class": low_or_high, "group": f"{low_or_high} on {place}"}
