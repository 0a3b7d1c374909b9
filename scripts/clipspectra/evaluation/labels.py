"""Does the text say what the component does? The factor that moves a component, against the factor its text names.

Only datasets whose manifest has factor columns can tell: there, what moves a component's scores is known.
"""

import re

import numpy as np
import pandas as pd

WHERE = ["layer", "head", "component"]
CLEAR = 0.5  # share of a component's variance above which a factor clearly moves it


def names_any(text, phrases):
    """Whether a text has one of the phrases in it, as whole words, upper or lower case."""
    return any(re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE) for phrase in phrases)


def hit_rates(texts, factors, vocabulary, *, rng, draws=1000):
    """How often the best text of a pole names what moves its component: one row a choice of components.

    texts: rows of an explanation (layer, head, component, pole, place, text); factors: one row a component, with
    eta2_, high_ and low_ of each factor; vocabulary: {factor: {value: phrases that name it}}

    Columns: poles (their number); factor_hits: in % of them the text names a value of the factor with the largest η²;
    value_hits: it names the very value whose images score highest (top pole) or lowest (bottom pole); and for both the
    mean and the 95 % quantile over draws that deal the texts out to the components by chance.
    """
    best = texts[texts["place"] == 0].merge(factors, on=WHERE)
    names = list(vocabulary)
    eta = best[[f"eta2_{name}" for name in names]].to_numpy()
    winner = eta.argmax(1)
    # every pole has a text that names some of all values, and one value that it should name
    values = [(index, value) for index, name in enumerate(names) for value in vocabulary[name]]
    said = {
        text: [names_any(text, vocabulary[names[index]][value]) for index, value in values]
        for text in best["text"].unique()
    }
    says = np.array([said[text] for text in best["text"]], bool).reshape(len(best), len(values))
    ends = np.where(best["pole"] == "top", "high_", "low_")
    wanted = [
        values.index((index, str(best[end + names[index]][row]))) for row, (index, end) in enumerate(zip(winner, ends))
    ]
    of_factor = np.stack(
        [says[:, [index == place for index, _ in values]].any(1) for place in range(len(names))], axis=1
    )

    heads = (best["layer"] >= 0).to_numpy()
    chosen = {
        "of heads": heads,
        f"of heads, one factor moves {100 * CLEAR:.0f} % or more": heads & (eta.max(1, initial=0) >= CLEAR),
        "of the whole embedding": ~heads,
    }
    rows = []
    for which, inside in chosen.items():
        poles = np.flatnonzero(inside)
        if len(poles) == 0:
            continue
        orders = [poles, *(rng.permutation(poles) for _ in range(draws))]
        hits = 100 * np.array(
            [(of_factor[order, winner[poles]].mean(), says[order, np.array(wanted)[poles]].mean()) for order in orders]
        )
        row = {"components": which, "poles": len(poles)}
        for place, name in enumerate(("factor", "value")):
            row[f"{name}_hits"], chance = hits[0, place], hits[1:, place]
            row |= {f"{name}_hits_by_chance": chance.mean(), f"{name}_hits_by_chance_95": np.quantile(chance, 0.95)}
        rows.append(row)
    return pd.DataFrame(rows)
