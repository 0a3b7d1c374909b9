"""The table of what judges say of names: one row per measure, with its interval, chance and difference from `says`."""

from dataclasses import dataclass
from itertools import product

import numpy as np

from clipspectra.evaluation.intervals import change, columns, ratio_of_sums
from clipspectra.evaluation.judges import half_width
from clipspectra.evaluation.labels import CLEAR_ETA2
from clipspectra.evaluation.recovery import recovered_accuracy
from clipspectra.explanations.head import HeadExplanation
from clipspectra.explanations.naming import NAMED_BY

DEALS = 100  # of names among poles, for chance
RECOVERED_TEXTS = 5  # a head
MATCHED_COMPONENTS = 10  # of a head, over seeds


@dataclass
class Part:
    """A measure of names, and what its interval comes from.

    by_head: (sum over its poles, number of poles) of each head [head], or None; influence: of each pair [pair], or None
    largest: the largest possible value, 100 or 1, where 0 is the smallest, or None
    """

    value: float
    by_head: tuple | None = None
    influence: np.ndarray | None = None
    largest: float | None = None

    @classmethod
    def over_heads(cls, values, heads, influence=None, largest=100):
        """Of the values of poles [pole] and the numbers of their heads [pole]."""
        heads = np.unique(heads, return_inverse=True)[1]
        return cls(values.mean(), (np.bincount(heads, values), np.bincount(heads).astype(float)), influence, largest)

    def columns(self, name="score"):
        """The value and its interval as columns of a table: over heads, whose poles are alike, and over pairs."""
        if self.by_head is None:
            return columns(name, self.value, np.nan, np.nan)
        sums, poles = self.by_head
        products = (sums**2).sum(), (sums * poles).sum(), (poles**2).sum()
        _, low, high = ratio_of_sums(sums.sum(), poles.sum(), *products, len(sums))
        spread = (high - low) / 2
        if self.influence is not None:
            spread = np.hypot(spread, half_width(self.influence))
        low, high = self.value - spread, self.value + spread
        if self.largest is not None:
            low, high = (np.clip(end, 0, self.largest) for end in (low, high))
        return columns(name, self.value, low, high)

    def minus(self, other, by_chance):
        """Columns of the difference from another Part on the same poles and pairs, less that of their chance."""
        sums = self.by_head[0] - other.by_head[0] - by_chance * self.by_head[1]
        influence = None if self.influence is None else self.influence - other.influence
        difference = Part(self.value - other.value - by_chance, (sums, self.by_head[1]), influence)
        return difference.columns("against_says")


def judged_rows(names, truth, paired, vocabulary, confusable, rng):
    """One row per method, naming, control, kind of texts, set of components and measure.

    names: {(method, naming, control, kind of texts): Names}; truth: judges.Truth and paired: judges.PairedChanges, or
    None; confusable: names of the two factors that a control confounds, or (). Columns: score with its interval;
    by_chance and by_chance_95, of names dealt out at random (of removal: 50 of the matched texts); against_says, by how
    much more it is above its chance than what the components say above theirs, with its interval.
    """
    rows, parts, chances = [], {}, {}
    for key, entry in names.items():
        says = names.get((key[0], "says", "", key[3]), entry)
        says_inside = subsets(says, truth)
        for subset, inside in subsets(entry, truth).items():
            is_compared = says is not entry and np.array_equal(inside, says_inside.get(subset))  # on the same poles
            poles, texts = entry.poles[inside], entry.texts[inside]
            dealt = [dealt_values(poles, rng.permutation(texts), truth, paired, vocabulary) for _ in range(DEALS)]
            parts_of = measured(poles, texts, entry, inside, truth, paired, vocabulary)
            if is_compared:
                parts_of["same_as_says"] = Part.over_heads(100.0 * (texts == says.texts[inside]), entry.heads[inside])
            if confusable and subset == "all" and key[3] == "all":
                parts_of["confused"] = confused(poles, texts, entry.heads[inside], truth, vocabulary, confusable)
            for measure, part in parts_of.items():
                parts[key, subset, measure] = part
                row = dict(zip(("method", "naming", "control", "names"), key))
                row |= {"components": subset, "measure": measure, "poles": len(poles)} | part.columns()
                if measure in dealt[0]:
                    by_chance = [values[measure] for values in dealt]
                    row |= {"by_chance": np.mean(by_chance), "by_chance_95": np.quantile(by_chance, 0.95)}
                elif measure == "beats_matched":
                    row["by_chance"] = 50.0
                chances[key, subset, measure] = row.get("by_chance", 0.0)
                of_says = (key[0], "says", "", key[3]), subset, measure
                if of_says in parts and is_compared and not key[2]:
                    row |= part.minus(parts[of_says], chances[key, subset, measure] - chances[of_says])
                rows.append(row)
    return rows


