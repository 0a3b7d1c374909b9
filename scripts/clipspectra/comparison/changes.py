"""What became of each head and component of a model in another one: tables with one row for each pair that is compared.

Names are compared text by text, factors and effects by what evaluation has measured of either model.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from clipspectra.comparison.matching import match_components
from clipspectra.comparison.similarity import HeadRows
from clipspectra.evaluation.intervals import columns
from clipspectra.evaluation.stability import COMPARED_COMPONENTS, angles, by_chance
from clipspectra.explanations.naming import NAMED_BY, shown_names
from clipspectra.jobs import progress

SHARED_SPACE = 0.5  # mean cosine of the same texts in two models from which their joint spaces count as one
POLES = ("top", "bottom")
PAIR = ["layer", "head", "compared", "other_layer", "other_head"]


@dataclass
class ComparedModel:
    """What is known of one of the models on the images.

    rows: HeadRows; explanations: {(layer, head): HeadExplanation with components}; names: their table of texts
    factors: table of the components with eta2_… of each factor, see evaluation; effects: of its heads and MLPs, or None
    """

    rows: HeadRows
    explanations: dict
    names: pd.DataFrame
    factors: pd.DataFrame
    effects: pd.DataFrame | None = None

    def is_constant(self, unit):
        """Whether a head's contribution is the same for every image, so that it has no components."""
        return not len(self.explanations[unit].components)

    def directions(self, unit):
        """The head's components in the coordinates of its rows, [component, width]."""
        layer, head = unit
        return self.explanations[unit].components.astype(np.float64) @ self.rows.frames[layer][head]

    @cached_property
    def texts(self):
        """{(naming, layer, head, component, pole): its texts, best first}."""
        table = self.names[self.names["layer"] >= 0].sort_values("place", kind="stable")
        keys = ["naming", "layer", "head", "component", "pole"]
        return table.groupby(keys, sort=False)["text"].agg(list).to_dict()

    @cached_property
    def shown(self):
        """{(naming, layer, head, component, pole): its name as it is shown}."""
        first = self.names[self.names["place"] == 0]
        keys = zip(*(first[key] for key in ("naming", "layer", "head", "component", "pole")))
        return dict(zip(keys, shown_names(first)))

    def text_shares(self, naming):
        """Share of all poles that have a text among their first ones: {text: share}."""
        lists = [texts for key, texts in self.texts.items() if key[0] == naming]
        return pd.Series([text for texts in lists for text in texts], dtype=object).value_counts() / max(len(lists), 1)

    @cached_property
    def eta2(self):
        """η² of each factor [component, factor], in %, by layer, head and component."""
        table = self.factors.set_index(["layer", "head", "component"])
        return 100 * table.filter(regex="^eta2_").rename(columns=lambda name: name.removeprefix("eta2_"))

    @cached_property
    def eta2_of_heads(self):
        """η² of each factor over the whole variance of a head, [head, factor], in %; NaN for constant heads.

        Components are orthogonal, so it is the mean of theirs, each counting by its share.
        """
        share = self.factors.set_index(["layer", "head", "component"])["share"]
        table = self.eta2.mul(share, axis=0).groupby(level=["layer", "head"]).sum()
        return table.reindex(pd.MultiIndex.from_tuples(self.explanations, names=["layer", "head"]))


def space_cosine(features, other_features):
    """Mean cosine of the same texts, centred, in two models [text, d_embed]; NaN where d_embed differs.

    From SHARED_SPACE on the two joint spaces count as one, as in a model and what was fine-tuned from it.
    """
    if features.shape[1] != other_features.shape[1]:
        return np.nan
    first, second = (of - of.mean(0) for of in (features.astype(np.float64), other_features.astype(np.float64)))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(np.mean((first * second).sum(1) / np.maximum(lengths, np.finfo(float).tiny)))


def pair_changes(similarity, first, second, cosine, rng):
    """(row of each pair of heads, rows of its components): two tables, see head_row and component_rows.

    similarity: Similarity of the two ComparedModels; cosine: see space_cosine
    """
    chance, computed, heads, components = names_by_chance(first, second), {}, [], []
    for unit in progress(similarity.units, "what changed", unit="head"):
        for compared, other in similarity.partners(unit).items():
            if (unit, other) not in computed:
                computed[unit, other] = _changes_of_pair(similarity, first, second, unit, other, cosine, chance, rng)
            of_head, of_components = computed[unit, other]
            pair = dict(zip(PAIR, (*unit, compared, *other)))
            heads.append(pair | of_head)
            components += [pair | row for row in of_components]
    return pd.DataFrame(heads), pd.DataFrame(components)


