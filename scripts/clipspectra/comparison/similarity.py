"""How alike the heads of two models are in what they say over the same images: centred kernel alignment (CKA).

CKA compares which images a head tells apart, and how far, whatever the space it writes into: heads of different widths
and joint spaces can be compared (Kornblith et al. 2019). It is 1 for heads that differ by a rotation and a scale. The
debiased estimate is used (Song et al. 2012; Székely and Rizzo 2014): for unrelated heads it is 0 on average however few
images there are, where the plain one grows with the number of dimensions per image.

Only sums over images are kept, one pair of layers at a time, and the cross-moments of chosen pairs of heads.
"""

from dataclasses import dataclass

import numpy as np

from clipspectra import InputError
from clipspectra.jobs import progress

FEWEST_IMAGES = 4  # of which debiased products exist


class HeadRows:
    """The heads' contributions on a model's scored images about their mean, in an orthonormal frame of each head.

    stored: StoredActivations; frames: [layer][head] of [d_embed, width], with contribution = mean + frame @ row
    """

    def __init__(self, stored):
        self.stored, self.layers = stored, list(stored.layers)
        self.frames, self.triangles, self.means = {}, {}, {}
        for layer in progress(self.layers, "means of heads", unit="layer"):
            self.frames[layer], self.triangles[layer] = np.linalg.qr(stored.basis[layer].astype(np.float64))
            sums = [q[inside].sum(0) for q, inside in zip(stored.reduced(layer), stored.by_chunk(stored.scored))]
            self.means[layer] = np.sum(sums, axis=0) / stored.scored.sum()

    def rows(self, layer):
        """Rows of the scored images, chunk by chunk, float64 [image, head, width]."""
        for q, inside in zip(self.stored.reduced(layer), self.stored.by_chunk(self.stored.scored)):
            if inside.any():
                by_head = (q[inside] - self.means[layer]).transpose(1, 0, 2)  # [head, image, coordinate]
                yield (by_head @ self.triangles[layer].transpose(0, 2, 1)).transpose(1, 0, 2)


def inner_products(first, second, layer, other_layer):
    """(debiased inner products [head, other head], cross-moments [head, width, other head, other width]) of two layers.

    first, second: HeadRows of the same images in the same order. The first are sums over pairs of different images of
    the products of their U-centred similarities in either head, but for a factor that CKA does not depend on.
    """
    moments, own, other, together, count = 0.0, 0.0, 0.0, 0.0, 0
    for x, y in zip(first.rows(layer), second.rows(other_layer), strict=True):
        moments = moments + x.reshape(len(x), -1).T @ y.reshape(len(y), -1)
        lengths, other_lengths = (x**2).sum(-1), (y**2).sum(-1)  # [image, head]
        own, other, together = own + lengths.sum(0), other + other_lengths.sum(0), together + lengths.T @ other_lengths
        count += len(x)
    moments = moments.reshape(*x.shape[1:], *y.shape[1:])
    # Rows are about their mean, so all sums over rows of the kernels are 0, and the general formula comes down to this.
    products = (moments**2).sum((1, 3)) - together * count / (count - 2)
    return products + np.outer(own, other) / ((count - 1) * (count - 2)), moments


@dataclass
class Similarity:
    """How alike the heads of two models are.

    units, other_units: (layer, head) of each row and each column; cka: [head, other head], NaN for a constant head
    pairs: {(unit, other unit): cross-moments [width, other width]} of each head with its most alike one, and with the
    one at its place
    covariance, other_covariance: {unit: sums of products of a head's rows [width, width]}
    images: their number; has_places: whether the towers have the same shape, so that places can be compared
    """

    units: list
    other_units: list
    cka: np.ndarray
    pairs: dict
    covariance: dict
    other_covariance: dict
    images: int
    has_places: bool

    def partners(self, unit):
        """{how a head is compared: the head of the other model}, of "same place" and "most alike", as there are."""
        row = self.cka[self.units.index(unit)]
        partners = {"same place": unit} if self.has_places and unit in self.other_units else {}
        return partners if np.isnan(row).all() else partners | {"most alike": self.other_units[np.nanargmax(row)]}

    def ranks(self, unit, other):
        """{"cka", "rank", "rank_back", "cka_others"} of a pair of heads.

        rank: of the other head among all as seen from the first, and rank_back of the first as seen from the other (1:
        most alike); cka_others: median CKA of the first with all the rest, NaN without a rest
        """
        row, column = self.units.index(unit), self.other_units.index(other)
        value, of_row, of_column = self.cka[row, column], self.cka[row], self.cka[:, column]
        rest = np.delete(of_row, column)
        rest = rest[~np.isnan(rest)]
        ranks = [np.nan if np.isnan(value) else 1 + (values > value).sum() for values in (of_row, of_column)]
        others = np.median(rest) if len(rest) else np.nan
        return {"cka": value, "rank": ranks[0], "rank_back": ranks[1], "cka_others": others}


