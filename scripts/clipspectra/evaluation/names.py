"""Names of all poles by every method, naming and control, for judges to compare.

Controls, all of `fires_on`: names from another model's embeddings of the same images; from half of the fit
images; from images where one factor tells another (confounded), and from as many at random. A good judge tells a model
whose weights are shuffled from the trained one, and names from names dealt out at random (chance).
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from clipspectra.evaluation.accuracy import eta_squared
from clipspectra.evaluation.judges import Truth
from clipspectra.explanations.naming import NAMED_BY, NAMINGS, ActivitySums, chance, kept_activity, text_scores
from clipspectra.explanations.spectral import component_scores, orthonormal

LEAST_IMAGES = 10  # that a control takes names from


@dataclass
class Names:
    """Names of poles by one method, naming and control, of all heads or head by head as they are gathered.

    poles: numbers of poles (2 · component + (0 top, 1 bottom)), over all heads in their order; texts: their names
    heads: number of the head that each belongs to; removal: the two measures of judges.Removal [measure, pole]
    projections: of the names on the components, towards the poles [pole]; named: whether they beat chance [pole]
    steps: {(layer, head): orthonormal directions that the texts of the better poles bring}
    over_pools: cosine of the names from two halves of the pool [pole]
    """

    poles: list = field(default_factory=list)
    texts: list = field(default_factory=list)
    heads: list = field(default_factory=list)
    projections: list = field(default_factory=list)
    named: list = field(default_factory=list)
    removal: list = field(default_factory=list)
    steps: dict = field(default_factory=dict)
    over_pools: list = field(default_factory=list)

    def add(self, start, poles, texts, components, pool):
        """Names of poles of a head, numbered within it; start: number of its first pole; components: of the head."""
        poles, texts = np.asarray(poles, int), np.asarray(texts, int)
        self.poles.append(start + poles)
        self.texts.append(texts)
        self.projections.append((1 - 2 * (poles % 2)) * (components[poles // 2] * pool.centred[texts]).sum(1))

    def join(self):
        """All heads' names, one array each [pole]."""
        self.heads = np.repeat(np.arange(len(self.poles)), [len(poles) for poles in self.poles])
        self.poles, self.texts = np.concatenate(self.poles), np.concatenate(self.texts)
        self.projections = np.concatenate(self.projections)
        self.named = np.concatenate(self.named) if self.named else None
        self.over_pools = np.concatenate(self.over_pools) if self.over_pools else None
        self.removal = np.concatenate(self.removal, axis=1) if self.removal else None
        return self


@dataclass
class Study:
    """All that names are made from and judged by, besides components.

    stored; embeddings: of all its images [image, d_embed]; pool: TextPool
    choices: {control: bool [image]} of the fit images that names come from, "" for all
    other: (embeddings [image, d_embed], TextPool) of another model, or None
    removal: judges.Removal; vocabulary: labels.Vocabulary or None
    first, second: numbers of the images of each pair, or None; confusable: the two factors that a control confounds
    """

    stored: object
    embeddings: np.ndarray
    pool: object
    choices: dict
    other: tuple | None
    removal: object
    vocabulary: object = None
    first: np.ndarray | None = None
    second: np.ndarray | None = None
    confusable: tuple = ()


