"""Zero-shot accuracy with parts of the embedding at their mean, and the factors that a component's scores depend on."""

import numpy as np

MLPS = ("x_0", "mlp")  # kinds of parts that "mlps" stands for, in tables and in the config


def mean_ablated(parts, means, at_mean):
    """Sum of parts [image, part, d_embed], those in the bool mask at_mean [part] replaced by means [part, d_embed]."""
    kept = parts[:, ~at_mean].sum(1)
    return kept + means[at_mean].sum(0)


def ablations(names):
    """{ablation: mask [part] of the parts held at their mean} over parts named (kind, layer), see StoredActivations.

    The ablations that Gandelsman et al. (2024) start from: all MLPs; the class token's attention to itself; both; then
    the MLPs and the heads of more and more layers, from the first layer on and from the last layer back. As everywhere,
    the MLPs are those with x_0, the embedding of the tokens, which is their number 0.
    """
    kinds = np.array([kind for kind, _ in names])
    layers = np.array([layer for _, layer in names])
    mlps, self_attention, heads = np.isin(kinds, MLPS), kinds == "self", np.isin(kinds, ("early", "heads", "self"))
    masks = {"none": np.zeros(len(names), bool), "MLPs": mlps}
    if self_attention.any():
        masks |= {"class token to itself": self_attention, "MLPs and class token to itself": mlps | self_attention}
    head_layers = sorted(set(layers[heads]))
    for layer in head_layers[:-1]:
        label = f"layers 0–{layer}" if layer else "layer 0"
        masks[f"MLPs and heads of {label}"] = mlps | (heads & (layers <= layer))
    for layer in reversed(head_layers[1:]):
        label = f"layers {layer}–{head_layers[-1]}" if layer < head_layers[-1] else f"layer {layer}"
        masks[f"MLPs and heads of {label}"] = mlps | (heads & (layers >= layer))
    return masks | {"MLPs and all heads": mlps | heads}


def zero_shot(embedding, classifier):
    """The class with the largest logit [image], from embeddings [image, d_embed] and a classifier [d_embed, class]."""
    return (embedding @ classifier).argmax(1)


def group_masks(table):
    """Masks of a table of images, bool [image]: {"all": every image, and each group's name: its images}."""
    groups = sorted(set(table["group"]) - {""})
    return {"all": np.ones(len(table), bool)} | {name: (table["group"] == name).to_numpy() for name in groups}


def group_means(scores, values):
    """(values that occur, number of images of each [value], mean scores [value, component]).

    scores: [image, component]; values: [image]
    """
    names, codes = np.unique(values, return_inverse=True)
    order, counts = np.argsort(codes, kind="stable"), np.bincount(codes)
    sums = np.add.reduceat(scores[order], np.cumsum(counts) - counts, axis=0)
    return names, counts, sums / counts[:, None]


def eta_squared(scores, values):
    """η²: share of the variance of scores [image, component] between groups of equal value [image]; [component]."""
    centred = scores - scores.mean(0)
    total = (centred**2).sum(0)
    _, counts, means = group_means(centred, values)
    between = counts @ means**2
    return np.divide(between, total, out=np.zeros_like(between), where=total > 0)


def extreme_values(scores, values):
    """(highest, lowest): of values [image], those with the extreme mean scores of each component, [component] each."""
    names, _, means = group_means(scores, values)
    return names[means.argmax(0)], names[means.argmin(0)]


def label_ranks(embedding, classifier, labels):
    """Place of the correct class (labels [image]) among the logits, 0 for the largest: [image].

    embedding: [image, d_embed]; classifier: [d_embed, class]. Ties go to the first class, as in zero_shot.
    """
    logits = embedding @ classifier  # [image, class]
    label_logits = np.take_along_axis(logits, labels[:, None], axis=1)
    above = (logits > label_logits) | ((logits == label_logits) & (np.arange(logits.shape[1]) < labels[:, None]))
    return above.sum(1)


def in_top_k(embedding, classifier, labels, k):
    """Whether the correct class is among the k largest logits: bool [image]; see label_ranks."""
    return label_ranks(embedding, classifier, labels) < k


def cosine(a, b):
    """Cosine similarity of each row of a with the same row of b, both [image, d_embed]: [image]; 0 for a row of 0."""
    return (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), np.finfo(float).tiny)
