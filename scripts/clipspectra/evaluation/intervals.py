"""95 % intervals over the scored images, and tests of paired changes.

They say how far a number would move if other images of the same kind were scored. Seeds cannot say that: they share
most of the images that are scored. Shares and their differences have score intervals, which keep their coverage with
few images and where nothing or everything is correct; means and ratios of sums have those of Student's t.
"""

import numpy as np

Z = 1.959963984540054  # quantile of the normal distribution at 97.5 %


def wilson(count, total):
    """(low, high) of the share count / total (Wilson 1927); NaN where total is 0. Numbers or arrays."""
    count, total = np.asarray(count, float), np.asarray(total, float)
    with np.errstate(invalid="ignore", divide="ignore"):
        share, square = count / total, Z**2 / total
        middle = (share + square / 2) / (1 + square)
        spread = Z / (1 + square) * np.sqrt(share * (1 - share) / total + square / (4 * total))
    return np.maximum(middle - spread, 0), np.minimum(middle + spread, 1)


def tango(gained, lost, total):
    """(low, high) of the paired difference (gained - lost) / total of two shares (Tango 1998). Numbers or arrays.

    gained: images that are correct only after a change; lost: only before it; total: all images, at least one. The
    interval holds the differences that the score test does not reject; they are found by bisection.
    """
    gained, lost, total = (np.asarray(number, float) for number in (gained, lost, total))

    def score(difference):
        linear = (2 * total - gained + lost) * difference - gained - lost
        constant = -lost * difference * (1 - difference)
        lost_share = (np.sqrt(np.maximum(linear**2 - 8 * total * constant, 0)) - linear) / (4 * total)
        variance = total * (2 * lost_share + difference * (1 - difference))
        return (gained - lost - total * difference) / np.sqrt(np.maximum(variance, np.finfo(float).tiny))

    observed, bounds = (gained - lost) / total, []
    for end in (-1.0, 1.0):
        inner, outer = observed, np.full_like(observed, end)
        for _ in range(50):
            middle = (inner + outer) / 2
            rejected = np.abs(score(middle)) > Z
            inner, outer = np.where(rejected, inner, middle), np.where(rejected, middle, outer)
        bounds.append((inner + outer) / 2)
    return tuple(bounds)


def mcnemar(gained, lost):
    """Exact two-sided p value of McNemar's test: that images are gained and lost with equal chances. Whole numbers."""
    total, fewer = int(gained + lost), int(min(gained, lost))
    if 2 * fewer == total:
        return 1.0
    numbers = np.arange(1, fewer + 1)
    log_counts = np.cumsum(np.log((total - numbers + 1) / numbers))  # of the binomial coefficients
    return min(1.0, float(2 * np.exp(np.append(0, log_counts) - total * np.log(2)).sum()))


def holm(p_values):
    """P values corrected for their number (Holm 1979): the chance of one false alarm among all of them stays below."""
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1)), 1)
    return corrected


def percent(correct):
    """Accuracy in % of a bool array [image], with its interval: {"accuracy", "accuracy_low", "accuracy_high"}."""
    return columns("accuracy", 100 * np.mean(correct), *(100 * end for end in wilson(np.sum(correct), len(correct))))


def change(before, after):
    """Change in accuracy, in points, on the same images, from bool arrays [image], with interval and p value."""
    return change_of_counts(int((after & ~before).sum()), int((before & ~after).sum()), len(before))


def change_of_counts(gained, lost, total):
    """The same from numbers of images: {"change", "change_low", "change_high", "p"}."""
    ends = (100 * float(end) for end in tango(gained, lost, total))
    return columns("change", 100 * (gained - lost) / total, *ends) | {"p": mcnemar(gained, lost)}


def change_between(before, after):
    """Change between the accuracies of different images, from bool arrays, as `change` but without p value.

    The interval joins those of the two accuracies (Newcombe 1998).
    """
    means, bounds = (np.mean(before), np.mean(after)), [wilson(values.sum(), len(values)) for values in (before, after)]
    difference = means[1] - means[0]
    below = np.hypot(means[1] - bounds[1][0], bounds[0][1] - means[0])
    above = np.hypot(bounds[1][1] - means[1], means[0] - bounds[0][0])
    ends = (100 * (difference - below), 100 * (difference + above))
    return columns("change", 100 * difference, *ends) | {"p": np.nan}


def student(freedom):
    """Quantile of Student's t distribution at 97.5 % (exact for 1 and 2, else expanded); NaN without freedom."""
    if freedom < 1:
        return np.nan
    if freedom <= 2:
        return np.tan(0.475 * np.pi) if freedom == 1 else 0.95 * np.sqrt(2 / (1 - 0.95**2))
    terms = Z**3 + Z, 5 * Z**5 + 16 * Z**3 + 3 * Z, 3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z
    return Z + sum(term / (scale * freedom**power) for power, (term, scale) in enumerate(zip(terms, (4, 96, 384)), 1))


def mean_of_sums(total, squares, count):
    """(mean, low, high) of numbers of which there are the sum, the sum of squares, and how many there are.

    By Student's t; no interval, NaN, of a single image.
    """
    mean = total / count
    spread = student(count - 1) * np.sqrt(np.maximum(squares / count - mean**2, 0) / max(count - 1, 1))
    return mean, mean - spread, mean + spread


def mean_by_influence(name, mean, influence, count, least=0):
    """A mean in %, with its interval by the infinitesimal jackknife and Student's t, as columns; no interval of one.

    mean: as a share, NaN if it is of nothing; influence: its derivative by the weight of each image [image]
    count: number of what the mean is of; least: below which it cannot be
    """
    images = len(influence)
    error = np.sqrt((influence**2).sum() * images / max(images - 1, 1))
    ends = mean + student(count - 1) * error * np.array([-1, 1])
    return columns(name, *(100 * float(value) for value in (mean, *np.clip(ends, least, 1))))


def ratio_of_sums(part, whole, part_squares, products, whole_squares, count):
    """(ratio, low, high) of the sums of two numbers of each image (delta method), from the sums of their products.

    By Student's t; no interval of a single image. NaN where the whole is not clearly above 0, as a share of it means
    nothing then.
    """
    above = mean_of_sums(whole, whole_squares, count)[1] > 0 if count > 1 else whole > 0
    ratio = np.where(above, part, np.nan) / np.where(above, whole, 1)
    residuals = part_squares - 2 * ratio * products + ratio**2 * whole_squares
    spread = student(count - 1) * np.sqrt(np.maximum(residuals, 0) * count / max(count - 1, 1)) / np.abs(whole)
    return ratio, ratio - spread, ratio + spread


def columns(name, value, low, high):
    """A value and its interval as columns of a table."""
    return {name: value, f"{name}_low": low, f"{name}_high": high}
