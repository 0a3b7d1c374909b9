"""How well images are found that have the same value of a factor: by the whole embedding, a head or a component.

Each query image ranks all other images: by the cosine about the mean of the fit images, or by how near their scores on
a component are, as neighbours do. Relevant are those with the same value. Which head or component finds a factor best
is chosen on the fit images, and its average precision is of the eval images.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from clipspectra.concepts.retrieval import View
from clipspectra.contributions.stored import EMBEDDING
from clipspectra.evaluation.accuracy import eta_squared
from clipspectra.evaluation.intervals import mean_by_influence
from clipspectra.evaluation.labels import Vocabulary, factor_vocabulary
from clipspectra.evaluation.ranking import (
    average_precision,
    average_precision_influence,
    blocks,
    random_average_precision,
)
from clipspectra.jobs import progress

MOST_QUERIES = 1000  # of more images, so many drawn at random are queries
WHOLE, BEST_HEAD, NAMED_HEAD = "whole embedding", "head, best on fit images", "head that names it most"
BEST_COMPONENT = "component, best on fit images"
ORDER = (WHOLE, BEST_HEAD, NAMED_HEAD, BEST_COMPONENT)
SCORE = ("score", "score_low", "score_high")
AGAINST_WHOLE = ("against_whole", "against_whole_low", "against_whole_high")


def factor_values(images, factors, prompts):
    """{factor: values [image]} of all factors of a table of images, and of the class where it is none of them.

    factors: names; prompts: columns with prompts. A class is left out where images have none, or all have the same, and
    where it divides the images as a factor does.
    """
    columns = dict.fromkeys([*factors, *prompts, "class"])
    values = {factor: images[factor].astype(str).to_numpy() for factor in columns}
    names = values.pop("class")
    is_known = (names != "").all() and len(set(names)) > 1
    is_new = not any(_same_division(names, column) for column in values.values())
    return values | ({"class": names} if is_known and is_new else {})


def _same_division(first, second):
    """Whether values, [image] each, divide the images alike."""
    return len(set(zip(first, second))) == len(set(first)) == len(set(second))


class SameValue:
    """Images among which those with the same value of a factor are looked for.

    values: {factor: [image]}; rng: draws the queries, if there are more images than MOST_QUERIES
    queries: their numbers, rising [query]
    """

    def __init__(self, values, rng):
        self.codes = {factor: np.unique(column, return_inverse=True)[1] for factor, column in values.items()}
        self.images = len(next(iter(self.codes.values())))
        queries = rng.permutation(self.images)[:MOST_QUERIES]
        self.queries = np.sort(queries)

    def precisions(self, closeness, factors):
        """{factor: Precisions} of all queries, for these factors.

        closeness: numbers of queries -> how close all images are to each, [query, image]
        """
        measured = [
            (average_precision(*ranked), average_precision_influence(*ranked))
            for ranked in self._ranked(closeness, factors)
        ]
        by_query, by_image = ([*zip(*parts)] for parts in zip(*measured))
        return {
            factor: Precisions(self.queries, np.concatenate(of_queries), np.sum(of_images, axis=0))
            for factor, of_queries, of_images in zip(factors, by_query, by_image)
        }

    def mean_precisions(self, closeness, factors):
        """{factor: mean average precision in %}; arguments as in `precisions`."""
        parts = [average_precision(*ranked) for ranked in self._ranked(closeness, factors)]
        return {factor: mean_percent(np.concatenate(of_queries)) for factor, of_queries in zip(factors, zip(*parts))}

    def _ranked(self, closeness, factors):
        """Block by block how close all images are to queries, [query, image], and which are relevant by each factor."""
        for part in blocks(self.queries, self.images):
            scores, itself = closeness(part).astype(np.float32), (np.arange(len(part)), part)
            scores[itself] = -np.inf
            relevants = [self.codes[factor][part, None] == self.codes[factor] for factor in factors]
            for relevant in relevants:
                relevant[itself] = False
            yield scores, relevants

    def count(self, factor):
        """Number of queries whose value another image has."""
        codes = self.codes[factor]
        return int((np.bincount(codes)[codes[self.queries]] > 1).sum())

    def by_chance(self, factor):
        """Expected mean average precision of a random ranking, in %."""
        relevant = np.bincount(self.codes[factor])[self.codes[factor][self.queries]] - 1
        return mean_percent(random_average_precision(relevant, self.images - 1))


@dataclass
class Precisions:
    """Average precisions of queries for one factor.

    queries: their numbers among the images [query]; by_query: NaN of one whose value no other image has [query]
    by_image: derivative of their sum by the weight of each image among those that are ranked [image]
    """

    queries: np.ndarray
    by_query: np.ndarray
    by_image: np.ndarray

    def __sub__(self, other):
        """The differences of two precisions of the same queries."""
        return Precisions(self.queries, self.by_query - other.by_query, self.by_image - other.by_image)

    def columns(self, name, least=0):
        """Their mean in % with its interval over images, which are queries and what is ranked, as columns."""
        known = ~np.isnan(self.by_query)
        count, mean = known.sum(), mean_percent(self.by_query) / 100
        influence = self.by_image.copy()
        influence[self.queries[known]] += self.by_query[known] - mean
        return mean_by_influence(name, mean, influence / max(count, 1), count, least)


def mean_percent(shares):
    """Mean of shares in %, blank ones left out; NaN if all are."""
    known = shares[~np.isnan(shares)]
    return 100 * float(known.mean()) if len(known) else np.nan


def by_cosine(rows):
    """Closeness by the cosine of rows about the mean [image, width], see SameValue.precisions."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny)
    return lambda queries: unit[queries] @ unit.T


