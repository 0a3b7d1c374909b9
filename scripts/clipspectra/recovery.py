"""How much of the zero-shot accuracy is left if the last layers' heads are replaced by their explanations."""

import numpy as np
import pandas as pd

from clipspectra.evaluate import cosine, in_top
from clipspectra.jobs import progress
from clipspectra.methods import explained


def explanations_of(stored, method, texts, layers, *, seed, budget, options):
    """({(layer, head): explanation}, {(layer, head): mean of q}) over the fit rows."""
    found, means = {}, {}
    for layer in progress(layers, f"{method}: explaining", unit="layer"):
        for head, moments in enumerate(stored.fit_moments(layer)):
            rng = np.random.default_rng([seed, layer, head])
            found[layer, head] = explained(method, moments, texts, budget=budget, rng=rng, **options)
            means[layer, head] = moments.mean
    return found, means


def recovered(stored, recovery, layers, classifier, labels, scored, *, mlps):
    """One row a budget: top-1 and top-5 accuracy, explained variance of the heads, cosine with the embedding.

    layers: the last ones, whose heads are explained; scored: bool [image], the rows that count; mlps: "kept" or "mean".
    The heads of earlier layers are held at their mean over the fit rows, with mlps "mean" also the MLPs and x_0.
    """
    means, kinds = stored.fit_means(), np.array([kind for kind, _ in stored.names])
    at_mean = np.isin(kinds, ("early", "heads", "self")) | (mlps == "mean")
    fixed = means[at_mean].sum(0)
    readers = [stored.reduced(layer) for layer in layers]
    rows, missed, energy = [], 0.0, 0.0
    chunks = zip(stored.parts(), stored.by_chunk(scored), stored.by_chunk(labels), *readers)
    for parts, chosen, right, *of_layers in progress(chunks, "recovering", total=len(stored.chunks), unit="chunk"):
        if not chosen.any():
            continue
        embedding, kept = parts[chosen].sum(1), parts[chosen][:, ~at_mean].sum(1)
        rebuilt = np.stack([fixed + kept] * len(recovery.budgets))
        for layer, q in zip(layers, of_layers):
            more, layer_missed, layer_energy = recovery.rebuilt(layer, q[chosen])
            rebuilt, missed, energy = rebuilt + more, missed + layer_missed, energy + layer_energy
        for place, budget in enumerate(recovery.budgets):
            top = [in_top(rebuilt[place], classifier, right[chosen], count) for count in (1, 5)]
            found = {"budget": budget, "top1": top[0], "top5": top[1], "cosine": cosine(rebuilt[place], embedding)}
            rows.append(pd.DataFrame(found))
    table = pd.concat(rows).groupby("budget").mean().reset_index()
    table[["top1", "top5"]] *= 100
    table["explained_variance"] = 100 * (1 - missed / energy)
    return table


class Recovery:
    """What is left of the embedding if the last layers' heads are replaced by their explanations.

    explanations: {(layer, head): what methods.explained returns}; q_means: {(layer, head): mean of q over the fit rows}
    budgets: numbers of texts a head; basis: B [layer, head, d_embed, coordinate + scalar]
    """

    def __init__(self, explanations, q_means, basis, budgets):
        self.budgets, self.heads = list(budgets), {}
        for (layer, head), explanation in explanations.items():
            of_head = basis[layer, head].astype(np.float64)
            # what q says beyond its mean, in the coordinates of each budget's subspace, and back
            spans = [explanation.directions(budget) for budget in self.budgets]
            self.heads[layer, head] = (of_head, q_means[layer, head], spans)

    def rebuilt(self, layer, q):
        """(sum over a layer's heads of what each budget recovers beyond the mean [budget, image, d_embed], energy that
        is missed at each budget [budget], all energy) for q [image, head, coordinate + scalar]."""
        total, missed, energy = 0.0, np.zeros(len(self.budgets)), 0.0
        for head in range(q.shape[1]):
            of_head, mean, spans = self.heads[layer, head]
            centred = (q[:, head] - mean) @ of_head.T  # [image, d_embed]
            scores = [centred @ span.T for span in spans]
            total = total + np.stack([score @ span for score, span in zip(scores, spans)])
            energy += (centred**2).sum()
            missed += (centred**2).sum() - np.array([(score**2).sum() for score in scores])
        return total, missed, energy
