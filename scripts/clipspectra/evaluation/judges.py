"""Whether the name of a pole is right, by what was not used to choose it.

hits: where factors are known, the name says the factor, or the very value, that moves the component on eval images.
paired changes: two images differ in one factor; the component should move if its name says that factor, towards the
value named, and stay if another one is changed. removal: on eval images, how much of the differences that a text sees
goes with the component, against texts of the same length and spread; it asks for both what says and what fires_on asks
for, so it is no judge of meaning, but tells whether the component carries the text.

A pole is numbered 2 · component + (0 top, 1 bottom).
"""

from dataclasses import dataclass

import numpy as np

from clipspectra.evaluation.accuracy import eta_squared, extreme_values
from clipspectra.evaluation.intervals import student

MATCHED = 20  # texts that a named text is compared with
POLES_AT_A_TIME = 512


@dataclass
class Truth:
    """What moves components on eval images.

    strongest: number of the factor of the largest η² [component]; eta2: that η² [component]
    extremes: numbers of its values with the highest and the lowest mean score [component, pole]
    """

    strongest: np.ndarray
    eta2: np.ndarray
    extremes: np.ndarray

    @classmethod
    def of(cls, scores, images, vocabulary):
        """From scores [image, component] and a table of the images with the factors of a Vocabulary."""
        columns = [images[factor].astype(str).to_numpy() for factor in vocabulary.factors]
        eta2 = np.stack([eta_squared(scores, column) for column in columns])  # [factor, component]
        strongest, extremes = eta2.argmax(0), np.zeros((scores.shape[1], 2), int)
        for number, column in enumerate(columns):
            for pole, values in enumerate(extreme_values(scores, column)):
                own = strongest == number
                extremes[own, pole] = [vocabulary.values.index((number, value)) for value in values[own]]
        return cls(strongest, eta2.max(0), extremes)

    @classmethod
    def joined(cls, truths):
        """Of all components of several heads."""
        names = ("strongest", "eta2", "extremes")
        return cls(*(np.concatenate([getattr(truth, name) for truth in truths]) for name in names))

    def hits(self, poles, names, vocabulary):
        """(whether names say the very value, and the factor), bool [pole]; names: texts of the poles [pole]."""
        value = self.extremes[poles // 2, poles % 2]
        return vocabulary.names_value[names, value], vocabulary.names_factor[names, self.strongest[poles // 2]]


class PairedChanges:
    """How components move when one factor of an image is changed.

    moves: score of the second image of each pair minus that of the first [component, pair]
    changed: number of the factor that differs [pair]; first, second: bool [pair, value] that each image has
    """

    def __init__(self, moves, changed, first, second, vocabulary):
        self.vocabulary, self.size, self.direction = vocabulary, np.abs(moves), np.sign(moves)
        self.changed = (changed == np.arange(len(vocabulary.factors))[:, None]).astype(float)  # [factor, pair]
        self.counts = self.changed.sum(1)
        # +1 where the second image has a value of the changed factor, -1 where the first has it: [value, pair]
        self.towards = (second.astype(float) - first).T * self.changed[vocabulary.factor_of_value]
        self.mean_size = self.size @ self.changed.T / np.maximum(self.counts, 1)  # [component, factor]
        self.order = self.size.argsort(1, kind="stable")  # [component, pair]
        self.rank_sums = _ranks(self.size) @ self.changed.T  # [component, factor]
        self.along = self.direction @ self.towards.T  # [component, value]

    def judges(self, poles, truth):
        """Which poles can be judged, bool [pole]: those that a factor moves most of which there are pairs."""
        return self.counts[truth.strongest[poles // 2]] > 0

    def judge(self, poles, names):
        """{measure: [pole]} of the names of poles, numbers of texts [pole].

        auc: chance that the component moves more by a change of a factor that its name says than by one of another;
        signed_hits: % of the changes from or to a value named that move the component towards the named pole where the
        value comes in; purity: % of all movement that the named factors make, with as many changes of each. A name
        that says no factor, or a value that no pair has, counts as 0.5, 50 and 0. With pairs of one factor alone there
        is only signed_hits.
        """
        component, sign = poles // 2, 1 - 2 * (poles % 2)
        factors, values = (
            of[names].astype(float) for of in (self.vocabulary.names_factor, self.vocabulary.names_value)
        )
        named = factors @ self.counts  # pairs of the named factors [pole]
        both = np.maximum(named * (self.counts.sum() - named), 1)
        auc = ((factors * self.rank_sums[component]).sum(1) - named * (named + 1) / 2) / both
        pairs = values @ np.abs(self.towards).sum(1)
        along = sign * (values * self.along[component]).sum(1)
        purity = (factors * self.mean_size[component]).sum(1) / _positive(self.mean_size[component].sum(1))
        measures = {"signed_hits": 50 * (1 + along / np.maximum(pairs, 1))}
        if (self.counts > 0).sum() < 2:
            return measures
        auc = np.where((named > 0) & (named < self.counts.sum()), auc, 0.5)
        return {"auc": auc} | measures | {"purity": 100 * purity}

    def influence(self, poles, names, measures):
        """{measure: influence of each pair on the mean over these poles [pair]}; measures: of `judge`."""
        influence = {name: np.zeros(self.size.shape[1]) for name in measures}
        for start in range(0, len(poles), POLES_AT_A_TIME):
            part = slice(start, start + POLES_AT_A_TIME)
            of_part = {name: values[part, None] for name, values in measures.items()}
            component, sign = poles[part] // 2, 1 - 2 * (poles[part] % 2)
            parts = self._influence(names[part], component, sign, of_part)
            for name in influence:
                influence[name] += parts[name].sum(0) / len(poles)
        return influence

    def _influence(self, names, component, sign, measures):
        measures = {"auc": 0.0, "purity": 0.0} | measures
        factors, values = (
            of[names].astype(float) for of in (self.vocabulary.names_factor, self.vocabulary.names_value)
        )
        size, inside = self.size[component], factors @ self.changed > 0  # [pole, pair]
        named, others = (np.maximum(group.sum(1, keepdims=True), 1) for group in (inside, ~inside))
        # Placement of a pair: the share of the other group's movements that are smaller, or for the others larger.
        order = self.order[component]
        is_named = np.take_along_axis(inside, order, axis=1)
        smaller, larger = (~is_named).cumsum(1) / others, 1 - is_named.cumsum(1) / named
        placement = np.where(is_named, (smaller - measures["auc"]) / named, (larger - measures["auc"]) / others)
        auc = np.empty_like(placement)
        np.put_along_axis(auc, order, placement, axis=1)
        auc *= inside.any(1, keepdims=True) & ~inside.all(1, keepdims=True)
        either = values @ np.abs(self.towards)
        along = 50 * (either + sign[:, None] * (values @ self.towards) * self.direction[component])
        signed = (along - measures["signed_hits"] * either) / np.maximum(either.sum(1, keepdims=True), 1)
        weight = (100 * factors - measures["purity"]) / _positive(self.mean_size[component].sum(1, keepdims=True))
        purity = (weight / np.maximum(self.counts, 1)) @ self.changed
        purity *= size - self.mean_size[component] @ self.changed
        return {"auc": auc, "signed_hits": signed, "purity": purity}


def _positive(values):
    return np.maximum(values, np.finfo(float).tiny)


def _ranks(values):
    """Ranks from 1 within each row, ties with their mean: [row, number]."""
    from scipy.stats import rankdata  # takes longer to import than most jobs need for all else

    return rankdata(values, axis=1)


def matched_texts(pool, count=MATCHED):
    """Numbers of the texts closest to each one in length, about the pool's mean, and in spread: [text, count]."""
    from scipy.spatial import cKDTree

    length = np.linalg.norm(pool.centred, axis=1)
    spread = np.log(np.divide(1, pool.scale, out=np.ones_like(length), where=pool.scale > 0))
    features = np.stack([length, spread], axis=1)
    features = (features - features.mean(0)) / np.maximum(features.std(0), np.finfo(float).tiny)
    count = min(count, len(features) - 1)
    if count == 0:
        return np.zeros((len(features), 0), int)
    neighbours = cKDTree(features).query(features, count + 1)[1]
    is_self = neighbours == np.arange(len(features))[:, None]
    is_self[~is_self.any(1), -1] = True  # among many that coincide, the text itself may be missing
    return neighbours[~is_self].reshape(len(features), count)


class Removal:
    """What goes of the differences that texts see between eval images, if a component is removed.

    Taking out a component v of scores s changes e·t by -s v·t; of the variance of e·t over the images goes the share
    cov(s, e·t) v·t / var(e·t) that the component's part accounts for, below 0 where it works against the text.
    """

    def __init__(self, embeddings, pool):
        self.features, self.matched = pool.features, matched_texts(pool)
        self.embeddings = embeddings - embeddings.mean(0)
        covariance = self.embeddings.T @ self.embeddings / len(embeddings)
        variance = np.einsum("td,td->t", self.features @ covariance, self.features)
        self.inverse = np.divide(1, variance, out=np.zeros_like(variance), where=(pool.scale > 0) & (variance > 0))

    def judge(self, poles, names, scores, components):
        """(evidence lost in %, beats matched in %), [pole] each, of the names of poles of one head [pole].

        scores: of the eval images [image, component]; components: [component, d_embed]
        The first is the share that goes for the named text, the second how many matched texts lose less (50 for equal).
        """
        covariance = (scores - scores.mean(0)).T @ self.embeddings / len(scores)  # [component, d_embed]
        texts, component = np.concatenate([names[:, None], self.matched[names]], axis=1), poles // 2  # [pole, text]
        features = self.features[texts]  # [pole, text, d_embed]
        lost = 100 * self.inverse[texts]
        for direction in (components, covariance):
            lost *= (features @ direction[component][..., None])[..., 0]
        own, others = lost[:, :1], lost[:, 1:]
        beats = 50 * (1 + np.sign(own - others)).mean(1) if others.shape[1] else np.full(len(names), 50.0)
        return own[:, 0], beats


def half_width(influence):
    """Half of the 95 % interval over pairs of a mean over poles, from the influence of each pair on it [pair]."""
    count = len(influence)
    return student(count - 1) * np.sqrt((influence**2).sum() * count / (count - 1)) if count > 1 else np.nan