def by_scores(scores):
    """Closeness by how little scores on a component [image] differ, see SameValue.precisions."""
    return lambda queries: -np.abs(scores[queries, None] - scores)


def unit_tables(stored, explanations, fit, scored):
    """How well images of the same value are found: rows by factor, all of eval images and in %.

    explanations: {(layer, head): HeadExplanation} with components, of the whole embedding first
    fit, scored: SameValue of these images

    Returns a table of all heads, a row for each factor and head, and {factor: rows} by WHOLE and BEST_COMPONENT.
    Columns: score and against_whole (points, on the same queries) with their intervals; of heads factor, layer, head,
    whole, by_chance and fit_score, on the fit images. The best component is that of the highest mean average precision
    on the fit images; of each head, the one whose scores on them the factor explains most (η²) is tried.
    """
    heads, factors, rows = [], list(scored.codes), {factor: {} for factor in scored.codes}
    fit_scores = dict.fromkeys(factors, -np.inf)  # of the best components so far
    by_chance = {factor: scored.by_chance(factor) for factor in factors}
    for unit, explanation in progress(explanations.items(), "same value", unit="head"):
        view = View(stored, *unit, explanation.mean)
        of_fit, of_eval = (np.concatenate([*view.rows()])[inside] for inside in (stored.fit, stored.scored))
        precisions = scored.precisions(by_cosine(of_eval), factors)
        if unit[0] == EMBEDDING:
            whole = precisions
            for factor in factors:
                rows[factor][WHOLE] = whole[factor].columns("score") | dict.fromkeys(AGAINST_WHOLE, np.nan)
            continue
        on_fit = fit.mean_precisions(by_cosine(of_fit), factors)
        for factor in factors:
            place = {"factor": factor, "layer": unit[0], "head": unit[1]}
            beside = {"whole": rows[factor][WHOLE]["score"], "by_chance": by_chance[factor]}
            heads.append(place | compared(precisions[factor], whole[factor]) | beside | {"fit_score": on_fit[factor]})
        directions = view.coordinates(explanation.components.astype(np.float64)).T
        scores = of_fit @ directions
        for factor, codes in fit.codes.items() if len(explanation.components) else ():
            component = int(eta_squared(scores, codes).argmax())
            fit_score = fit.mean_precisions(by_scores(scores[:, component]), [factor])[factor]
            if fit_score > fit_scores[factor]:
                precision = scored.precisions(by_scores(of_eval @ directions[:, component]), [factor])[factor]
                fit_scores[factor] = fit_score
                label = {"unit": unit_label((*unit, component))}
                rows[factor][BEST_COMPONENT] = label | compared(precision, whole[factor])
    return pd.DataFrame(heads), rows


def naming_shares(names, images, phrases):
    """How much of each head names a factor, in %: {factor: {(layer, head): share}} of the factors in `phrases`.

    A component counts by its strength, each pole half, and a text that names several factors for each in equal parts.
    names: first texts of both poles of all components; phrases: {factor: {value: phrases}}
    """
    names = names[names["layer"] >= 0]
    texts, text_of_pole = np.unique(names["text"].to_numpy(str), return_inverse=True)
    named = Vocabulary(factor_vocabulary(images, phrases), texts).names_factor.astype(float)
    shares = (named / np.maximum(named.sum(1, keepdims=True), 1))[text_of_pole] * names[["strength"]].to_numpy() / 2
    by_head = pd.DataFrame(100 * shares, names.index, list(phrases)).groupby([names["layer"], names["head"]]).sum()
    return {factor: by_head[factor].to_dict() for factor in phrases}


def compared(precisions, whole):
    """The mean of Precisions, and of their difference from the whole embedding's, with intervals as columns."""
    return precisions.columns("score") | (precisions - whole).columns("against_whole", least=-1)


def same_value_table(heads, rows, scored):
    """One row per factor and what ranks the images: WHOLE, BEST_HEAD, NAMED_HEAD and BEST_COMPONENT, as far as known.

    heads, rows: of unit_tables, the heads with the column `named`, of naming_shares; the head that it is largest of is
    the one that names the factor most
    """
    table = []
    for factor, own in heads.groupby("factor", sort=False):
        by = dict(rows[factor])
        for name, column in ((BEST_HEAD, "fit_score"), (NAMED_HEAD, "named")):
            if own[column].max() > 0:
                head = own.loc[own[column].idxmax()]
                by[name] = {"unit": unit_label(head[["layer", "head"]])} | head[[*SCORE, *AGAINST_WHOLE]].to_dict()
        beside = {"queries": scored.count(factor), "by_chance": scored.by_chance(factor)}
        table += [{"factor": factor, "by": name, "unit": "", **by[name], **beside} for name in ORDER if name in by]
    return pd.DataFrame(table).assign(direction="image to image", measure="mean_ap")


def unit_label(unit):
    """A unit in few letters, such as L3 H1 c0; "" for none."""
    return " ".join(f"{letter}{number}" for letter, number in zip("LHc", unit))


def edited_table(before, after, stored, scored):
    """One row per factor: the mean average precision by the whole embedding after an edit, and its change, in %.

    before, after: normalised embeddings [image, d_embed], each centred at its own mean over the fit images
    scored: SameValue of the eval images
    """
    factors = list(scored.codes)
    whole, edited = (
        scored.precisions(by_cosine(embeddings[stored.scored] - embeddings[stored.fit].mean(0)), factors)
        for embeddings in (before, after)
    )
    rows = []
    for factor in factors:
        row = {"factor": factor, "by": WHOLE, "unit": "", "queries": scored.count(factor)}
        rows.append(row | compared(edited[factor], whole[factor]) | {"by_chance": scored.by_chance(factor)})
    return pd.DataFrame(rows).assign(direction="image to image", measure="mean_ap")
