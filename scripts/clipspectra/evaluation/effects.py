"""What each head and each MLP does alone: its direct effect on the logits, and the accuracy lost without it."""

import numpy as np
import pandas as pd

from clipspectra.evaluation.accuracy import cosine, zero_shot
from clipspectra.jobs import progress

MEASURES = ["norm", "cosine", "margin", "correct_at_mean"]


def part_effects(part, mean, embedding, classifier, labels):
    """Direct effects of one part of the embedding, summed over images, in the order of MEASURES.

    part, embedding: contributions of the part and the normalised embedding, [image, d_embed]; mean: the part's,
    [d_embed]; classifier: [d_embed, class]; labels: correct classes [image]. norm: length of the part; cosine: with the
    text of the correct class; margin: what the part adds to the logit of the correct class, minus what it adds to that
    of the best wrong class of the embedding; correct_at_mean: images classified correctly with the part at its mean
    """
    logits = embedding @ classifier
    logits[np.arange(len(labels)), labels] = -np.inf
    texts = classifier.T[labels]  # [image, d_embed]
    margin = (part * (texts - classifier.T[logits.argmax(1)])).sum(1)
    correct = zero_shot(embedding - part + mean, classifier) == labels
    return np.array([np.linalg.norm(part, axis=1).sum(), cosine(part, texts).sum(), margin.sum(), correct.sum()])


def direct_effects(stored, classifier, labels):
    """One row per head and MLP: means over the images of stored.scored, with mean ablation at the mean of the fit rows.

    classifier: [d_embed, class]; labels: correct classes of all stored images [image]. Columns: kind (head or MLP),
    layer, head (-1 for an MLP), norm, cosine, margin_share (% of the embedding's margin), accuracy (% without
    ablation), accuracy_lost (points, with the head or MLP held at its mean).
    """
    sums, embedding_sums, count = {}, np.zeros(len(MEASURES)), stored.scored.sum()
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
        embedding = parts.sum(1)
        embedding_sums += part_effects(embedding, embedding, embedding, classifier, chunk_labels)

        def add(key, part, mean, context=(embedding, classifier, chunk_labels)):
            sums[key] = sums.get(key, 0) + part_effects(part, mean, *context)

        for layer, q in zip(stored.layers, reduced):
            for head, head_basis in enumerate(basis[layer]):
                add(("head", layer, head), q[scored, head] @ head_basis.T, head_means[layer][head])
        for index, (kind, layer) in enumerate(stored.names):
            if kind == "mlp":
                add(("MLP", layer, -1), parts[:, index], means[index])
    rows = pd.DataFrame(sums, index=MEASURES).T.rename_axis(["kind", "layer", "head"]).reset_index()
    accuracy = 100 * embedding_sums[3] / count  # "ablated" to itself, so not ablated
    table = rows[["kind", "layer", "head"]].assign(norm=rows["norm"] / count, cosine=rows["cosine"] / count)
    table["margin_share"] = 100 * rows["margin"] / embedding_sums[2]
    return table.assign(accuracy=accuracy, accuracy_lost=accuracy - 100 * rows["correct_at_mean"] / count)
