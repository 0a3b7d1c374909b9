"""One head for the page: its spectrum, and every method's components with texts, pictures and scores."""

import numpy as np

from clipspectra.explanations.naming import NAMED_BY
from clipspectra.explanations.spectral import falling, pole_rows
from clipspectra.explorer.parts import rounded

POLES = ("top", "bottom")
POLE_PICTURES = 12
BINS = 24  # of a histogram of scores
DECILES = np.arange(1, 10) / 10
POLED_METHODS = ("components", "weights")  # whose components have names at two poles
SPANS = ("textspan", "textspan_paper")


def columns_of(method):
    """Columns that the page needs of a method's table of texts."""
    if method in SPANS:
        return ["text", "variance"]
    return [
        "naming",
        *(["projection", "named", "score_by_chance_95"] if method in POLED_METHODS else ["weight", "cosine"]),
    ]


def names_of(table):
    """The names of a head's components at both poles, by naming, flat over [component, pole, place].

    table: the head's rows, `text` as numbers in the pool. Of each naming: the texts, their scores, their projections on
    the component where these are not the scores; for each [component, pole] the number of texts, whether the first is
    above chance, and the score that the best of as many random texts reaches in 95 % of the cases.
    """
    namings = {}
    for naming in NAMED_BY:
        rows = table[table["naming"] == naming].sort_values(
            ["component", "pole", "place"], ascending=[True, False, True]
        )
        poles = rows.groupby(["component", "pole"], sort=False)
        first = poles.first()
        namings[naming] = {
            "text": rows["text"].to_numpy(),
            "score": rounded(rows["score"]),
            "count": poles.size().to_numpy(),
            "named": first["named"].astype(int).to_numpy(),
            "chance": rounded(first["score_by_chance_95"]),
        }
        if naming != "says":
            namings[naming]["projection"] = rounded(rows["projection"], 2)
    return namings


def spectrum(table):
    """Singular values of a head's components, and their shares of the sum of all."""
    first = table.drop_duplicates("component")
    return {"singular": rounded(first["singular_value"]), "strength": rounded(100 * first["strength"])}


def method_part(method, table):
    """A method's explanation of a head for the page. table: the head's rows, `text` as numbers in the pool."""
    if method in SPANS:
        return {"text": table["text"].to_numpy(), "variance": rounded(table["variance"])}
    part = spectrum(table)
    if method in POLED_METHODS:
        return part | {"names": names_of(table)}
    sums = table[table["naming"] == "says"]
    poles = sums.groupby("component", sort=False)
    return part | {
        "pole": [POLES.index(pole) for pole in poles["pole"].first()],
        "cosine": rounded(poles["cosine"].first()),
        "count": poles.size().to_numpy(),
        "text": sums["text"].to_numpy(),
        "weight": rounded(sums["weight"]),
    }


def scores_part(scores, shown):
    """(what the scores of a head's components say of the pictures, ranks: the share of the others below each, in %).

    scores: of all scored images [image, component]; shown: for each picture that is shown its row in them
    Of each component: the pictures at its poles with their scores, those at the deciles of the pictures' scores, and a
    histogram of all scores from `low` to `high`.
    """
    count = scores.shape[1]
    of_pictures = scores[shown]
    order = falling(of_pictures)
    ranks = np.empty_like(of_pictures)
    share = 100 * np.arange(len(shown))[::-1] / max(len(shown) - 1, 1)
    np.put_along_axis(ranks, order, np.broadcast_to(share[:, None], ranks.shape), axis=0)
    pictures = {pole: [] for pole in POLES}
    for component, pole, rows in pole_rows(of_pictures, order, POLE_PICTURES):
        pictures[pole].append([rows, rounded(of_pictures[rows, component])])
    at = np.rint((1 - DECILES) * max(len(shown) - 1, 0)).astype(int)
    low, high = (scores.min(0), scores.max(0)) if len(scores) else (np.zeros(count), np.zeros(count))
    places = BINS * (scores - low) / np.maximum(high - low, np.finfo(float).tiny)
    bins = np.clip(places.astype(int), 0, BINS - 1)
    counts = np.bincount((bins + BINS * np.arange(count)).ravel(), minlength=BINS * count).reshape(count, BINS)
    part = pictures | {
        "deciles": order[at].T if len(shown) else np.empty((count, 0), int),
        "low": rounded(low),
        "high": rounded(high),
        "histogram": counts,
    }
    return part, ranks


def matches(components, others):
    """For each component the one of another seed that it is most like, and their cosine; empty lists without others.

    The sign of a component is arbitrary: a cosine below 0 tells that its poles are swapped.
    """
    if not len(components) or not len(others):
        return {"component": [], "cosine": []}
    cosines = components @ others.T
    nearest = np.abs(cosines).argmax(1)
    return {"component": nearest, "cosine": rounded(cosines[np.arange(len(nearest)), nearest], 2)}


def factors_part(rows, factor_names):
    """Of a head's components their share of its variance in %, and by factor η² in % and the extreme values.

    rows: the head's rows of the table of factors, or None
    """
    if rows is None:
        return {"share": [], "factors": []}
    part = {"share": rounded(100 * rows["share"]), "factors": []}
    for name in factor_names:
        values, codes = np.unique(rows[[f"high_{name}", f"low_{name}"]].astype(str), return_inverse=True)
        high, low = codes.reshape(-1, 2).T
        eta2 = rounded(100 * rows[f"eta2_{name}"])
        part["factors"].append({"name": name, "eta2": eta2, "values": values, "high": high, "low": low})
    if "monosemanticity_top" in rows:
        part["monosemanticity"] = {
            "top": rounded(rows["monosemanticity_top"]),
            "bottom": rounded(rows["monosemanticity_bottom"]),
            "chance": rounded(rows["monosemanticity_by_chance"].iloc[0]),
            "of": rows["similarity"].iloc[0],
        }
    return part
