"""How much of the zero-shot accuracy is left if the last layers' heads are replaced by their explanations."""

import numpy as np
import pandas as pd

from clipspectra.evaluation.accuracy import cosine, in_top_k
from clipspectra.jobs import progress


def recovered_accuracy(stored, recovery, layers, classifier, labels, *, mlps):
    """One row a budget: top-1 and top-5 accuracy, explained variance of the heads, cosine with the embedding.

    layers: the last ones, whose heads are explained; mlps: "kept" or "mean". The heads of earlier layers are held at
    their mean over the fit rows, with mlps "mean" also the MLPs and x_0. Scores come from stored.scored.
    """
    means, kinds = stored.fit_means(), np.array([kind for kind, _ in stored.names])
    at_mean = np.isin(kinds, ("early", "heads", "self")) | (mlps == "mean")
    fixed = means[at_mean].sum(0)
    readers = [stored.reduced(layer) for layer in layers]
    rows, missed, energy = [], 0.0, 0.0
    chunks = zip(stored.parts(), stored.by_chunk(stored.scored), stored.by_chunk(labels), *readers)
    for parts, chosen, right, *of_layers in progress(chunks, "recovering", total=len(stored.chunks), unit="chunk"):
        if not chosen.any():
            continue
        embedding, kept = parts[chosen].sum(1), parts[chosen][:, ~at_mean].sum(1)
        rebuilt = np.stack([fixed + kept] * len(recovery.budgets))
        for layer, q in zip(layers, of_layers):
            more, layer_missed, layer_energy = recovery.rebuilt(layer, q[chosen])
            rebuilt, missed, energy = rebuilt + more, missed + layer_missed, energy + layer_energy
        for place, budget in enumerate(recovery.budgets):
            top = [in_top_k(rebuilt[place], classifier, right[chosen], count) for count in (1, 5)]
            found = {"budget": budget, "top1": top[0], "top5": top[1], "cosine": cosine(rebuilt[place], embedding)}
            rows.append(pd.DataFrame(found))
    table = pd.concat(rows).groupby("budget").mean().reset_index()
    table[["top1", "top5"]] *= 100
    table["explained_variance"] = 100 * (1 - missed / energy)
    return table


class Recovery:
    """What is left of the embedding if the last layers' heads are replaced by their explanations.

    told: {(layer, head): object with mean [d_embed] and directions(budget)}, such as methods.HeadExplanation
    basis: B [layer, head, d_embed, coordinate + scalar]; budgets: numbers of texts a head
    """

    def __init__(self, told, basis, budgets):
        self.budgets, self.told, self.basis = list(budgets), told, basis

    def rebuilt(self, layer, q):
        """(sum over a layer's heads of what each budget recovers beyond the mean [budget, image, d_embed], energy that
        is missed at each budget [budget], all energy) for q [image, head, coordinate + scalar]."""
        total = np.zeros((len(self.budgets), len(q), self.basis.shape[2]))
        missed, energy = np.zeros(len(self.budgets)), 0.0
        for head in range(q.shape[1]):
            of_head = self.told[layer, head]
            centred = q[:, head] @ self.basis[layer, head].astype(np.float64).T - of_head.mean  # [image, d_embed]
            span = of_head.directions(max(self.budgets))
            scores = centred @ span.T
            left = (centred**2).sum()
            energy += left
            for place, budget in enumerate(self.budgets):
                count = len(of_head.directions(budget))
                total[place] += scores[:, :count] @ span[:count]
                missed[place] += left - (scores[:, :count] ** 2).sum()
        return total, missed, energy
