"""Whether a component's texts name the factor that explains most of the variance of its scores.

This needs a dataset whose manifest has factor columns: there it is known which factor the scores depend on.
"""

import re
from itertools import product

import numpy as np
import pandas as pd

UNIT_COLUMNS = ["layer", "head", "component"]
CLEAR_ETA2 = 0.5  # η² above which a component clearly depends on a factor


def names_any(text, phrases):
    """Whether a text contains one of the phrases as whole words, in upper or lower case."""
    return any(re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE) for phrase in phrases)


class Vocabulary:
    """Which values of which factors each text names.

    factors: their names; values: (number of its factor, value) of each; factor_of_value: [value]
    names_value: bool [text, value]; names_factor: bool [text, factor]
    """

    def __init__(self, vocabulary, texts):
        self.factors = list(vocabulary)
        self.values = [(number, value) for number, name in enumerate(self.factors) for value in vocabulary[name]]
        self.factor_of_value = np.array([number for number, _ in self.values], int)
        named = [
            [names_any(text, vocabulary[self.factors[number]][value]) for number, value in self.values]
            for text in texts
        ]
        self.names_value = np.array(named, bool).reshape(len(texts), len(self.values))
        self.names_factor = self.by_factor(self.names_value) > 0

    def by_factor(self, of_values):
        """Sums over the values of each factor: [row, value] -> [row, factor]."""
        belongs = self.factor_of_value[:, None] == np.arange(len(self.factors))
        return np.asarray(of_values, float) @ belongs

    def one_hot(self, table):
        """Which values each row of a table of images has, bool [image, value]."""
        return np.stack(
            [(table[self.factors[number]].astype(str) == value).to_numpy() for number, value in self.values], 1
        )


def factor_vocabulary(images, factors):
    """{factor: {value: phrases that name it}} of the values that a table of images has.

    factors: {factor: {value: phrases}} as far as the config has them; else a value is named by itself
    """
    return {
        factor: {value: phrases.get(value, [value.replace("_", " ")]) for value in images[factor].astype(str).unique()}
        for factor, phrases in factors.items()
    }


def pole_names(texts, components):
    """{"better": one name of each component, "both": one of each pole, if the method names both}.

    texts: rows of an explanation (layer, head, component, pole, place, text, and of methods with two poles score)
    components: table of all components; one without a text has the name "", which is always a miss
    A pole's name is its first text; the better pole is that of the larger |score|.
    """
    first = texts.sort_values("place", kind="stable").drop_duplicates([*UNIT_COLUMNS, "pole"])
    strength = first["score"].abs() if "score" in first else first["place"]
    order = strength.sort_values(ascending=False, kind="stable").index
    names = {"better": components.merge(first.loc[order].drop_duplicates(UNIT_COLUMNS), how="left", on=UNIT_COLUMNS)}
    if first.duplicated(UNIT_COLUMNS).any():
        poles = components.merge(pd.DataFrame({"pole": ["top", "bottom"]}), how="cross")
        names["both"] = poles.merge(first, how="left", on=[*UNIT_COLUMNS, "pole"])
    return {which: table.fillna({"text": "", "pole": "top"}) for which, table in names.items()}


def hit_rates(texts, factors, vocabulary, *, rng, draws=1000):
    """How often the name of a pole names the factor of its component: one row per set of components and of names.

    texts: as in pole_names; factors: one row per component, with eta2_, high_ and low_ of each factor
    vocabulary: {factor: {value: phrases that name it}}

    Columns: components; which_poles, "better" or "both"; which_names, whether any name counts, or those that name one
    factor or several; poles (their number) and share (% of the poles of all such components); factor_hits: % of poles
    whose name has any value of the factor with the largest η²; value_hits: % whose name has the very value with the
    highest (top pole) or lowest (bottom pole) scores; and for both the mean and the 95 % quantile over random
    permutations (draws) of the names among the poles.
    """
    return pd.DataFrame(
        [
            {"components": components, "which_poles": which, "which_names": which_names} | row
            for which, names in pole_names(texts, factors).items()
            for (components, which_names), row in _rates(names, vocabulary, rng, draws).items()
        ]
    )


def _rates(names, vocabulary, rng, draws):
    """{(components, which_names): the other columns of hit_rates} of a table of names, with the columns of factors."""
    texts, text_of_name = np.unique(names["text"].to_numpy(str), return_inverse=True)
    vocabulary = Vocabulary(vocabulary, texts)
    factors, values = vocabulary.factors, vocabulary.values
    names_value, names_factor = vocabulary.names_value[text_of_name], vocabulary.names_factor[text_of_name]
    eta = names[[f"eta2_{factor}" for factor in factors]].to_numpy()  # [pole, factor]
    strongest = eta.argmax(1)  # factor of each pole
    ends = np.where(names["pole"] == "top", "high_", "low_")
    expected = [
        (number, str(names[end + factors[number]][row])) for row, (number, end) in enumerate(zip(strongest, ends))
    ]
    expected = np.array([values.index(value) for value in expected])

    heads, count = (names["layer"] >= 0).to_numpy(), names_factor.sum(1)
    sets = {
        "of heads": (heads, heads),
        f"of heads, one factor moves {100 * CLEAR_ETA2:.0f} % or more": (
            heads & (eta.max(1, initial=0) >= CLEAR_ETA2),
            heads,
        ),
        "of the whole embedding": (~heads, ~heads),
    }
    which = {"any": np.ones(len(names), bool), "one factor": count == 1, "several factors": count > 1}
    rows = {}
    for (label, (inside, whole)), (which_names, named) in product(sets.items(), which.items()):
        poles = np.flatnonzero(inside & named)
        if len(poles) == 0:
            continue
        orders = [poles, *(rng.permutation(poles) for _ in range(draws))]
        row = {"poles": len(poles), "share": 100 * len(poles) / whole.sum()}
        for column, hits, target in (("factor_hits", names_factor, strongest), ("value_hits", names_value, expected)):
            row[column], *chance = (100 * hits[order, target[poles]].mean() for order in orders)
            row |= {f"{column}_by_chance": np.mean(chance), f"{column}_by_chance_95": np.quantile(chance, 0.95)}
        rows[label, which_names] = row
    return rows
