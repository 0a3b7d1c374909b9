"""What each head and each MLP does alone: its direct effect on the logits, and the accuracy that it is worth."""

import numpy as np
import pandas as pd

from clipspectra.evaluation.accuracy import cosine, zero_shot
from clipspectra.jobs import progress

SUMS = ["norm", "cosine", "margin", "right_at_mean"]


def part_effects(part, mean, embedding, classifier, labels):
    """Sums over images of what one part does, in the order of SUMS.

    part, embedding: contributions of the part and the whole e/n, [image, d_embed]; mean: the part's, [d_embed]
    classifier: [d_embed, class]; labels: right classes [image]. norm: length of the part; cosine: with the right
    class's text; margin: what the part adds to the right class's logit over the best wrong one of the whole embedding;
    right_at_mean: whether the image is classified right with the part held at its mean
    """
    logits = embedding @ classifier
    logits[np.arange(len(labels)), labels] = -np.inf
    texts = classifier.T[labels]  # [image, d_embed]
    margin = (part * (texts - classifier.T[logits.argmax(1)])).sum(1)
    right = zero_shot(embedding - part + mean, classifier) == labels
    return np.array([np.linalg.norm(part, axis=1).sum(), cosine(part, texts).sum(), margin.sum(), right.sum()])


def direct_effects(stored, classifier, labels):
    """One row a head and MLP, means over the images of stored.scored; means held come from the fit rows.

    Columns: kind (head or MLP), layer, head (-1 for an MLP), norm, cosine, margin_share (% of the whole margin),
    accuracy (of the model as it is, %), accuracy_lost (points, if the part is held at its mean).
    """
    found, whole, count = {}, np.zeros(len(SUMS)), stored.scored.sum()
    basis = {layer: stored.basis[layer].astype(np.float64) for layer in stored.layers}
    of_heads = {
        layer: np.stack([moments.embedded_mean() for moments in stored.fit_moments(layer)])
        for layer in progress(stored.layers, "means of heads", unit="layer")
    }
    means = stored.fit_means()
    readers = [stored.reduced(layer) for layer in stored.layers]
    chunks = zip(stored.parts(), stored.by_chunk(stored.scored), stored.by_chunk(labels), *readers)
    for parts, chosen, right, *layers in progress(chunks, "effects", total=len(stored.chunks), unit="chunk"):
        if not chosen.any():
            continue
        parts, right = parts[chosen].astype(np.float64), right[chosen]
        embedding = parts.sum(1)
        whole += part_effects(embedding, embedding, embedding, classifier, right)

        def add(key, part, mean, about=(embedding, classifier, right)):
            found[key] = found.get(key, 0) + part_effects(part, mean, *about)

        for layer, q in zip(stored.layers, layers):
            for head, of_head in enumerate(basis[layer]):
                add(("head", layer, head), q[chosen, head] @ of_head.T, of_heads[layer][head])
        for place, (kind, layer) in enumerate(stored.names):
            if kind == "mlp":
                add(("MLP", layer, -1), parts[:, place], means[place])
    rows = pd.DataFrame(found, index=SUMS).T.rename_axis(["kind", "layer", "head"]).reset_index()
    accuracy = 100 * whole[3] / count
    table = rows[["kind", "layer", "head"]].assign(norm=rows["norm"] / count, cosine=rows["cosine"] / count)
    table["margin_share"] = 100 * rows["margin"] / whole[2]
    return table.assign(accuracy=accuracy, accuracy_lost=accuracy - 100 * rows["right_at_mean"] / count)