def _changes_of_pair(similarity, first, second, unit, other, cosine, chance, rng):
    own, others = similarity.covariance[unit], similarity.other_covariance[other]
    directions = first.directions(unit), second.directions(other)
    match = match_components(similarity.pairs[unit, other], own, others, *directions)
    rows = component_rows(first, second, unit, other, match)
    row = similarity.ranks(unit, other)
    row |= {"correlation": match.weighted(match.correlation)}
    row |= {"correlation_by_chance": match.by_chance(similarity.images, rng)}
    row |= {"space_cosine": cosine} | angle_columns(first, second, unit, other, cosine, rng)
    for naming in NAMED_BY:
        row |= {naming: match.weighted([of_component[naming] for of_component in rows])}
        row |= {f"{naming}_by_chance": chance[naming]}
    row |= {"variance": np.trace(own) / similarity.images, "other_variance": np.trace(others) / similarity.images}
    row |= factor_columns(first.eta2_of_heads.loc[unit], second.eta2_of_heads.loc[other], gained=True)
    return row | effect_columns(first.effects, second.effects, unit, other), rows


def angle_columns(first, second, unit, other, cosine, rng):
    """{"mean_angle", "mean_angle_by_chance"} between the spans of two heads' first components, in degrees.

    NaN where the models share no joint space. By chance: components turned at random within the other head's space.
    """
    spans = first.explanations[unit].components, second.explanations[other].components
    if not cosine >= SHARED_SPACE or not min(map(len, spans)):
        return {"mean_angle": np.nan, "mean_angle_by_chance": np.nan}
    spans = [span.astype(np.float64) for span in spans]
    count = min(*map(len, spans), COMPARED_COMPONENTS)

    def mean_angle(components):
        return {"mean_angle": angles(spans[0][:count], components[:count])["mean_angle"]}

    return mean_angle(spans[1]) | by_chance(mean_angle, spans[1], rng)


def component_rows(first, second, unit, other, match):
    """One dict for each component of a head: what it is matched with, the names of both, and what moves them.

    share, other_share: of the head's variance, in %; changed: the part of share that the other's scores do not go along
    with; {naming}: % of the texts of both poles that are kept; factor, eta2: what explains most of the scores, in %
    Poles of the other component are those that go along: they change places where the correlation is below 0.
    """
    rows = []
    for component, (partner, correlation) in enumerate(zip(match.partner, match.correlation)):
        share, has_partner = 100 * match.share[component], partner >= 0
        row = {"component": component, "share": share, "other_component": partner}
        row |= {"other_share": 100 * match.other_share[partner] if has_partner else np.nan}
        row |= {"correlation": correlation, "changed": share * (1 - correlation**2)}
        poles = POLES if correlation >= 0 else POLES[::-1]
        for naming in NAMED_BY:
            kept = 0.0
            for pole, other_pole in zip(POLES, poles):
                key, other_key = (naming, *unit, component, pole), (naming, *other, partner, other_pole)
                row |= {f"{naming}_{pole}": first.shown[key], f"other_{naming}_{pole}": second.shown.get(other_key, "")}
                texts = first.texts[key]
                kept += len(set(texts) & set(second.texts.get(other_key, []))) / len(texts)
            row[naming] = 100 * kept / len(POLES)
        blank = pd.Series(np.nan, first.eta2.columns)
        eta2 = second.eta2.loc[(*other, partner)] if has_partner else blank
        rows.append(row | factor_columns(first.eta2.loc[(*unit, component)], eta2))
    return rows


def names_by_chance(first, second):
    """{naming: % of a pole's texts that a pole of the other model has, on average over all pairs of their poles}."""
    chance = {}
    for naming in NAMED_BY:
        shares, other_shares = first.text_shares(naming), second.text_shares(naming)
        chance[naming] = 100 * float(shares.mul(other_shares, fill_value=0).sum() / max(shares.sum(), 1))
    return chance


def factor_columns(eta2, other_eta2, gained=False):
    """The factor that explains most before and after, and how much, in %; with `gained` also the one that gained most.

    eta2, other_eta2: of one head or component [factor]; without factors no columns, "" and NaN where none is known
    """
    if not len(eta2):
        return {}
    row = {}
    for prefix, values in (("", eta2), ("other_", other_eta2)):
        is_known = values.notna().all()
        row |= {f"{prefix}factor": values.idxmax() if is_known else "", f"{prefix}eta2": values.max()}
    if gained:
        change = other_eta2 - eta2
        row |= {"gained": change.idxmax() if change.notna().all() else "", "gained_eta2": change.max()}
    return row


def effect_columns(effects, other_effects, unit, other):
    """The accuracy that is lost with either head at its mean, and the change, in points; no columns without effects.

    The interval of the change joins those of the two losses (Zou and Donner 2008) as if they were measured on different
    images. On the same ones they mostly err alike, so it is rather too wide.
    """
    if effects is None or other_effects is None:
        return {}
    row, ends = {}, []
    for prefix, table, (layer, head) in (("", effects, unit), ("other_", other_effects, other)):
        inside = (table["kind"] == "head") & (table["layer"] == layer) & (table["head"] == head)
        lost = table[inside].iloc[0]
        ends.append([lost[f"accuracy_lost{end}"] for end in ("", "_low", "_high")])
        row |= columns(f"{prefix}accuracy_lost", *ends[-1])
    (own, own_low, own_high), (after, after_low, after_high) = ends
    below, above = np.hypot(after - after_low, own_high - own), np.hypot(after_high - after, own - own_low)
    return row | columns("lost_change", after - own, after - own - below, after - own + above)
