"""What each head and each MLP does alone: its direct effect on the logits, and the accuracy lost without it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from clipspectra.evaluation.accuracy import cosine, zero_shot
from clipspectra.evaluation.intervals import change_of_counts, columns, holm, mean_of_sums, ratio_of_sums
from clipspectra.jobs import progress


@dataclass
class ScoredImages:
    """What the effects of all parts are measured against, on some images.

    embedding: normalised, [image, d_embed]; classifier: [d_embed, class]; labels: correct classes [image]
    texts: of the correct class; directions: from that of the best wrong class to it, both [image, d_embed]
    margin: of the embedding; is_correct: whether it is classified correctly, both [image]
    """

    embedding: np.ndarray
    classifier: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        logits = self.embedding @ self.classifier
        self.is_correct = logits.argmax(1) == self.labels
        logits[np.arange(len(self.labels)), self.labels] = -np.inf
        self.texts = self.classifier.T[self.labels]
        self.directions = self.texts - self.classifier.T[logits.argmax(1)]
        self.margin = (self.embedding * self.directions).sum(1)


def part_effects(part, mean, images):
    """Direct effects of one part of the embedding: sums over ScoredImages, as a dict.

    part: its contributions [image, d_embed]; mean: the part's, [d_embed]. norm: length of the part; cosine: with the
    text of the correct class; margin: what the part adds to the logit of the correct class, minus what it adds to that
    of the best wrong class of the embedding; whole: the embedding's margin; gained, lost: images that are classified
    correctly only with the part at its mean, or only without
    """
    before, whole = images.is_correct, images.margin
    norm, alignment = np.linalg.norm(part, axis=1), cosine(part, images.texts)
    margin = (part * images.directions).sum(1)
    after = zero_shot(images.embedding - part + mean, images.classifier) == images.labels
    by_image = {"norm": norm, "norm_squares": norm**2, "cosine": alignment, "cosine_squares": alignment**2}
    by_image |= {"margin": margin, "whole": whole, "margin_squares": margin**2, "margin_whole": margin * whole}
    by_image |= {"whole_squares": whole**2, "before": before, "gained": after & ~before, "lost": before & ~after}
    return {name: values.sum() for name, values in by_image.items()}


def direct_effects(stored, classifier, labels):
    """One row per head and MLP: means over the images of stored.scored, with mean ablation at the mean of the fit rows.

    classifier: [d_embed, class]; labels: correct classes of all stored images [image]. Columns: kind (head or MLP),
    layer, head (-1 for an MLP), norm, cosine, margin_share (% of the embedding's margin), accuracy (% without
    ablation), accuracy_lost (points, with the head or MLP held at its mean), each with its interval; margin_share is
    NaN where the embedding's own margin is not clearly above 0; p: of the accuracy lost, and p_holm: corrected for the
    number of heads and MLPs.
    """
    sums, count = {}, stored.scored.sum()
    basis = {layer: stored.basis[layer].astype(np.float64) for layer in stored.layers}
    head_means = {
        layer: np.stack([moments.embedded_mean() for moments in stored.fit_moments(layer)])
        for layer in progress(stored.layers, "means of heads", unit="layer")
    }
    means = stored.fit_means()
    readers = [stored.reduced(layer) for layer in stored.layers]
    chunks = zip(stored.parts(), stored.by_chunk(stored.scored), stored.by_chunk(labels), *readers)
    for parts, scored, chunk_labels, *reduced in progress(chunks, "effects", total=len(stored.chunks), unit="chunk"):
        if not scored.any():
            continue
        parts, chunk_labels = parts[scored].astype(np.float64), chunk_labels[scored]
        images = ScoredImages(parts.sum(1), classifier, chunk_labels)

        def add(key, part, mean, images=images):
            effects, sums_before = part_effects(part, mean, images), sums.get(key, {})
            sums[key] = {name: value + sums_before.get(name, 0) for name, value in effects.items()}

        for layer, q in zip(stored.layers, reduced):
            for head, head_basis in enumerate(basis[layer]):
                add(("head", layer, head), q[scored, head] @ head_basis.T, head_means[layer][head])
        for index, (kind, layer) in enumerate(stored.names):
            if kind == "mlp":
                add(("MLP", layer, -1), parts[:, index], means[index])
    rows = [dict(zip(("kind", "layer", "head"), key)) | effect_columns(effects, count) for key, effects in sums.items()]
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"]))


def effect_columns(sums, count):
    """The columns of direct_effects from the sums of part_effects over so many images."""
    row = {}
    for name in ("norm", "cosine"):
        row |= columns(name, *mean_of_sums(sums[name], sums[f"{name}_squares"], count))
    names = ("margin", "whole", "margin_squares", "margin_whole", "whole_squares")
    row |= columns("margin_share", *(100 * value for value in ratio_of_sums(*(sums[name] for name in names), count)))
    lost = change_of_counts(sums["lost"], sums["gained"], count)  # what holding the part at its mean takes away
    row |= {"accuracy": 100 * sums["before"] / count}
    return row | columns("accuracy_lost", lost["change"], lost["change_low"], lost["change_high"]) | {"p": lost["p"]}