def subsets(names, truth):
    """{name: bool [pole]} of the poles that measures are taken over."""
    chosen = {"all": np.ones(len(names.poles), bool)}
    if truth is not None:
        chosen[f"one factor moves {100 * CLEAR_ETA2:.0f} % or more"] = truth.eta2[names.poles // 2] >= CLEAR_ETA2
    if names.named is not None:
        chosen |= {"name above chance": names.named, "name within chance": ~names.named}
    return {name: inside for name, inside in chosen.items() if inside.any()}


def dealt_values(poles, texts, truth, paired, vocabulary):
    """{measure: its value} for names of poles that were dealt out at random."""
    values = {}
    if truth is not None:
        value, factor = truth.hits(poles, texts, vocabulary)
        values |= {"value_hits": 100 * value.mean(), "factor_hits": 100 * factor.mean()}
    if paired is not None and (judged := paired.judges(poles, truth)).any():
        values |= {name: of_poles.mean() for name, of_poles in paired.judge(poles[judged], texts[judged]).items()}
    return values


def measured(poles, texts, names, inside, truth, paired, vocabulary):
    """{measure: Part} of the names of some poles; inside: bool, which of those in `names` they are."""
    parts, heads = {}, names.heads[inside]
    parts["contradicted"] = Part.over_heads(100.0 * (names.projections[inside] <= 0), heads)
    if truth is not None:
        hits = dict(zip(("value_hits", "factor_hits"), truth.hits(poles, texts, vocabulary)))
        parts |= {measure: Part.over_heads(100.0 * is_hit, heads) for measure, is_hit in hits.items()}
    if paired is not None and (judged := paired.judges(poles, truth)).any():
        values = paired.judge(poles[judged], texts[judged])
        influence = paired.influence(poles[judged], texts[judged], values)
        parts |= {
            name: Part.over_heads(values[name], heads[judged], influence[name], 1 if name == "auc" else 100)
            for name in values
        }
    if names.removal is not None:
        removal = zip(("evidence_lost", "beats_matched"), names.removal[:, inside])
        limits = {"evidence_lost": None, "beats_matched": 100}
        parts |= {name: Part.over_heads(of_poles, heads, largest=limits[name]) for name, of_poles in removal}
    if names.over_pools is not None:
        parts["cosine_over_pools"] = Part.over_heads(names.over_pools[inside], heads, largest=None)
    return parts


def confused(poles, texts, heads, truth, vocabulary, factors):
    """Part: % of the poles that the second of two factors moves whose name says a value of the first."""
    first, second = (vocabulary.factors.index(factor) for factor in factors)
    moved = truth.strongest[poles // 2] == second
    if not moved.any():
        return Part(np.nan)
    return Part.over_heads(100.0 * vocabulary.names_factor[texts[moved], first], heads[moved])


def recovered_rows(names, explanations, stored, layers, classifier, labels):
    """Rows of the accuracy that RECOVERED_TEXTS texts a head recover, one per naming of both poles by a method.

    explanations: {(layer, head): HeadExplanation} of the method; layers: the last ones, whose heads are replaced;
    classifier: [d_embed, class]; labels: correct classes [image]
    """
    rows, correct = [], {}
    for (method, naming, control, texts), entry in names.items():
        if not entry.steps:
            continue
        heads = {
            unit: HeadExplanation(explanations[unit].mean, None, steps, np.arange(len(steps)) + 1, None)
            for unit, steps in entry.steps.items()
            if unit[0] in layers
        }
        of_naming = recovered_accuracy(stored, [heads], [RECOVERED_TEXTS], layers, classifier, labels, mlps="mean")
        table, correct[naming] = of_naming[0], of_naming[1][0, 0]
        row = {
            "method": method,
            "naming": naming,
            "control": control,
            "names": texts,
            "components": "all of the last layers",
        }
        row |= {
            "measure": f"accuracy_{RECOVERED_TEXTS}_texts",
            "poles": 2 * sum(len(explanations[unit].components) for unit in heads),
        }
        row |= columns("score", *table[["top1", "top1_low", "top1_high"]].iloc[0])
        if naming != "says":
            difference = change(correct["says"], correct[naming])
            row |= {name.replace("change", "against_says"): value for name, value in difference.items() if name != "p"}
        rows.append(row)
    return rows


def rows_over_seeds(method, own, other, own_table, other_table):
    """Rows of the % of poles that keep their name with another seed's images, one per naming.

    own, other: {(layer, head): HeadExplanation} of the seeds; tables: of their texts. The first components of a head
    are matched one to one.
    """
    from scipy.optimize import linear_sum_assignment  # takes longer to import than most jobs need for all else

    kept, tables = {}, [_first_texts(table) for table in (own_table, other_table)]
    for unit in sorted(set(own) & set(other)):
        first, second = (explanations[unit].components[:MATCHED_COMPONENTS] for explanations in (own, other))
        count = min(len(first), len(second))
        cosines = first[:count] @ second[:count].T
        for row, column in zip(*linear_sum_assignment(-np.abs(cosines))):
            swapped = (
                {"top": "bottom", "bottom": "top"} if cosines[row, column] < 0 else {"top": "top", "bottom": "bottom"}
            )
            for naming, (pole, other_pole) in product(NAMED_BY, swapped.items()):
                text, other_text = (
                    tables[0].get((naming, *unit, row, pole)),
                    tables[1].get((naming, *unit, column, other_pole)),
                )
                if text is not None and other_text is not None:
                    kept.setdefault(naming, []).append(text == other_text)
    rows = []
    for naming, same in kept.items():
        row = {"method": method, "naming": naming, "control": "", "names": "all", "components": "first ten of a head"}
        row |= {"measure": "same_over_seeds", "poles": len(same)}
        rows.append(row | Part(100 * np.mean(same)).columns())
    return rows


def _first_texts(table):
    """{(naming, layer, head, component, pole): first text} of a table of texts."""
    keys = ["naming", "layer", "head", "component", "pole"]
    first = table.sort_values("place", kind="stable").drop_duplicates(keys)
    return first.set_index(keys)["text"].to_dict()