def name_set(study, explanations, method, tables, rng):
    """Names of the components of some heads, and what judges need of these.

    explanations: {(layer, head): HeadExplanation} of a method; tables: {method: its table of texts, numbers in `text`}
    of methods that explain the same components as sums. Returns ({(method, naming, control, texts): Names}, Truth or
    None, moves [component, pair] or None).
    """
    names, truths, moves, start = {}, [], [], 0
    halves = np.isin(np.arange(len(study.pool.features)), rng.permutation(len(study.pool.features))[::2])
    sums = {key: dict(list(table.groupby(["layer", "head"]))) for key, table in tables.items()}
    for (layer, head), explanation in explanations.items():
        rows, basis = study.stored.rows_and_basis(layer, head)
        components = explanation.components.astype(np.float64)
        scores = component_scores(rows, basis, components, explanation.mean)  # [image, component]
        scored, poles = scores[study.stored.scored], np.arange(2 * len(components))
        if study.vocabulary:
            truths.append(Truth.of(scored, study.stored.images[study.stored.scored], study.vocabulary))
        if study.first is not None:
            moves.append((scores[study.second] - scores[study.first]).T)
        scores_by_control, thresholds = head_scores(study, (layer, head), scores, components, method)
        for key, of_texts in scores_by_control.items():
            of_poles = of_texts.transpose(1, 0, 2).reshape(len(poles), -1)  # [pole, text]
            entry, texts = names.setdefault(key, Names()), of_poles.argmax(1)
            entry.add(start, poles, texts, components, study.pool)
            if key in thresholds:
                entry.named.append(of_poles.max(1) > thresholds[key].reshape(2, -1).T.ravel())
            if not key[2] and key[3] == "all":
                entry.removal.append(study.removal.judge(poles, texts, scored, components))
                best = np.take_along_axis(of_poles, texts[:, None], axis=1).reshape(-1, 2)
                chosen = texts.reshape(-1, 2)[np.arange(len(best)), best.argmax(1)]
                entry.steps[layer, head] = orthonormal(study.pool.centred[chosen] @ components.T)[0] @ components
                entry.over_pools.append(over_halves(of_poles, halves, study.pool))
        for other, by_head in sums.items():
            for naming, table in by_head.get((layer, head), pd.DataFrame({"naming": []})).groupby("naming", sort=False):
                first = table.sort_values("place").drop_duplicates("component")
                poles = 2 * first["component"].to_numpy() + (first["pole"] == "bottom").to_numpy()
                entry = names.setdefault((other, naming, "", "all"), Names())
                entry.add(start, poles, first["text"].to_numpy(), components, study.pool)
                entry.removal.append(study.removal.judge(poles, entry.texts[-1], scored, components))
        start += 2 * len(components)
    truth = Truth.joined(truths) if truths else None
    return {key: entry.join() for key, entry in names.items()}, truth, np.concatenate(moves) if moves else None


def head_scores(study, unit, scores, components, method):
    """Scores of all texts for one head's components, and what the names must be above to be surer than chance.

    Returns {(method, naming, control, texts): [pole of 2, component, text]} and, of some, {…: [pole * component]}.
    """
    scores_by_control, thresholds, fit = {}, {}, study.stored.fit
    for control, inside in study.choices.items():
        activity = None if control else kept_activity(study.stored, *unit, components)
        activity = activity or _activity(scores[inside], study.embeddings[inside])
        for naming in NAMINGS if not control else ["fires_on"]:
            of_texts = text_scores(naming, components, activity, study.pool)
            scores_by_control[method, naming, control, "all"] = of_texts
            if naming in NAMED_BY and not control:
                thresholds[method, naming, control, "all"] = chance(naming, activity, study.pool)[1]
            if study.vocabulary and not control:
                single = study.vocabulary.names_factor.sum(1) == 1
                if single.any():
                    scores_by_control[method, naming, control, "of one factor"] = np.where(single, of_texts, -np.inf)
    if study.other is not None:
        embeddings, pool = study.other
        activity = _activity(scores[fit], embeddings[fit])
        of_texts = text_scores("fires_on", components, activity, pool)
        scores_by_control[method, "fires_on", "another model's embeddings", "all"] = of_texts
    return scores_by_control, thresholds


def _activity(scores, embeddings):
    sums = ActivitySums()
    sums.add(scores, embeddings)
    return sums.activity()


def over_halves(scores, halves, pool):
    """Cosine of the best texts of two halves of the pool [pole]; NaN for a few texts. scores: [pole, text]."""
    if len(halves) < 4:
        return np.full(len(scores), np.nan)
    first, second = (np.where(half, scores, -np.inf).argmax(1) for half in (halves, ~halves))
    return (pool.directions[first] * pool.directions[second]).sum(1)


def confounded(table, embeddings, fit, factors, rng):
    """(images where one factor tells another, as many at random: bool [image]; the factors), or None without two.

    The two factors that move the embeddings [image, d_embed] most; a value of the first goes with one of the second.
    """
    centred = embeddings[fit] - embeddings[fit].mean(0)
    factors = [factor for factor in factors if table.loc[fit, factor].nunique() > 1]
    moved = {factor: eta_squared(centred, table.loc[fit, factor].to_numpy()) @ centred.var(0) for factor in factors}
    if len(factors) < 2:
        return None
    first, second = sorted(factors, key=lambda factor: -moved[factor])[:2]
    values = sorted(set(table.loc[fit, second]))
    partner = {value: values[number % len(values)] for number, value in enumerate(sorted(set(table.loc[fit, first])))}
    inside = fit & (table[first].map(partner) == table[second]).to_numpy()
    at_random = np.isin(np.arange(len(fit)), rng.choice(np.flatnonzero(fit), inside.sum(), replace=False))
    return (inside, at_random, (first, second)) if inside.sum() >= LEAST_IMAGES else None
