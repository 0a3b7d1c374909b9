"""What the heads are worth: zero-shot accuracy with parts of the sum held at their mean, and what moves a component."""

import numpy as np


def mean_ablated(parts, means, at_mean):
    """Sum of parts [image, part, d_embed], those in the bool mask at_mean [part] replaced by means [part, d_embed]."""
    kept = parts[:, ~at_mean].sum(1)
    return kept + means[at_mean].sum(0)


def ablations(names):
    """{study: mask [part] of the parts held at their mean} over parts named (kind, layer), see StoredActivations.names.

    The studies that Gandelsman et al. start from: all MLPs; the class token's attention to itself; both; then the MLPs
    and the heads of ever more layers, from the first on and from the last on.
    """
    kinds = np.array([kind for kind, _ in names])
    layers = np.array([layer for _, layer in names])
    mlps, selves, heads = kinds == "mlp", kinds == "self", np.isin(kinds, ("early", "heads", "self"))
    result = {"none": np.zeros(len(names), bool), "MLPs": mlps}
    if selves.any():
        result |= {"class token to itself": selves, "MLPs and class token to itself": mlps | selves}
    kept = sorted(set(layers[heads]))
    for layer in kept[:-1]:
        result[f"MLPs and heads of layers 0–{layer}" if layer else "MLPs and heads of layer 0"] = mlps | (
            heads & (layers <= layer)
        )
    for layer in reversed(kept[1:]):
        several = f"layers {layer}–{kept[-1]}" if layer < kept[-1] else f"layer {layer}"
        result[f"MLPs and heads of {several}"] = mlps | (heads & (layers >= layer))
    return result | {"MLPs and all heads": mlps | heads}


def zero_shot(embedding, classifier):
    """The class of the largest logit of each image: [image] from [image, d_embed] and a classifier [d_embed, class]."""
    return (embedding @ classifier).argmax(1)


def group_masks(table):
    """{"all": every row, and by its name each group of a table of images: bool [image]}."""
    groups = sorted(set(table["group"]) - {""})
    return {"all": np.ones(len(table), bool)} | {name: (table["group"] == name).to_numpy() for name in groups}


def accuracy_change(before, after):
    """(change in %, low, high) of a share of images, between two bool arrays of the same images [image].

    The 95 % interval is that of Agresti and Min (2005) for matched pairs, which has a width even if nothing changed,
    cut at what is possible: no more can be lost than was right before, and no more gained than was wrong.
    """
    gained, lost, count = (after & ~before).sum(), (before & ~after).sum(), len(before)
    middle = (gained - lost) / (count + 2)
    spread = 1.96 * np.sqrt(gained + lost + 1 - (gained - lost) ** 2 / (count + 2)) / (count + 2)
    low, high = max(middle - spread, -before.mean()), min(middle + spread, 1 - before.mean())
    return 100 * (gained - lost) / count, 100 * low, 100 * high


def eta_squared(scores, values):
    """Share of the variance of scores [image, component] between groups of equal value [image]: [component]."""
    centred = scores - scores.mean(0)
    total = (centred**2).sum(0)
    between = np.zeros(scores.shape[1])
    for value in np.unique(values):
        group = centred[values == value]
        between += len(group) * group.mean(0) ** 2
    return np.divide(between, total, out=np.zeros_like(between), where=total > 0)


def extreme_values(scores, values):
    """The value [image] with the highest mean score, and that with the lowest, of each component: two [component]."""
    names = np.unique(values)
    means = np.stack([scores[values == name].mean(0) for name in names])  # [value, component]
    return names[means.argmax(0)], names[means.argmin(0)]


def component_scores(q, basis, components, mean):
    """Scores of images on one head's components, [image, component].

    q: [image, d_head + 3]; basis: B [d_embed, d_head + 3]; components: [component, d_embed]; mean: [d_embed]
    """
    return q @ (components @ basis).T - components @ mean


def in_top_k(embedding, classifier, right, count):
    """Whether the right class [image] is among the `count` of the largest logits: bool [image].

    Of equal logits the first class comes first, as in zero_shot.
    """
    logits = embedding @ classifier  # [image, class]
    of_right = np.take_along_axis(logits, right[:, None], axis=1)
    before = (logits > of_right) | ((logits == of_right) & (np.arange(logits.shape[1]) < right[:, None]))
    return before.sum(1) < count


def cosine(one, other):
    """Cosine of rows [image, d_embed] of two arrays, [image]."""
    return (one * other).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
