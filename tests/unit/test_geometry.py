"""The model's view of a picture: masks are resized and cropped like it, maps return to the picture's resolution."""

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


def preprocessing(mode):
    return image_transform(SIZE, is_train=False, resize_mode=mode, mean=(0, 0, 0), std=(1, 1, 1))


def save_picture_and_mask(tmp_path, height, width):
    """The mask, an array, of a picture with two bright objects; both are saved as PNG."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 5 : height // 2, width // 3 : width // 2] = 1
    mask[3 * height // 5 : 4 * height // 5, width // 2 : 3 * width // 5] = 1
    Image.fromarray(mask * 200 + 20).convert("RGB").save(tmp_path / "picture.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return mask


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize(("height", "width"), [(40, 80), (91, 63), (32, 32), (33, 47), (200, 70)])
def test_picture_mask_and_box_agree(mode, height, width, tmp_path):
    mask = save_picture_and_mask(tmp_path, height, width)
    preprocess = preprocessing(mode)
    table = pd.DataFrame({"image": ["picture.png"], "mask": ["mask.png"]})
    image, seen_mask = ImageFiles(table, tmp_path, preprocess, mask_transform(preprocess, SIZE))[0][1]
    inside = seen_mask != 255
    bright = image.mean(0) > 0.45
    assert (bright == (seen_mask == 1))[inside].float().mean() > 0.93
    assert inside.all() == (mode != "longest" or height == width)
    assert model_view(tmp_path / "picture.png", preprocess).shape == (*SIZE, 3)
    top, left, box_height, box_width = model_view_box(mask.shape, preprocess)
    # the box, cut out of the mask and resized, is the mask that the tower sees
    rows = np.clip(((np.arange(32) + 0.5) / 32 * box_height + top).astype(int), 0, height - 1)
    columns = np.clip(((np.arange(32) + 0.5) / 32 * box_width + left).astype(int), 0, width - 1)
    assert (mask[np.ix_(rows, columns)] == seen_mask.numpy())[inside.numpy()].mean() > 0.93


def test_maps_at_the_pictures_own_resolution():
    values = torch.randn(16)
    box = model_view_box(SIZE, preprocessing("shortest"))
    own = at_own_resolution(values, (4, 4), box, SIZE)
    torch.testing.assert_close(own, upsample(values[None], (4, 4), SIZE)[0], atol=1e-6, rtol=0)
    wide = at_own_resolution(values, (4, 4), model_view_box((64, 128), preprocessing("shortest")), (64, 128))
    assert wide.isnan().sum() == 64 * 64  # what was cropped away
    torch.testing.assert_close(wide[:, 32:96], upsample(values[None], (4, 4), (64, 64))[0], atol=1e-6, rtol=0)
    flat = at_own_resolution(torch.ones(16), (4, 4), box, SIZE)
    assert not flat.any()


def test_squashed_masks_miss_their_image(tmp_path):
    """The reference's geometry: the perfect map of a 2:1 picture has an IoU of 0.5 with its squashed mask."""
    mask = np.zeros((64, 128), np.uint8)
    mask[16:48, 48:80] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    picture = Image.open(tmp_path / "mask.png")
    view, squashed = (mask_transform(preprocessing("shortest"), SIZE, flag)(picture).numpy() for flag in (False, True))
    perfect = view.astype(np.float32)
    assert scores(perfect, view).mean_iou == 1
    row = scores(perfect, squashed).table.iloc[0]
    assert row["intersection_foreground"] / row["union_foreground"] == pytest.approx(0.5)


def test_a_mask_of_another_size_is_named(tmp_path):
    save_picture_and_mask(tmp_path, 40, 80)
    Image.fromarray(np.eye(9, dtype=np.uint8)).save(tmp_path / "mask.png")
    table, preprocess = pd.DataFrame({"image": ["picture.png"], "mask": ["mask.png"]}), preprocessing("shortest")
    _, error = ImageFiles(table, tmp_path, preprocess, mask_transform(preprocess, SIZE))[0]
    assert isinstance(error, InputError)
    assert "mask.png has 9 × 9 pixels" in str(error)
    assert "has 80 × 40; they must have the same size" in str(error)


def test_unseen_pixels_do_not_count():
    mask = np.zeros((1, 4, 8), np.uint8)
    mask[:, :, 3] = 1
    values = mask.astype(np.float32)
    values[:, :, 6:] = 0
    visible = np.ones_like(mask, bool)
    visible[:, :, 6:] = False
    hidden = np.where(visible, mask, 255)
    assert scores(values, hidden, visible).mean_iou == 1
    assert scores(values, hidden, visible).table["labelled_pixels"].tolist() == [24]
    low = np.where(visible, 0.2, 0).astype(np.float32)
    assert predictions(values).any()
    assert not predictions(low, visible).any()  # flat where visible
    assert scores(low, hidden, visible).table["flat"].tolist() == [1]


def test_empty_and_full_masks_have_defined_scores():
    values = np.random.default_rng(0).random((2, 6, 6)).astype(np.float32)
    masks = np.stack([np.zeros((6, 6)), np.ones((6, 6))]).astype(np.uint8)
    result = scores(values, masks)
    assert np.isfinite([result.pixel_accuracy, result.mean_iou, result.mean_ap]).all()


def test_intervals_hold_the_score_and_shrink_with_images():
    rng = np.random.default_rng(3)
    masks = (rng.random((60, 8, 8)) > 0.6).astype(np.uint8)
    values = (0.5 * masks + 0.7 * rng.random(masks.shape)).astype(np.float32)
    table = scores(values, masks).table
    widths = []
    for count in (15, 60):
        result = Scores.from_table(table[:count])
        intervals = result.intervals(np.random.default_rng(0))
        for name, (low, high) in intervals.items():
            assert low < getattr(result, name) < high
        widths.append(intervals["mean_iou"][1] - intervals["mean_iou"][0])
    assert widths[1] < 0.75 * widths[0]
