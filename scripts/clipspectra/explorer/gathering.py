"""All heads of a run once: what their scores say of the pictures, and which components are strongest in each."""

import numpy as np
import pandas as pd

from clipspectra.evaluation.accuracy import eta_squared, extreme_values
from clipspectra.explanations.head import scores_by_head
from clipspectra.explorer.heads import POLES, matches, scores_part
from clipspectra.explorer.parts import is_head
from clipspectra.explorer.pictures import Strongest


class ShownPictures:
    """The pictures that are shown of one seed.

    listed: table of the dataset's pictures in the explorer; images: of the seed's scored images
    numbers: of the seed's pictures among the listed; rows: the same among the images
    """

    def __init__(self, listed, images):
        rows = listed["row"].map(pd.Series(images.index, images["row"]))
        self.numbers, self.rows = np.flatnonzero(rows.notna()), rows.dropna().astype(int).to_numpy()


class Heads:
    """What is gathered of a run's heads, one after the other.

    parts: {unit: what its scores say of the pictures}; strongest: components of each picture that is shown
    at_poles: {(layer, head, component): {pole: numbers of its pictures}}; class_factors: tables of η² of the classes
    """

    def __init__(self, units, shown):
        self.units, self.shown = units, shown
        self.parts, self.at_poles, self.class_factors = {}, {}, []
        self.strongest = Strongest(len(shown.rows))

    def gather(self, stored, explanations, *, next_components, own, classes):
        """Go through the heads of {unit: HeadExplanation}.

        next_components: {unit: components} of another seed; own: OwnPictures or None; classes: of the scored images
        [image], where they are a factor of their own, or None
        """
        if classes is not None:
            class_names, class_codes = np.unique(classes, return_inverse=True)
        numbers = {unit: number for number, unit in enumerate(self.units)}
        for unit, scores in scores_by_head(stored, explanations):
            part, ranks = scores_part(scores, self.shown.rows)
            for pole in POLES:
                part[pole] = [[self.shown.numbers[rows], values] for rows, values in part[pole]]
                for component, (pictures, _) in enumerate(part[pole]):
                    self.at_poles.setdefault((*unit, component), {})[pole] = pictures
            part["deciles"] = self.shown.numbers[part["deciles"]]
            part["match"] = matches(explanations[unit].components, next_components.get(unit, []))
            self.parts[unit] = part
            if is_head(unit):
                shown_scores = scores[self.shown.rows]
                self.strongest.add(numbers[unit], shown_scores, ranks)
                if own:
                    basis = stored.basis[unit].astype(np.float64)
                    own.add(numbers[unit], unit, basis, explanations[unit], shown_scores)
            if classes is not None:
                high, low = (class_names[codes] for codes in extreme_values(scores, class_codes))
                columns = {"layer": unit[0], "head": unit[1], "component": np.arange(scores.shape[1])}
                eta2 = above_chance(eta_squared(scores, class_codes), len(class_codes), len(class_names))
                columns |= {"eta2_class": eta2, "high_class": high, "low_class": low}
                self.class_factors.append(pd.DataFrame(columns))


def own_classes(images, factors):
    """The classes of images [image] where there are several that are not a factor by another name, else None."""
    classes = images["class"].fillna("").astype(str)
    codes = pd.factorize(classes)[0]
    if classes.nunique() < 2 or any((pd.factorize(images[name])[0] == codes).all() for name in factors):
        return None
    return classes.to_numpy()


def above_chance(eta2, images, values):
    """η² less what as many groups explain of any scores (ε² of Kelley 1935), at least 0.

    Classes may be many: 1,000 of them explain 20 % of the variance of random scores of 5,000 images.
    """
    if images <= values:
        return np.zeros_like(eta2)
    return np.maximum(1 - (1 - eta2) * (images - 1) / (images - values), 0)