def check_images(first, second):
    """Raise InputError unless two StoredActivations hold the same images, four of them scored at least."""
    rows, other_rows = (stored.images.set_index("row")["image"] for stored in (first, second))
    if not rows.index.equals(other_rows.index):
        lacking = rows[~rows.index.isin(other_rows.index)], other_rows[~other_rows.index.isin(rows.index)]
        names = [*lacking[0], *lacking[1]]
        what = f"{len(names)} images are stored for one of them only, the first {names[0]}" if names else "their order"
        raise InputError(
            f"The two models are not stored on the same images: {what}; remove the shards of both (beside "
            f"{first.chunks[0].paths[0]}), and run again."
        )
    if not (first.images["image_sha256"].to_numpy() == second.images["image_sha256"].to_numpy()).all():
        raise InputError(
            "The two models are stored on other pictures under the same rows; compare them on one dataset."
        )
    if first.scored.sum() < FEWEST_IMAGES:
        raise InputError(
            f"Heads are compared over {first.scored.sum()} eval images, but it takes {FEWEST_IMAGES} at least; raise "
            "'per_class' of the dataset's role eval."
        )


def compare_heads(first, second, is_constant, other_is_constant):
    """Similarity of all heads of one model with all of another, from HeadRows of the same images.

    is_constant, other_is_constant: (layer, head) -> whether a head says the same of every image: it has no CKA
    Places are the same where both models have as many layers and heads: layer 5 of 12 is no place in a tower of 24.
    """
    own, covariance = _own_products(first, is_constant)
    other_own, other_covariance = _own_products(second, other_is_constant)
    units, other_units = list(own), list(other_own)
    of_layer = {layer: [place for place, unit in enumerate(other_units) if unit[0] == layer] for layer in second.layers}
    has_places = first.stored.basis.shape[:2] == second.stored.basis.shape[:2]
    cka, pairs, best = np.full((len(units), len(other_units)), np.nan), {}, {}
    for layer in progress(first.layers, "comparing heads", unit="layer"):
        rows = [place for place, unit in enumerate(units) if unit[0] == layer]
        for other_layer in second.layers:
            products, moments = inner_products(first, second, layer, other_layer)
            columns = of_layer[other_layer]
            scale = np.sqrt(np.outer([own[units[row]] for row in rows], [other_own[other_units[c]] for c in columns]))
            cka[np.ix_(rows, columns)] = np.divide(products, scale, out=np.full(scale.shape, np.nan), where=scale > 0)
            for head, row in enumerate(rows):
                values = np.nan_to_num(cka[row, columns], nan=-np.inf)
                place = values.argmax()
                if values[place] > best.get(row, (-np.inf,))[0]:
                    best[row] = values[place], other_units[columns[place]], moments[head, :, place].copy()
                if has_places and other_layer == layer:
                    pairs[units[row], units[row]] = moments[head, :, head].copy()
    pairs |= {(units[row], other): moments for row, (_, other, moments) in best.items()}
    count = int(first.stored.scored.sum())
    return Similarity(units, other_units, cka, pairs, covariance, other_covariance, count, has_places)


def _own_products(heads, is_constant):
    """({(layer, head): inner product with itself, 0 for a constant head}, {(layer, head): sums [width, width]})."""
    own, covariance = {}, {}
    for layer in heads.layers:
        products, moments = inner_products(heads, heads, layer, layer)
        for head in range(len(products)):
            own[layer, head] = 0.0 if is_constant((layer, head)) else products[head, head]
            covariance[layer, head] = moments[head, :, head].copy()
    return own, covariance
