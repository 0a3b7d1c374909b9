"""Components as weighted sums of a few texts: non-negative orthogonal matching pursuit, plain or coherent.

A step takes the text that agrees best with the component's residual, then fits the weights of all texts taken so far
again, none below 0 (NNOMP; Bruckstein, Elad and Zibulevsky 2008). The coherent variant (COMP; Gentile et al., "From
Weights to Concepts", 2026) adds to a text's agreement a multiple of its mean similarity to the texts already taken.
"""

from dataclasses import dataclass

import numpy as np

from clipspectra.explanations.spectral import ComponentExplanation, explain_components, orthonormal


@dataclass
class SparseCode:
    """The components of one head, each as a sum of texts.

    explanation: the components; pole: "top", or "bottom" where the sum stands for the component's opposite [rank]
    text [rank, k]: indices into the pool in the order of choice; weight [rank, k]: 0 where a text adds nothing
    sums: weighted sums of the centred texts of unit length [rank, d_embed]; cosine: with the component's pole [rank]
    """

    explanation: ComponentExplanation
    pole: np.ndarray
    text: np.ndarray
    weight: np.ndarray
    sums: np.ndarray
    cosine: np.ndarray

    def steps(self):
        """(orthonormal directions [step, d_embed], the component whose sum gives each [step]).

        A sum brings its part in the space of the head's components, as a text does in every other method.
        """
        components = self.explanation.components
        steps, component = orthonormal(self.sums @ components.T)
        return steps @ components, component


def explain_sparsely(data, text_features, *, texts_per_component=5, coherence=0.0, **options):
    """The components of a head, each as the weighted sum of a few texts, for the pole of larger cosine: SparseCode.

    data, text_features, options: as in spectral.explain_components; coherence: 0 for NNOMP, COMP's lambda otherwise
    """
    explanation = explain_components(data, text_features, **options)
    texts = np.asarray(text_features, np.float64)
    texts = texts - texts.mean(0)
    texts /= np.maximum(np.linalg.norm(texts, axis=1, keepdims=True), np.finfo(float).tiny)
    targets = np.concatenate([explanation.components, -explanation.components])
    text, weight = matching_pursuit(targets, texts, count=texts_per_component, coherence=coherence)
    sums = np.einsum("rk,rkd->rd", weight, texts[text])
    cosine = (sums * targets).sum(1) / np.maximum(np.linalg.norm(sums, axis=1), np.finfo(float).tiny)
    better = cosine.reshape(2, -1).argmax(0)
    chosen = better * explanation.rank + np.arange(explanation.rank)
    pole = np.where(better == 0, "top", "bottom")
    return SparseCode(explanation, pole, text[chosen], weight[chosen], sums[chosen], cosine[chosen])


def matching_pursuit(targets, texts, *, count, coherence=0.0):
    """Each target as a sum of texts with weights of 0 or more: (text [target, k], weight [target, k]).

    targets: [target, d_embed]; texts: of unit length, [text, d_embed]; k is count, or the number of texts
    """
    from scipy.optimize import nnls  # takes longer to import than most jobs need for all else

    chosen, residual, weight = np.zeros((len(targets), 0), int), targets, np.zeros((len(targets), 0))
    for step in range(min(count, len(texts))):
        agreement = residual @ texts.T  # [target, text]
        if coherence and step:
            agreement += coherence * texts[chosen].mean(1) @ texts.T
        np.put_along_axis(agreement, chosen, -np.inf, axis=1)
        chosen = np.concatenate([chosen, agreement.argmax(1)[:, None]], axis=1)
        atoms = texts[chosen]  # [target, k, d_embed]
        weight = np.array([nnls(atom.T, target)[0] for atom, target in zip(atoms, targets)]).reshape(chosen.shape)
        residual = targets - np.einsum("tk,tkd->td", weight, atoms)
    return chosen, weight
