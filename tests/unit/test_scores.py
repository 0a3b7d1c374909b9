"""Scores of many maps at once against scikit-learn and plain counts, one map at a time."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score

from clipspectra.segmentation import images, scoring, units
from clipspectra.segmentation import tables as tables_module
from clipspectra.segmentation.maps import at_own_resolution, min_max_normalise, upsample


def table_by_loop(maps, masks, visible=None):
    """The table of `scores`, map by map, with scikit-learn's average precision."""
    rows = []
    for number, (values, mask) in enumerate(zip(maps, masks)):
        inside = np.ones(values.shape, bool) if visible is None else visible[number]
        prediction = inside & (values > values[inside].mean(dtype=np.float64))
        labelled = mask != scoring.VOID
        values, prediction, mask = values[labelled], prediction[labelled], mask[labelled] == 1
        row = {"flat": int(len(np.unique(values)) < 2)}
        row |= {"correct_pixels": (prediction == mask).sum(), "labelled_pixels": mask.size}
        row |= {"foreground_pixels": mask.sum()}
        row |= {"intersection_background": (~prediction & ~mask).sum()}
        row |= {"intersection_foreground": (prediction & mask).sum()}
        row |= {"union_background": (~prediction | ~mask).sum(), "union_foreground": (prediction | mask).sum()}
        for side, pixels in (("background", ~mask), ("foreground", mask)):
            above = {
                f"{side}_above_{level}": (pixels & (values > values.dtype.type(level) / 20)).sum()
                for level in range(20)
            }
            row |= above
        channels = np.r_[~mask, mask], np.r_[1 - values, values]
        row |= {"average_precision": average_precision_score(*channels) if mask.size else np.nan}
        rows.append(row | {"foreground_precision": average_precision_score(mask, values) if mask.any() else np.nan})
    return pd.DataFrame(rows)


def assert_same_scores(table, expected):
    """Equal counts, and equal average precision up to rounding."""
    precision = ["average_precision", "foreground_precision"]
    pd.testing.assert_frame_equal(table.drop(columns=precision), expected.drop(columns=precision))
    pd.testing.assert_frame_equal(table[precision], expected[precision], rtol=0, atol=1e-12)


def every_kind(shape, dtype, rng):
    """Maps and masks [image, *shape]: every kind of map with every kind of mask."""
    some = rng.random(shape)
    maps = [some, some**8, np.maximum(some - 0.5, 0), rng.integers(0, 4, shape) / 3, rng.integers(0, 2, shape)]
    maps += [1e-7 * some, 1 - 1e-7 * some]  # 1 - x has many ties in float32
    maps += [2.5 * some - 1, np.zeros(shape), np.full(shape, 0.3), np.ones(shape)]
    masks = [some < 0.4, rng.integers(0, 2, shape), np.zeros(shape), np.ones(shape), np.full(shape, scoring.VOID)]
    masks += [rng.choice([0, 1, scoring.VOID], shape), rng.choice([0, scoring.VOID], shape)]
    maps, masks = zip(*product(maps, masks))
    return np.stack(maps).astype(dtype), np.stack(masks).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (7, 7), (31, 17)])
@pytest.mark.parametrize("hidden", [0, 1])
def test_scores_of_a_batch_equal_scikit_learn_map_by_map(dtype, shape, hidden, monkeypatch):
    maps, masks = every_kind(shape, dtype, np.random.default_rng(0))
    visible = None
    if hidden and shape != (1, 1):  # the last rows have no value
        visible = np.ones(maps.shape, bool)
        visible[:, -hidden:] = False
        maps[~visible], masks[~visible] = 0, scoring.VOID
    table = scoring.scores(maps, masks, visible).table
    assert_same_scores(table, table_by_loop(maps, masks, visible))
    for pixels in (1, 3 * maps[0].size):
        monkeypatch.setattr(scoring, "PIXELS", pixels)
        pd.testing.assert_frame_equal(scoring.scores(maps, masks, visible).table, table, check_exact=True)


def test_ties_of_one_minus_x_in_float32_count():
    maps, masks = every_kind((31, 17), np.float32, np.random.default_rng(0))
    exact = scoring.scores(maps.astype(np.float64), masks).table["average_precision"]
    assert (scoring.scores(maps, masks).table["average_precision"] - exact).abs().max() > 0.01


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_maps_that_are_not_finite_are_refused_where_they_count(value):
    maps, masks = np.zeros((2, 3, 3), np.float32), np.zeros((2, 3, 3), np.uint8)
    maps[1, 1, 1] = value
    with pytest.raises(ValueError, match="maps must be finite numbers where masks are labelled"):
        scoring.scores(maps, masks)
    masks[1, 1, 1] = scoring.VOID
    assert scoring.scores(maps, masks).table["labelled_pixels"].tolist() == [9, 8]


