"""How much of the zero-shot accuracy remains if the last layers' heads are replaced by their explanations."""

import numpy as np
import pandas as pd

from clipspectra.evaluation.accuracy import MLPS, cosine, in_top_k
from clipspectra.evaluation.intervals import change, columns, mean_of_sums, ratio_of_sums, wilson
from clipspectra.jobs import progress

SUMS = ["top1", "top5", "cosine", "cosine_squares", "missed", "missed_squares", "missed_energy"]  # over images
BAND = (0.025, 0.975)  # quantiles of the draws


def recovered_accuracy(stored, draws, budgets, layers, classifier, labels, *, mlps, means=None):
    """(table, one row per budget; whether each scored image is classified correctly, bool [draw, budget, image]).

    The table has top-1 and top-5 accuracy, explained variance of the heads, cosine with the embedding.

    draws: explanations of a method, {(layer, head): HeadExplanation}, in a list; of a random control all draws
    budgets: numbers of texts per head; layers: the last ones, whose heads are replaced; classifier: [d_embed, class]
    labels: correct classes [image]; mlps: "kept" or "mean". The heads of earlier layers are held at their mean over the
    fit rows, and with mlps "mean" also the MLPs and x_0. The images scored are those of stored.scored.
    means: of stored.parts [part, d_embed], if not those of the fit rows: of the images that the draws' means are from

    Each measure has its 95 % interval over these images. Of several draws the rows hold the means, bounds included, and
    top1_draws_low to explained_variance_draws_high the band that holds 95 % of the draws.
    """
    means = stored.fit_means() if means is None else means
    kinds = np.array([kind for kind, _ in stored.names])
    at_mean = np.isin(kinds, ("early", "heads", "self", *(MLPS if mlps == "mean" else ())))
    fixed = means[at_mean].sum(0)
    heads = [(layer, head) for layer in layers for head in range(stored.heads)]
    frames = {key: Frame(stored.basis[key], draws[0][key].mean) for key in heads}
    sums, energy_sums, count = np.zeros((len(draws), len(budgets), len(SUMS))), np.zeros(2), 0
    correct = np.zeros((len(draws), len(budgets), stored.scored.sum()), bool)
    readers = [stored.reduced(layer) for layer in layers]
    chunks = zip(stored.parts(), stored.by_chunk(stored.scored), stored.by_chunk(labels), *readers)
    for parts, scored, chunk_labels, *reduced in progress(chunks, "recovering", total=len(stored.chunks), unit="chunk"):
        if not scored.any():
            continue
        embedding, kept = parts[scored].sum(1), fixed + parts[scored][:, ~at_mean].sum(1)
        coordinates = {
            (layer, head): frames[layer, head].coordinates(q[scored, head])
            for layer, q in zip(layers, reduced)
            for head in range(stored.heads)
        }
        energy = sum((values**2).sum(1) for values in coordinates.values())  # [image]
        images = slice(count, count + len(energy))
        energy_sums, count = energy_sums + np.array([energy.sum(), (energy**2).sum()]), images.stop
        for draw, explanations in enumerate(draws):
            rebuilt, held = rebuild(explanations, frames, coordinates, budgets)
            for index in range(len(budgets)):
                top1, top5 = (in_top_k(kept + rebuilt[index], classifier, chunk_labels[scored], k) for k in (1, 5))
                correct[draw, index, images] = top1
                alignment, missed = cosine(kept + rebuilt[index], embedding), energy - held[index]
                products = [missed.sum(), (missed**2).sum(), (missed * energy).sum()]
                sums[draw, index] += [top1.sum(), top5.sum(), alignment.sum(), (alignment**2).sum(), *products]
    tables = [draw_table(dict(zip(SUMS, draw_sums.T)), energy_sums, count) for draw_sums in sums]
    return over_draws(tables).assign(budget=budgets, draws=len(draws)), correct


def paired_differences(correct, reference, of="components"):
    """Differences in top-1 accuracy from another method on the same images, in points: one row per budget.

    correct, reference: bool [budget, image]; of: what the reference is. Columns: against_{of} with its interval, and p.
    """
    rows = [change(before, after) for before, after in zip(reference, correct)]
    return pd.DataFrame(rows).rename(columns=lambda name: name.replace("change", f"against_{of}"))


def draw_table(sums, energy_sums, count):
    """Measures of one draw with their intervals, one row per budget; sums: {name in SUMS: [budget]}."""
    rows = {}
    for name in ("top1", "top5"):
        rows |= columns(name, 100 * sums[name] / count, *(100 * bound for bound in wilson(sums[name], count)))
    rows |= columns("cosine", *mean_of_sums(sums["cosine"], sums["cosine_squares"], count))
    energy, squares = energy_sums
    products = sums["missed_squares"], sums["missed_energy"], squares
    missed, low, high = ratio_of_sums(sums["missed"], energy, *products, count)
    return pd.DataFrame(rows | columns("explained_variance", 100 * (1 - missed), 100 * (1 - high), 100 * (1 - low)))


def over_draws(tables):
    """The mean of draws' tables, and of several the band of each measure."""
    values, names = np.stack([table.to_numpy() for table in tables]), tables[0].columns  # [draw, budget, measure]
    table = pd.DataFrame(values.mean(0), columns=names)
    for name in ("top1", "explained_variance"):
        of_draws = values[..., names.get_loc(name)]
        low, high = np.quantile(of_draws, BAND, axis=0) if len(tables) > 1 else (np.nan, np.nan)
        table = table.assign(**{f"{name}_draws_low": low, f"{name}_draws_high": high})
    return table


class Frame:
    """An orthonormal frame of a head's own space, in which its contributions less their mean are a few numbers.

    basis: B of the head [d_embed, coordinate + scalar]; mean: its mean contribution [d_embed]
    """

    def __init__(self, basis, mean):
        self.directions, self.triangle = np.linalg.qr(basis.astype(np.float64))
        self.mean = mean @ self.directions

    def coordinates(self, q):
        """Centred contributions in the frame, [image, direction], of rows q [image, coordinate + scalar]."""
        return q @ self.triangle.T - self.mean


def rebuild(explanations, frames, coordinates, budgets):
    """(rebuilt [budget, image, d_embed], held [budget, image]) of heads rebuilt from their explanations.

    frames, coordinates: {(layer, head): Frame}, {(layer, head): Frame.coordinates of the images}
    rebuilt: what each budget of texts recovers of all heads beyond their mean; held: its energy
    """
    images, width = len(next(iter(coordinates.values()))), len(next(iter(frames.values())).directions)
    rebuilt, held = np.zeros((len(budgets), images, width)), np.zeros((len(budgets), images))
    order = np.argsort(budgets, kind="stable")
    for key, values in coordinates.items():
        steps = explanations[key].directions(max(budgets)).astype(np.float64)
        scores, start = values @ (steps @ frames[key].directions).T, 0
        for index in order:  # what each budget adds to the one before
            stop = len(explanations[key].directions(budgets[index]))
            rebuilt[index] += scores[:, start:stop] @ steps[start:stop]
            held[index] += (scores[:, start:stop] ** 2).sum(1)
            start = stop
    rebuilt[order], held[order] = rebuilt[order].cumsum(0), held[order].cumsum(0)
    return rebuilt, held
