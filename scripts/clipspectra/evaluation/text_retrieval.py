"""Retrieval between texts and images by the whole embedding, as it is measured on captions (recall at k).

The texts are those of a factor's values, with their prompts; an image is relevant to a text if it has the value.
"""

import numpy as np

from clipspectra.evaluation import intervals
from clipspectra.evaluation.accuracy import label_ranks
from clipspectra.evaluation.ranking import (
    average_precision,
    average_precision_influence,
    blocks,
    harmonic_numbers,
    hits_at,
    random_average_precision,
    random_hits_at,
)

CUTOFFS = (1, 5, 10)  # k of recall at k, as far as there are more candidates


def text_retrieval(stored, classifier, labels):
    """Rows of the retrieval between images of stored.scored and the texts of one factor's values, in both directions.

    stored: StoredActivations; classifier: texts of the values [d_embed, value]; labels: each image's value [image]
    Columns: direction, measure, queries, score and by_chance, in %; score_low and score_high, the interval over images,
    but of recall of images. recall_at_k: % of queries with a relevant candidate among the first k; mean_ap: mean
    average precision. Texts that no image is relevant to are no queries.
    """
    ranks, cosines, labels = [], [], labels[stored.scored]
    for embeddings, inside in zip(stored.embeddings(), stored.by_chunk(stored.scored)):
        chunk, start = embeddings[inside], sum(map(len, ranks))
        ranks.append(label_ranks(chunk, classifier, labels[start : start + len(chunk)]))
        cosines.append((chunk @ classifier).astype(np.float32))
    ranks, cosines = np.concatenate(ranks), np.concatenate(cosines)
    return [*_image_to_text(ranks, classifier.shape[1]), *_text_to_image(cosines, labels)]


def _image_to_text(ranks, values):
    """Rows for images as queries; ranks: place of the text of each image's value [image]; values: number of texts."""
    for k in (k for k in CUTOFFS if k < values):
        score = {name.replace("accuracy", "score"): value for name, value in intervals.percent(ranks < k).items()}
        yield _row("image to text", f"recall_at_{k}", len(ranks), score, k / values)
    precision = 1 / (ranks + 1)  # one text is relevant
    influence = (precision - precision.mean()) / len(ranks)
    score = intervals.mean_by_influence("score", precision.mean(), influence, len(ranks))
    yield _row("image to text", "mean_ap", len(ranks), score, harmonic_numbers(values)[-1] / values)


def _text_to_image(cosines, labels):
    """Rows for texts as queries; cosines: [image, text]; labels: the text of each image's value [image]."""
    counts = np.bincount(labels, minlength=cosines.shape[1])
    queries, images = np.flatnonzero(counts), len(labels)
    precisions, influence, hits = [], np.zeros(images), {k: [] for k in CUTOFFS if k < images}
    for part in blocks(queries, images):
        scores, relevant = cosines[:, part].T, part[:, None] == labels
        precisions.append(average_precision(scores, [relevant])[0])
        influence += average_precision_influence(scores, [relevant])[0] / len(queries)
        for k, of_parts in hits.items():
            of_parts.append(hits_at(scores, relevant, k))
    for k, of_parts in hits.items():
        score, chance = 100 * np.concatenate(of_parts).mean(), random_hits_at(counts[queries], images, k).mean()
        yield _row("text to image", f"recall_at_{k}", len(queries), {"score": score}, chance)
    score = intervals.mean_by_influence("score", np.concatenate(precisions).mean(), influence, images)
    chance = random_average_precision(counts[queries], images).mean()
    yield _row("text to image", "mean_ap", len(queries), score, chance)


def _row(direction, measure, queries, score, by_chance):
    return {"direction": direction, "measure": measure, "queries": queries} | score | {"by_chance": 100 * by_chance}