def test_a_batch_of_pictures_scores_as_each_method_and_picture_alone(monkeypatch):
    rng, generator, grid = np.random.default_rng(0), torch.Generator().manual_seed(0), (4, 4)
    maps = [("b", "text"), ("a", "text minus mean"), ("a", "text")]
    evidence = {key: torch.randn(3, 16, generator=generator) for key in maps}
    masks = rng.choice(np.array([0, 1, 255], np.uint8), (3, 32, 32))
    sizes_and_boxes = [((40, 60), (0.0, 10.0, 40.0, 40.0)), None, ((50, 31), (-4.0, -14.0, 59.0, 59.0))]
    own = [case and (rng.choice(np.array([0, 1, 255], np.uint8), case[0]), case[1]) for case in sizes_and_boxes]
    tables = []
    for (method, given), values in evidence.items():
        names = {"method": method, "given": given}
        table = table_by_loop(upsample(values, grid, (32, 32)).numpy(), masks)
        tables.append(table.assign(resolution="model", **names, row=[4, 5, 9]))
        for row, number in ((4, 0), (9, 2)):
            mask, box = own[number]
            picture_map = at_own_resolution(values[number], grid, box, mask.shape).numpy()[None]
            visible = ~np.isnan(picture_map)
            table = table_by_loop(np.where(visible, picture_map, 0), np.where(visible, mask, scoring.VOID), visible)
            tables.append(table.assign(resolution="own", **names, row=row))
    expected = pd.concat(tables, ignore_index=True)
    table = images.score_batch(evidence, grid, masks, [4, 5, 9], own)
    assert_same_scores(table, expected)
    monkeypatch.setattr(images, "OWN_PIXELS", 5000)
    again = images.score_batch(evidence, grid, masks, [4, 5, 9], own)
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    array = tables_module.scores_array(table, maps, [4, 5, 9])
    stored = tables_module.scores_table(array, maps, [4, 5, 9])
    key = ["method", "given", "resolution", "row"]
    pd.testing.assert_frame_equal(*(rows.sort_values(key, ignore_index=True) for rows in (stored, table)))


def test_the_chosen_threshold_is_that_of_other_images():
    """Two kinds of image in turn, each with a threshold of its own: each is scored at the other's, by plain counts."""
    rng = np.random.default_rng(1)
    masks = (rng.random((8, 12, 12)) < 0.3).astype(np.uint8)
    masks[:, 0] = scoring.VOID
    maps = np.where(masks == 1, 0.9, 0.5 * rng.random(masks.shape))
    maps[1::2] /= 3  # every other map is fainter
    table, chosen = scoring.scores(maps, masks).table, {}
    for half in (0, 1):
        ious = [plain_iou(maps[1 - half :: 2] > level / 20, masks[1 - half :: 2]) for level in range(20)]
        chosen[half] = int(np.argmax(ious)) / 20
    _, thresholds = scoring.chosen_iou(table, np.ones((1, 8)))
    assert thresholds[0].tolist() == list(chosen.values())
    assert chosen[0] < chosen[1]
    predicted = maps > np.where(np.arange(8) % 2, chosen[1], chosen[0])[:, None, None]
    assert scoring.Scores.from_table(table).chosen_iou == pytest.approx(plain_iou(predicted, masks))
    assert (
        scoring.Scores.from_table(table).chosen_iou
        < 0.9
        < plain_iou(maps > 0.6 * maps.max((1, 2))[:, None, None], masks)
    )
    assert np.isnan(scoring.scores(maps[:1], masks[:1]).chosen_iou)
    low, high = scoring.Scores.from_table(table).intervals(rng)["chosen_iou"]
    assert low < scoring.Scores.from_table(table).chosen_iou < high


def test_intervals_choose_the_threshold_anew():
    """Each resample by hand: the images drawn, each in its own half, at the threshold of the other half's."""
    rng = np.random.default_rng(2)
    masks = (rng.random((6, 9, 9)) < 0.4).astype(np.uint8)
    maps = 0.5 * masks + rng.random(masks.shape) * rng.random((6, 1, 1))
    table, times = scoring.scores(maps, masks).table, rng.multinomial(6, np.full(6, 1 / 6), size=5)
    for drawn, iou in zip(times, scoring.chosen_iou(table, times)[0]):
        rows = {half: np.repeat(np.arange(6), drawn)[np.repeat(np.arange(6) % 2 == half, drawn)] for half in (0, 1)}
        predicted = []
        for half in (0, 1):
            other = rows[1 - half]
            ious = [plain_iou(maps[other] > level / 20, masks[other]) if len(other) else 0 for level in range(20)]
            predicted.append(maps[rows[half]] > np.argmax(ious) / 20)
        assert iou == pytest.approx(plain_iou(np.concatenate(predicted), masks[np.concatenate([rows[0], rows[1]])]))
    one = scoring.Scores.from_table(table[:1])
    assert np.isnan(one.intervals(rng)["mean_iou"]).all()  # a single image says nothing about others


def plain_iou(predicted, masks):
    """Mean IoU of predictions and masks, both [image, height, width], over all labelled pixels."""
    labelled, truth = masks != scoring.VOID, masks == 1
    sides = [(predicted & labelled, truth), (~predicted & labelled, ~truth & labelled)]
    return np.mean([(a & b).sum() / (a | b).sum() for a, b in sides])


def test_foreground_precision_of_a_flat_map_is_the_share_of_the_foreground():
    """The chance level of the measure; over both channels the same map scores far higher where objects are small."""
    mask = np.zeros((1, 10, 10), np.uint8)
    mask[0, :1] = 1
    flat = scoring.scores(np.zeros((1, 10, 10)), mask)
    assert flat.foreground_ap == pytest.approx(0.1)
    assert flat.mean_ap > 0.8


def test_units_score_as_each_alone(monkeypatch):
    monkeypatch.setattr(units, "UNITS", 3)
    evidence = torch.randn(4, 7, 12, generator=torch.Generator().manual_seed(0))
    masks = np.random.default_rng(0).choice(np.array([0, 1, 255], np.uint8), (4, 3, 4))
    alone = units.score_alone(evidence, (3, 4), masks, "heads")
    for name, precisions in zip(scoring.PRECISIONS, alone, strict=True):
        for unit, precision in zip(evidence.transpose(0, 1), precisions, strict=True):
            maps = min_max_normalise(unit.reshape(-1, 3, 4).clamp(min=0)).numpy()
            np.testing.assert_allclose(precision, table_by_loop(maps, masks)[name], rtol=0, atol=1e-12)
