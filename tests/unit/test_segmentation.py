"""Segmentation of batches and by single units, on small models and on maps whose scores are known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from towers_small import pictures, small

from clipspectra import InputError
from clipspectra.data.geometry import mask_transform
from clipspectra.data.pictures import ImageFiles, check_readable, named_skipped
from clipspectra.segmentation import images as segmentation
from clipspectra.segmentation import units
from clipspectra.segmentation.maps import component_evidence, patch_evidence
from clipspectra.towers.families import adapt

SHAPE = (32, 32)


def random_classifier(model, classes=5):
    """A random classifier [d_embed, class] for a model."""
    d_embed = model.encode_image(pictures(model, 1)).shape[1]
    return torch.randn(d_embed, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def squares(count):
    """Masks [image, 32, 32] whose foreground is the top left patch of 16 patches, and evidence there alone."""
    masks, evidence = np.zeros((count, *SHAPE), np.uint8), torch.zeros(count, 16)
    masks[:, :8, :8], evidence[:, 0] = 1, 1
    return masks, evidence


def test_evidence_of_methods_does_not_depend_on_the_gradient_batch(monkeypatch):
    model, methods = small("ViT"), ["GradCAM", "decomposition", "decomposition, last layer", "centre prior"]
    images, tower, classifier, log = pictures(model, 3), adapt(model.visual), random_classifier(model), []
    options = {"classes": None, "tower": tower, "log": log.append}
    evidence = segmentation.method_evidence(model, images, classifier, methods, **options)
    both = ["text minus mean", "text"]
    assert list(evidence) == [*((name, given) for name in methods[:3] for given in both), ("centre prior", "no text")]
    assert all(values.shape == (3, 16) and values.dtype == torch.float32 for values in evidence.values())
    decomposition, _ = patch_evidence(model, images, classifier, tower=tower)
    assert torch.equal(evidence["decomposition", "text minus mean"], decomposition.float())
    decomposition, _ = patch_evidence(model, images, classifier, minus_mean=False, tower=tower)
    torch.testing.assert_close(evidence["decomposition", "text"], decomposition.float())
    last = patch_evidence(model, images, classifier, by_head=True, minus_mean=False, tower=tower)[0][:, -1].sum(1)
    torch.testing.assert_close(evidence["decomposition, last layer", "text"], last.float())
    assert not torch.allclose(evidence["GradCAM", "text"], evidence["GradCAM", "text minus mean"])
    monkeypatch.setattr(segmentation, "GRADIENT_BATCH", 2)
    monkeypatch.setattr(segmentation, "ATTENTION_NUMBERS", 0)
    split = segmentation.method_evidence(model, images, classifier, methods, **options)
    torch.testing.assert_close(split["GradCAM", "text"], evidence["GradCAM", "text"])
    classes = torch.tensor([4, 0, 2])
    label_evidence = segmentation.method_evidence(model, images, classifier, methods, **options | {"classes": classes})
    decomposition, _ = patch_evidence(model, images, classifier, classes=classes, tower=tower)
    assert torch.equal(label_evidence["decomposition", "text minus mean"], decomposition.float())
    assert not log


def test_baselines_that_a_tower_does_not_support_are_left_out():
    model, log = small("SigLIP"), []
    options = {"classes": None, "tower": adapt(model.visual), "log": log.append}
    methods = ["decomposition", "rollout", "LeGrad"]
    evidence = segmentation.method_evidence(model, pictures(model, 1), random_classifier(model), methods, **options)
    assert list(evidence) == [("decomposition", "text minus mean"), ("decomposition", "text")]
    assert log[0] == "rollout is left out: rollout needs a class token, and it has none"
    assert log[1].startswith("LeGrad is left out: its attention cannot be traced")
    with pytest.raises(InputError, match=r"none of the segmentation\.methods \(rollout, LeGrad\)"):
        segmentation.method_evidence(model, pictures(model, 1), random_classifier(model), methods[1:], **options)


def test_unreadable_pictures_are_named_and_some_must_remain():
    table = pd.DataFrame({"image": ["a.png", "b.png"]})
    skipped = [{"image": row, "reason": "truncated"} for row in range(2)]
    assert named_skipped(skipped[1:], table) == [{"image": "b.png", "reason": "truncated"}]
    check_readable(skipped[1:], table)
    with pytest.raises(InputError, match=r"None of the 2 images can be read; the first, a\.png: truncated\."):
        check_readable(named_skipped(skipped, table), table)


def test_scores_of_a_batch_at_both_resolutions():
    masks, evidence = squares(2)
    picture_mask = np.zeros((32, 64), np.uint8)
    picture_mask[:8, 16:24] = 1  # the same in the middle of a wide picture, of which the model sees 32 columns
    methods = {("perfect", "text"): evidence, ("flat", "no text"): torch.zeros(2, 16)}
    own = [None, (picture_mask, (0, 16, 32, 32))]
    table = segmentation.score_batch(methods, (4, 4), masks, [7, 9], own)
    assert table[["method", "resolution", "row"]].to_numpy().tolist() == [
        [method, *case] for method, _ in methods for case in (["model", 7], ["model", 9], ["own", 9])
    ]
    assert table["labelled_pixels"].tolist() == [1024] * 6
    assert table["flat"].tolist() == [0, 0, 0, 1, 1, 1]
    perfect = table[table["method"] == "perfect"]
    assert perfect["intersection_foreground"].tolist() == [64] * 3
    assert perfect["average_precision"].min() > 0.99
    assert len(segmentation.score_batch(methods, (4, 4), masks, [7, 9], None)) == 4
    summary = segmentation.summarise(table, seed=0)
    assert summary[["method", "resolution", "images", "flat_maps"]].to_numpy().tolist() == [
        ["perfect", "model", 2, 0],
        ["perfect", "own", 1, 0],
        ["flat", "model", 2, 2],
        ["flat", "own", 1, 1],
    ]
    assert summary["pixel_accuracy"][2] == pytest.approx(100 * 15 / 16)  # all background
    assert summary["mean_iou"][2] == pytest.approx(50 * 15 / 16)
    assert summary["given"].tolist() == ["text"] * 2 + ["no text"] * 2
    assert summary["foreground_ap"][2] == pytest.approx(100 / 16)
    assert np.isnan(summary["chosen_iou"][1])  # a single image has no others to choose on
    several = summary[summary["images"] > 1]
    assert several["mean_ap"].between(several["mean_ap_low"], several["mean_ap_high"]).all()
    assert summary.loc[summary["images"] == 1, "mean_ap_low"].isna().all()


def test_examples_are_the_best_the_worst_and_random_ones():
    precision = [0.2, 0.9, 0.5, 0.9, 0.1]
    table = pd.DataFrame({"row": range(5), "average_precision": precision, "method": "a", "given": "text"})
    table["resolution"] = "model"
    noise = table.assign(average_precision=0.3)
    by_image = [table[::-1], noise.assign(method="b"), noise.assign(resolution="own"), noise.assign(given="no text")]
    by_image = pd.concat(by_image)
    examples = segmentation.choose_examples(by_image, "a", "text", seed=0)
    assert examples[:6] == [("best", 1), ("best", 3), ("best", 2), ("worst", 4), ("worst", 0), ("worst", 2)]
    assert [kind for kind, _ in examples[6:]] == ["random"] * 3
    assert len({row for _, row in examples[6:]}) == 3
    assert examples == segmentation.choose_examples(by_image, "a", "text", seed=0)


def test_pictures_are_written_as_the_model_sees_them(tmp_path):
    preprocess = image_transform(SHAPE, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))
    Image.new("RGB", (64, 32), (200, 100, 0)).save(tmp_path / "picture.png")
    Image.fromarray(np.eye(32, 64, dtype=np.uint8)).save(tmp_path / "mask.png")
    table = pd.DataFrame({"image": ["picture.png"], "mask": ["mask.png"]})
    files = ImageFiles(table, tmp_path, preprocess, mask_transform(preprocess, SHAPE))
    ((mask, box),) = segmentation.own_masks(files, [0], SHAPE)
    assert mask.shape == (32, 64)
    assert box == (0, 16, 32, 32)
    assert segmentation.own_masks(files, [0], (32, 64)) == [None]
    masks, evidence = squares(1)
    masks[0, 31] = 255
    examples = segmentation.example_arrays(files, [0], masks, evidence, (4, 4))
    assert {name: array.shape for name, array in examples.items()} == {
        "pictures": (1, 32, 32, 3),
        "masks": (1, 32, 32),
        "maps": (1, 32, 32),
        "predictions": (1, 32, 32),
    }
    segmentation.save_pictures(tmp_path / "pictures", [7], examples)
    written = {path.stem[7:]: np.array(Image.open(path)) for path in tmp_path.glob("pictures/000007-*.png")}
    assert set(written) == set(segmentation.PICTURES)
    assert (written["image"] == [200, 100, 0]).all()
    assert np.array_equal(written["mask"] == 255, masks[0] == 1)
    assert np.array_equal(written["prediction"] == 255, examples["predictions"][0] == 1)
    assert np.array_equal(written["overlay"], written["image"] // 2 + written["map"] // 2)
    assert segmentation.have_pictures(tmp_path / "pictures", [7, 8]).tolist() == [True, False]
    (tmp_path / "pictures" / "000007-map.png").unlink()
    assert segmentation.have_pictures(tmp_path / "pictures", [7]).tolist() == [False]
    assert not segmentation.have_pictures(tmp_path / "pictures", [8]).any()  # row 7 may be another picture now
    assert not list((tmp_path / "pictures").iterdir())
    assert not segmentation.have_pictures(tmp_path / "absent", [8]).any()


def test_units_are_in_the_order_of_their_table():
    model = small("ViT")
    images, tower, classifier = pictures(model, 2), adapt(model.visual), random_classifier(model)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(24, 24)))[0]
    counts = {(-1, -1): 4, (0, 1): 2, (1, 0): 0, (2, 3): 5}  # (-1, -1) is the whole embedding
    explanations = {place: SimpleNamespace(components=basis[:count]) for place, count in counts.items()}
    components = units.leading_components(explanations)
    assert {place: len(vectors) for place, vectors in components.items()} == {(0, 1): 2, (2, 3): units.COMPONENTS}
    options = {"classes": None, "tower": tower}
    evidence = units.unit_evidence(model, images, classifier, components, **options)
    tables = units.unit_tables(tower, components)
    heads, _ = patch_evidence(model, images, classifier, by_head=True, tower=tower)
    alone = component_evidence(model, images, classifier, components, tower=tower)
    for number, (layer, head, _) in enumerate(tables["heads"].to_numpy()):
        assert torch.equal(evidence["heads"][:, number], heads[:, layer, head].float())
    for number, (layer, head, component) in enumerate(tables["components"].to_numpy()):
        assert torch.equal(evidence["components"][:, number], alone[layer, head][:, component].float())
    assert [evidence[unit].shape[1] for unit in evidence] == [len(table) for table in tables.values()] == [12, 5]
    assert set(units.unit_evidence(model, images, classifier, {}, **options)) == {"heads"}


def test_the_best_units_come_first():
    masks, evidence = squares(4)
    random = torch.rand(4, 5, 16, generator=torch.Generator().manual_seed(0))
    heads = torch.cat([random[:, :2], 100 * evidence[:, None], random[:, 2:]], dim=1)  # unit 2 alone is right
    table = pd.DataFrame({"layer": 0, "head": range(6), "component": -1})
    alone, together = units.score_units({"heads": heads}, {"heads": table}, masks, (4, 4))
    assert alone["mean_ap"].idxmax() == alone["foreground_ap"].idxmax() == 2
    assert alone["mean_ap"][2] == pytest.approx(100)
    assert alone["images"].tolist() == [4] * 6
    assert together["unit"].tolist() == ["heads"] * 4
    assert together["number"].tolist() == [1, 2, 4, 6]
    assert together["images"].tolist() == [2] * 4
    assert together["mean_ap"][0] > 99
    assert together["mean_iou"].between(together["mean_iou_low"], together["mean_iou_high"]).all()
    assert together["foreground_ap"][0] > together["foreground_ap"][3]
