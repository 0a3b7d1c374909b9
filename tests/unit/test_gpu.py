"""On a GPU the same numbers as on the CPU; skipped where there is none, as in the project's own CI (docs/gpu.md)."""

from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from towers_small import SMALL, pictures, small

from clipspectra.contributions.exact import activations, contributions, head_basis, sum_errors
from clipspectra.contributions.extraction import extract
from clipspectra.contributions.streaming import extract_moments, extract_poles, on_cpu
from clipspectra.data.datasets import with_digests
from clipspectra.data.store import picture_ids
from clipspectra.data.texts import embed_texts
from clipspectra.segmentation.baselines import BASELINES
from clipspectra.segmentation.maps import patch_evidence
from clipspectra.towers import models
from clipspectra.towers.devices import LARGEST_ERROR, autocast
from clipspectra.towers.families import adapt

if not torch.cuda.is_available():
    pytest.skip("these tests need a GPU", allow_module_level=True)

MODEL = ("tests/golden/model_config.json", "tests/golden/model.safetensors")
GPU = "cuda"


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_every_family_in_float64(name):
    model = small(name)
    images = pictures(model, 5)
    expected = [contributions(model, images), contributions(model, images, per_token=True)]
    size = expected[0].embedding.shape[1]
    classifier = torch.randn(size, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    evidence, classes = patch_evidence(model, images, classifier)
    model, images, classifier = model.to(GPU), images.to(GPU), classifier.to(GPU)
    tower = adapt(model.visual)
    assert sum_errors(activations(model, images, tower=tower), head_basis(tower)).max() < 1e-12
    for of_cpu, per_token in zip(expected, (False, True)):
        of_gpu = contributions(model, images, per_token=per_token)
        for part in ("heads", "mlps", "embedding"):
            torch.testing.assert_close(getattr(of_gpu, part).cpu(), getattr(of_cpu, part), atol=1e-10, rtol=1e-9)
    of_gpu, classes_of_gpu = patch_evidence(model, images, classifier)
    assert torch.equal(classes_of_gpu.cpu(), classes)
    torch.testing.assert_close(of_gpu.cpu(), evidence, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("precision", LARGEST_ERROR)
@torch.no_grad()
def test_each_precision_is_what_it_says(precision):
    """The sum is off by no more than is allowed, and the products are rounded as the precision says."""
    model = small("ViT", torch.float32)
    images = pictures(model, 5, torch.float32)
    exact = F.normalize(model.double().encode_image(images.double()))
    model, images = model.float().to(GPU), images.to(GPU)
    tower = adapt(model.visual)
    left, right = (torch.randn(512, 512, device=GPU) for _ in range(2))
    with autocast(images.device, precision):
        batch, product = activations(model, images, tower=tower), left @ right
    assert sum_errors(batch, head_basis(tower).double()).max() < LARGEST_ERROR[precision]
    assert (F.normalize(batch.embedding).cpu() - exact).abs().max() < LARGEST_ERROR[precision]
    error = (product - left.double() @ right.double()).abs().max() / product.abs().max()
    low, high = {"fp32": (0, 1e-6), "tf32": (1e-5, 1e-3), "fp16": (1e-5, 1e-3), "bf16": (1e-4, 1e-2)}[precision]
    assert low < error < high
    after = (left @ right - left.double() @ right.double()).abs().max() / product.abs().max()
    assert after < 1e-6  # of this pass alone


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline(name):
    model = small("ViT")
    images, texts = pictures(model, 3), F.normalize(torch.randn(3, 24, dtype=torch.float64))
    expected = BASELINES[name](model, images, texts, adapt(model.visual)).detach()
    model = model.to(GPU)
    values = BASELINES[name](model, images.to(GPU), texts.to(GPU), adapt(model.visual)).detach()
    torch.testing.assert_close(values.cpu(), expected, atol=1e-9, rtol=1e-8, check_dtype=False)


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(13):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / f"{number:02d}.png")
    table = pd.DataFrame({"image": [f"{number:02d}.png" for number in range(13)], "row": range(13)})
    ids = picture_ids(with_digests(table, tmp_path)["image_sha256"])
    return table.assign(picture_id=ids, checked=table["row"] < 8, whole=True, whole_0=table["row"] < 5)


def both(request):
    """The golden model on the CPU and on the GPU."""
    return [models.load(*(request.config.rootpath / part for part in MODEL), device=device) for device in ("cpu", GPU)]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_extraction(request, table, tmp_path, workers):
    options = {"batch_size": 4, "workers": workers, "dtype": "float16", "layers": 2}
    streams = [extract(loaded, table, tmp_path, tmp_path, **options)[0] for loaded in both(request)]
    for name in streams[0].arrays:
        of_cpu, of_gpu = (np.array(stream.column(name)) for stream in streams)
        assert of_cpu.dtype == of_gpu.dtype
        np.testing.assert_allclose(of_gpu.astype(float), of_cpu.astype(float), atol=2e-3, err_msg=name)
    errors = np.array(streams[1].column("model_error"))
    assert np.nanmax(errors) < 1e-5
    assert np.isnan(errors).sum() == 5
    assert streams[1].column("sum_error").max() < 2e-6


def test_moments_and_poles(request, table, tmp_path):
    seeds, options = {"0": np.arange(13) < 9}, {"batch_size": 4, "workers": 0}
    moments, poles = [], []
    for loaded in both(request):
        _, sums, _ = extract_moments(loaded, table, tmp_path, tmp_path, seeds, **options)
        moments.append(on_cpu(sums["0"]))
        count = moments[0].mean.shape[-1]
        directions = {"0": {"components": np.random.default_rng(1).normal(size=(*moments[0].mean.shape[:2], 5, count))}}
        of_seed, _ = extract_poles(loaded, table, tmp_path, seeds, directions, {"0": moments[0]}, **options)
        poles.append(on_cpu(of_seed["0"]))
    for of_cpu, of_gpu in (moments, poles):
        assert of_cpu.count == of_gpu.count == 9
        for name, array in of_cpu.arrays().items():
            np.testing.assert_allclose(of_gpu.arrays()[name], array, atol=1e-5, rtol=1e-4, err_msg=name)


def test_texts(request):
    texts = ["a photo of a red three", "two", "a small blue four on grass"]
    of_cpu, of_gpu = (embed_texts(loaded, texts) for loaded in both(request))
    assert of_gpu.device.type == "cpu"
    torch.testing.assert_close(of_gpu, of_cpu, atol=2e-6, rtol=0)


def test_a_pass_is_the_same_each_time(request):
    """The same bits for the same batch, so that a study made twice on one card is the same."""
    loaded = both(request)[1]
    images = torch.randn(8, 3, *loaded.image_size, device=GPU)
    first, second = (activations(loaded.model, images) for _ in range(2))
    for field in fields(first):
        parts = getattr(first, field.name), getattr(second, field.name)
        assert parts[0] is None or torch.equal(*parts), field.name
