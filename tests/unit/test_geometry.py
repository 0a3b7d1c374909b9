"""What the tower sees of a picture: masks go the same way, and maps come back to the picture's own pixels."""

import numpy as np
import pandas as pd
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image

from clipspectra import InputError
from clipspectra.data.geometry import mask_transform, model_view, model_view_box
from clipspectra.data.pictures import ImageFiles
from clipspectra.segmentation.maps import at_own_resolution, upsample
from clipspectra.segmentation.scoring import Scores, predictions, scores

SIZE = (32, 32)


def way(mode):
    return image_transform(SIZE, is_train=False, resize_mode=mode, mean=(0, 0, 0), std=(1, 1, 1))


def drawn(tmp_path, height, width):
    """(picture, mask) with two bright objects, as files and the mask as an array."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 5 : height // 2, width // 3 : width // 2] = 1
    mask[3 * height // 5 : 4 * height // 5, width // 2 : 3 * width // 5] = 1
    Image.fromarray(mask * 200 + 20).convert("RGB").save(tmp_path / "picture.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return mask


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize(("height", "width"), [(40, 80), (91, 63), (32, 32), (33, 47), (200, 70)])
def test_picture_mask_and_box_agree(mode, height, width, tmp_path):
    mask = drawn(tmp_path, height, width)
    preprocess = way(mode)
    table = pd.DataFrame({"image": ["picture.png"], "mask": ["mask.png"]})
    image, seen = ImageFiles(table, tmp_path, preprocess, mask_transform(preprocess, SIZE))[0][1]
    inside = seen != 255
    bright = image.mean(0) > 0.45
    assert (bright == (seen == 1))[inside].float().mean() > 0.93
    assert inside.all() == (mode != "longest" or height == width)
    assert model_view(tmp_path / "picture.png", preprocess).shape == (*SIZE, 3)
    top, left, box_height, box_width = model_view_box(mask.shape, preprocess)
    # the box, cut out of the mask and resized, is what the tower sees
    rows = np.clip(((np.arange(32) + 0.5) / 32 * box_height + top).astype(int), 0, height - 1)
    columns = np.clip(((np.arange(32) + 0.5) / 32 * box_width + left).astype(int), 0, width - 1)
    assert (mask[np.ix_(rows, columns)] == seen.numpy())[inside.numpy()].mean() > 0.93


def test_maps_at_the_pictures_own_resolution():
    values = torch.randn(16)
    box = model_view_box(SIZE, way("shortest"))
    own = at_own_resolution(values, (4, 4), box, SIZE)
    torch.testing.assert_close(own, upsample(values[None], (4, 4), SIZE)[0], atol=1e-6, rtol=0)
    wide = at_own_resolution(values, (4, 4), model_view_box((64, 128), way("shortest")), (64, 128))
    assert wide.isnan().sum() == 64 * 64  # what was cropped away
    torch.testing.assert_close(wide[:, 32:96], upsample(values[None], (4, 4), (64, 64))[0], atol=1e-6, rtol=0)
    flat = at_own_resolution(torch.ones(16), (4, 4), box, SIZE)
    assert not flat.any()


def test_squashed_masks_miss_their_own_image(tmp_path):
    """The reference's geometry: a picture of 2:1, perfectly segmented, overlaps with its squashed mask by half."""
    mask = np.zeros((64, 128), np.uint8)
    mask[16:48, 48:80] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    picture = Image.open(tmp_path / "mask.png")
    seen, squashed = (mask_transform(way("shortest"), SIZE, kind)(picture).numpy() for kind in (False, True))
    perfect = seen.astype(np.float32)
    assert scores(perfect, seen).mean_iou == 1
    row = scores(perfect, squashed).table.iloc[0]
    assert row["intersection_foreground"] / row["union_foreground"] == pytest.approx(0.5)


def test_a_mask_of_another_size_is_named(tmp_path):
    drawn(tmp_path, 40, 80)
    Image.fromarray(np.eye(9, dtype=np.uint8)).save(tmp_path / "mask.png")
    table, preprocess = pd.DataFrame({"image": ["picture.png"], "mask": ["mask.png"]}), way("shortest")
    _, error = ImageFiles(table, tmp_path, preprocess, mask_transform(preprocess, SIZE))[0]
    assert isinstance(error, InputError)
    assert "mask.png has 9 × 9 pixels" in str(error)
    assert "has 80 × 40; they must be of one size" in str(error)


def test_unseen_pixels_do_not_count():
    mask = np.zeros((1, 4, 8), np.uint8)
    mask[:, :, 3] = 1
    values = mask.astype(np.float32)
    values[:, :, 6:] = 0
    seen = np.ones_like(mask, bool)
    seen[:, :, 6:] = False
    hidden = np.where(seen, mask, 255)
    assert scores(values, hidden, seen).mean_iou == 1
    assert scores(values, hidden, seen).table["labelled_pixels"].tolist() == [24]
    low = np.where(seen, 0.2, 0).astype(np.float32)
    assert predictions(values).any()
    assert not predictions(low, seen).any()  # flat where it is seen
    assert scores(low, hidden, seen).table["flat"].tolist() == [1]


def test_empty_and_full_masks_have_defined_scores():
    values = np.random.default_rng(0).random((2, 6, 6)).astype(np.float32)
    masks = np.stack([np.zeros((6, 6)), np.ones((6, 6))]).astype(np.uint8)
    found = scores(values, masks)
    assert np.isfinite([found.pixel_accuracy, found.mean_iou, found.mean_ap]).all()


def test_intervals_hold_the_score_and_shrink_with_images():
    rng = np.random.default_rng(3)
    masks = (rng.random((60, 8, 8)) > 0.6).astype(np.uint8)
    values = (0.5 * masks + 0.7 * rng.random(masks.shape)).astype(np.float32)
    found = scores(values, masks)
    widths = []
    for count in (15, 60):
        part = Scores.from_table(found.table[:count])
        intervals = part.intervals(np.random.default_rng(0))
        for name, (low, high) in intervals.items():
            assert low < getattr(part, name) < high
        widths.append(intervals["mean_iou"][1] - intervals["mean_iou"][0])
    assert widths[1] < 0.75 * widths[0]
