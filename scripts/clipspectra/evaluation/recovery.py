"""How much of the zero-shot accuracy remains if the last layers' heads are replaced by their explanations."""

import numpy as np
import pandas as pd

from clipspectra.evaluation.accuracy import cosine, in_top_k
from clipspectra.jobs import progress


def recovered_accuracy(stored, recovery, layers, classifier, labels, *, mlps):
    """One row per budget: top-1 and top-5 accuracy, explained variance of the heads, cosine with the embedding.

    layers: the last ones, whose heads are replaced; classifier: [d_embed, class]; labels: correct classes [image];
    mlps: "kept" or "mean". The heads of earlier layers are held at their mean over the fit rows, and with mlps "mean"
    also the MLPs and x_0. The images scored are those of stored.scored.
    """
    means, kinds = stored.fit_means(), np.array([kind for kind, _ in stored.names])
    at_mean = np.isin(kinds, ("early", "heads", "self")) | (mlps == "mean")
    fixed = means[at_mean].sum(0)
    readers = [stored.reduced(layer) for layer in layers]
    tables, missed, energy = [], 0.0, 0.0
    chunks = zip(stored.parts(), stored.by_chunk(stored.scored), stored.by_chunk(labels), *readers)
    for parts, scored, chunk_labels, *reduced in progress(chunks, "recovering", total=len(stored.chunks), unit="chunk"):
        if not scored.any():
            continue
        embedding, kept = parts[scored].sum(1), parts[scored][:, ~at_mean].sum(1)
        rebuilt = np.stack([fixed + kept] * len(recovery.budgets))  # [budget, image, d_embed]
        for layer, q in zip(layers, reduced):
            recovered, layer_missed, layer_energy = recovery.rebuilt(layer, q[scored])
            rebuilt, missed, energy = rebuilt + recovered, missed + layer_missed, energy + layer_energy
        for index, budget in enumerate(recovery.budgets):
            top1, top5 = (in_top_k(rebuilt[index], classifier, chunk_labels[scored], k) for k in (1, 5))
            scores = {"budget": budget, "top1": top1, "top5": top5, "cosine": cosine(rebuilt[index], embedding)}
            tables.append(pd.DataFrame(scores))
    table = pd.concat(tables).groupby("budget").mean().reset_index()
    table[["top1", "top5"]] *= 100
    table["explained_variance"] = 100 * (1 - missed / energy)
    return table


class Recovery:
    """Heads' contributions rebuilt from their explanations, at several budgets of texts.

    explanations: {(layer, head): object with mean [d_embed] and directions(budget)}, such as head.HeadExplanation
    basis: B [layer, head, d_embed, coordinate + scalar]; budgets: numbers of texts per head
    """

    def __init__(self, explanations, basis, budgets):
        self.budgets, self.explanations, self.basis = list(budgets), explanations, basis

    def rebuilt(self, layer, q):
        """(recovered, missed, energy) of a layer, from q [image, head, coordinate + scalar].

        recovered: sum over heads of what each budget recovers beyond the mean, [budget, image, d_embed]; missed: energy
        that each budget leaves out [budget]; energy: of all centred contributions
        """
        recovered = np.zeros((len(self.budgets), len(q), self.basis.shape[2]))
        missed, energy = np.zeros(len(self.budgets)), 0.0
        for head in range(q.shape[1]):
            explanation = self.explanations[layer, head]
            centred = q[:, head] @ self.basis[layer, head].astype(np.float64).T - explanation.mean  # [image, d_embed]
            directions = explanation.directions(max(self.budgets))
            scores = centred @ directions.T
            head_energy = (centred**2).sum()
            energy += head_energy
            for index, budget in enumerate(self.budgets):
                count = len(explanation.directions(budget))
                recovered[index] += scores[:, :count] @ directions[:count]
                missed[index] += head_energy - (scores[:, :count] ** 2).sum()
        return recovered, missed, energy
