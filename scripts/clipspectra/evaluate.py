"""What the heads are worth: zero-shot accuracy with parts of the sum held at their mean, and what moves a component."""

import numpy as np


def mean_ablated(parts, means, at_mean):
    """Sum of parts [image, part, d_embed], those in the bool mask at_mean [part] replaced by means [part, d_embed]."""
    kept = parts[:, ~at_mean].sum(1)
    return kept + means[at_mean].sum(0)


def ablations(layers):
    """name -> mask of the parts held at their mean, over [heads of layer 0 … L-1, x_0, MLP 0 … L-1].

    The studies that Gandelsman et al. start from: all MLPs; all MLPs and the heads of ever more early layers.
    """
    heads = np.arange(2 * layers + 1) < layers
    mlps = np.arange(2 * layers + 1) > layers
    result = {"none": np.zeros_like(mlps), "MLPs": mlps}
    for last in range(layers - 1):
        early = heads & (np.arange(2 * layers + 1) <= last)
        result[f"MLPs and heads of layers 0–{last}" if last else "MLPs and heads of layer 0"] = mlps | early
    result["MLPs and all heads"] = mlps | heads
    return result


def zero_shot(embedding, classifier):
    """The class of the largest logit of each image: [image] from [image, d_embed] and a classifier [d_embed, class]."""
    return (embedding @ classifier).argmax(1)


def eta_squared(scores, values):
    """Share of the variance of scores [image, component] between groups of equal value [image]: [component]."""
    centred = scores - scores.mean(0)
    total = (centred**2).sum(0)
    between = np.zeros(scores.shape[1])
    for value in np.unique(values):
        group = centred[values == value]
        between += len(group) * group.mean(0) ** 2
    return np.divide(between, total, out=np.zeros_like(between), where=total > 0)


def component_scores(q, basis, components, mean):
    """Scores of images on one head's components, [image, component].

    q: [image, d_head + 3]; basis: B [d_embed, d_head + 3]; components: [component, d_embed]; mean: [d_embed]
    """
    return q @ (components @ basis).T - components @ mean
