"""Intervals and tests on simulated images whose true rates are known, and against values worked out elsewhere."""

import numpy as np
import pytest
from scipy.special import xlogy
from scipy.stats import binomtest
from scipy.stats import norm as normal
from scipy.stats import t as student_t

from clipspectra.evaluation.intervals import (
    Z,
    change,
    change_between,
    holm,
    mcnemar,
    mean_of_sums,
    percent,
    ratio_of_sums,
    student,
    tango,
    wilson,
)

rng = np.random.default_rng(4)


def coverage(bounds, truth):
    """Share of intervals (low, high) that hold the truth."""
    low, high = bounds
    return ((low <= truth + 1e-9) & (truth <= high + 1e-9)).mean()


@pytest.mark.parametrize("count", [5, 10, 30, 90])
def test_paired_intervals_keep_their_coverage(count):
    """95 % is said; over many true rates it is held on average, and nowhere below 0.92."""
    held = []
    for rates in rng.dirichlet([3, 0.4, 0.4, 1.5], size=60):  # both correct, gained, lost, both wrong
        _, gained, lost, _ = rng.multinomial(count, rates, size=3000).T
        held.append(coverage(tango(gained, lost, count), rates[1] - rates[2]))
    assert np.mean(held) > 0.95
    assert min(held) > 0.92


@pytest.mark.parametrize("count", [5, 20, 90])
def test_intervals_of_a_share_keep_their_coverage(count):
    held = [coverage(wilson(rng.binomial(count, rate, 4000), count), rate) for rate in np.linspace(0.02, 0.98, 49)]
    assert np.mean(held) > 0.94
    assert min(held) > 0.82  # as is known of Wilson's, close to 0 and 1


def test_known_intervals():
    assert normal.ppf(0.975) == pytest.approx(Z)
    for count, total in ((0, 10), (81, 263), (15, 148), (29, 29)):  # Newcombe 1998 prints three of them
        interval = binomtest(count, total).proportion_ci(method="wilson")
        np.testing.assert_allclose(wilson(count, total), interval, atol=1e-12)
    for gained, lost, total in ((7, 2, 30), (0, 0, 12), (1, 0, 10), (43, 12, 100)):
        for bound in tango(gained, lost, total):  # the score test rejects just outside, not just inside
            assert abs(abs(score(gained, lost, total, bound)) - Z) < 1e-6
    assert np.isnan(wilson(0, 0)).all()


def score(gained, lost, total, difference):
    """Tango's statistic, with the restricted estimate found by a search over its likelihood."""
    shares = np.linspace(max(0, -difference), (1 - difference) / 2, 2_000_001)  # of images lost
    likelihood = xlogy(gained, shares + difference) + xlogy(lost, shares)
    likelihood += xlogy(total - gained - lost, np.maximum(1 - 2 * shares - difference, 0))
    share = shares[np.nanargmax(likelihood)]
    return (gained - lost - total * difference) / np.sqrt(total * (2 * share + difference * (1 - difference)))


def test_mcnemar_is_a_binomial_test():
    for gained, lost in ((0, 0), (1, 0), (5, 5), (9, 2), (0, 40), (400, 300), (3000, 3100)):
        expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1
        assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)


def test_holm_on_a_known_case_and_under_the_null():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    alarms = [(holm(p) < 0.05).any() for p in rng.uniform(size=(4000, 12))]
    assert np.mean(alarms) == pytest.approx(0.05, abs=0.012)


def test_changes_have_their_interval_and_p_value():
    before, after = np.array([1] * 20 + [0] * 10, bool), np.array([1] * 18 + [0] * 2 + [1] * 5 + [0] * 5, bool)
    row = change(before, after)
    assert row["change"] == pytest.approx(10)
    assert row["change_low"] < 0 < row["change_high"]
    assert row["p"] == pytest.approx(binomtest(2, 7).pvalue)
    nothing = change(before, before)
    assert nothing["change_low"] < 0 < nothing["change_high"]
    assert nothing["p"] == 1
    assert percent(before)["accuracy_low"] == pytest.approx(100 * binomtest(20, 30).proportion_ci(method="wilson").low)


def test_changes_between_different_images_keep_their_coverage():
    held = []
    for rates in rng.uniform(0.1, 0.9, size=(300, 2)):
        before, after = (rng.uniform(size=count) < rate for count, rate in zip((40, 60), rates))
        row = change_between(before, after)
        held.append(row["change_low"] <= 100 * (rates[1] - rates[0]) <= row["change_high"])
    assert np.mean(held) == pytest.approx(0.95, abs=0.035)


@pytest.mark.parametrize("count", [3, 5, 20, 90])
def test_means_and_ratios_keep_their_coverage(count):
    values = rng.normal(size=(4000, count))
    assert coverage(mean_of_sums(values.sum(1), (values**2).sum(1), count)[1:], 0) == pytest.approx(0.95, abs=0.015)
    whole = 30 + rng.normal(size=(4000, count))
    part = 0.3 * whole + rng.normal(size=whole.shape)
    products = np.stack([part, whole, part**2, part * whole, whole**2]).sum(2)
    bounds = np.array([ratio_of_sums(*sums, count) for sums in products.T])
    assert bounds[:, 0].mean() == pytest.approx(0.3, abs=0.01)
    assert coverage(bounds[:, 1:].T, 0.3) > 0.93


def test_students_quantile_and_what_has_no_interval():
    for freedom in (1, 2, 3, 5, 30, 1000):
        assert student(freedom) == pytest.approx(student_t.ppf(0.975, freedom), rel=1e-2)
    assert np.isnan(mean_of_sums(0.4, 0.16, 1)).tolist() == [False, True, True]  # a single image
    assert np.isnan(ratio_of_sums(0.1, 0.4, 0.01, 0.04, 0.16, 1)).tolist() == [False, True, True]
    margins = np.array([1.0, -1.2, 0.9, -0.8])  # a margin that is not told from 0 has no shares
    assert np.isnan(ratio_of_sums(0.1, margins.sum(), 0.1, 0.1, (margins**2).sum(), 4)).all()
