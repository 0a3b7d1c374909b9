"""What the heads are worth: zero-shot accuracy with parts of the sum held at their mean, and what moves a component."""

import numpy as np


def mean_ablated(parts, means, at_mean):
    """Sum of parts [image, part, d_embed], those in the bool mask at_mean [part] replaced by means [part, d_embed]."""
    kept = parts[:, ~at_mean].sum(1)
    return kept + means[at_mean].sum(0)


def ablations(layers, mlps):
    """name -> mask [part] of the parts held at their mean, over StoredActivations.parts.

    layers: range of the kept layers' numbers; mlps: number of MLPs, after x_0. The studies that Gandelsman et al. start
    from: all MLPs; all MLPs and the heads of ever more early layers.
    """
    last = [*([layers.start - 1] if layers.start else []), *layers]  # last layer in each part made of heads
    places = np.arange(len(last) + 1 + mlps)
    of_mlps = places > len(last)
    result = {"none": np.zeros_like(of_mlps), "MLPs": of_mlps}
    for place, layer in enumerate(last[:-1]):
        name = f"MLPs and heads of layers 0–{layer}" if layer else "MLPs and heads of layer 0"
        result[name] = of_mlps | (places <= place)
    return result | {"MLPs and all heads": of_mlps | (places < len(last))}


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
