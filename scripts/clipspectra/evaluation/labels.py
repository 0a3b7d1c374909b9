"""Whether a component's texts name the factor that explains most of the variance of its scores.

This needs a dataset whose manifest has factor columns: there it is known which factor the scores depend on.
"""

import re

import numpy as np
import pandas as pd

UNIT_COLUMNS = ["layer", "head", "component"]
CLEAR_ETA2 = 0.5  # η² above which a component clearly depends on a factor


def names_any(text, phrases):
    """Whether a text contains one of the phrases as whole words, in upper or lower case."""
    return any(re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE) for phrase in phrases)


def factor_vocabulary(images, factors):
    """{factor: {value: phrases that name it}} of the values that a table of images has.

    factors: {factor: {value: phrases}} as far as the config has them; else a value is named by itself
    """
    return {
        factor: {value: phrases.get(value, [value.replace("_", " ")]) for value in images[factor].astype(str).unique()}
        for factor, phrases in factors.items()
    }


def hit_rates(texts, factors, vocabulary, *, rng, draws=1000):
    """How often the best text of a pole names the factor of its component: one row per set of components.

    texts: rows of an explanation (layer, head, component, pole, place, text); factors: one row per component, with
    eta2_, high_ and low_ of each factor; vocabulary: {factor: {value: phrases that name it}}

    Columns: poles (their number); factor_hits: % of poles whose text names any value of the factor with the largest
    η²; value_hits: % whose text names the very value with the highest (top pole) or lowest (bottom pole) scores; and
    for both the mean and the 95 % quantile over random permutations (draws) of the texts among the poles.
    """
    best = texts[texts["place"] == 0].merge(factors, on=UNIT_COLUMNS)
    names = list(vocabulary)
    eta = best[[f"eta2_{name}" for name in names]].to_numpy()  # [pole, factor]
    strongest = eta.argmax(1)  # factor of each pole
    values = [(factor, value) for factor, name in enumerate(names) for value in vocabulary[name]]
    named_values = {
        text: [names_any(text, vocabulary[names[factor]][value]) for factor, value in values]
        for text in best["text"].unique()
    }
    names_value = np.array([named_values[text] for text in best["text"]], bool).reshape(len(best), len(values))
    names_factor = np.stack(
        [names_value[:, [factor == index for factor, _ in values]].any(1) for index in range(len(names))], axis=1
    )
    ends = np.where(best["pole"] == "top", "high_", "low_")
    expected = [(factor, str(best[end + names[factor]][row])) for row, (factor, end) in enumerate(zip(strongest, ends))]
    expected = np.array([values.index(value) for value in expected])

    heads = (best["layer"] >= 0).to_numpy()
    masks = {
        "of heads": heads,
        f"of heads, one factor moves {100 * CLEAR_ETA2:.0f} % or more": heads & (eta.max(1, initial=0) >= CLEAR_ETA2),
        "of the whole embedding": ~heads,
    }
    rows = []
    for label, mask in masks.items():
        poles = np.flatnonzero(mask)
        if len(poles) == 0:
            continue
        orders = [poles, *(rng.permutation(poles) for _ in range(draws))]
        row = {"components": label, "poles": len(poles)}
        for column, named, target in (("factor_hits", names_factor, strongest), ("value_hits", names_value, expected)):
            row[column], *chance = (100 * named[order, target[poles]].mean() for order in orders)
            row |= {f"{column}_by_chance": np.mean(chance), f"{column}_by_chance_95": np.quantile(chance, 0.95)}
        rows.append(row)
    return pd.DataFrame(rows)
