"""An extraction's stored arrays: the same however the images are split, with their errors recorded."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from clipspectra import InputError
from clipspectra.arrays import save_arrays, save_table
from clipspectra.contributions.exact import activations, contributions, head_basis
from clipspectra.contributions.extraction import extract
from clipspectra.contributions.shards import CHECKED, ERRORS, images_of_shard
from clipspectra.contributions.stored import StoredActivations
from clipspectra.data.datasets import with_digests
from clipspectra.towers import devices, models
from clipspectra.towers.families import adapt

MODEL = ("tests/golden/model_config.json", "tests/golden/model.safetensors")


@pytest.fixture(scope="module")
def loaded(request):
    return models.load(*(request.config.rootpath / part for part in MODEL))


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(13):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / f"{number:02d}.png")
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    roles = np.where(np.arange(13) < 7, "fit", "eval")
    table = pd.DataFrame({"image": names, "label": np.arange(13) % 3, "row": np.arange(13) + 5, "role": roles})
    return with_digests(table.assign(split="", **{"class": ""}), tmp_path)


def extracted(loaded, table, root, *, shards=1, batch_size=4, **options):
    """(arrays of all shards, sorted by row; proofs; arguments of StoredActivations) of the images of a seed's table."""
    paths, proofs = [], []
    save_table(root / "images.csv", table)
    for shard in range(shards):
        images = images_of_shard([root / "images.csv"], shard, shards)
        stream, proof = extract(loaded, images, root, root, batch_size=batch_size, workers=0, **options)
        paths.append(root / f"shard-{shard}-of-{shards}.safetensors")
        stream.save(paths[-1], proof)
        proofs.append(proof)
    stored = [load_file(path) for path in paths]
    arrays = {name: np.concatenate([arrays[name] for arrays in stored]) for name in stored[0]}
    order = arrays["row"].argsort()
    basis = root / "basis.safetensors"
    save_arrays(basis, {"basis": head_basis(adapt(loaded.model.visual)).numpy()}, {})
    return {name: array[order] for name, array in arrays.items()}, proofs, (paths, basis, root / "images.csv")


def test_shards_batches_and_order_change_nothing(loaded, table, tmp_path):
    whole, _, _ = extracted(loaded, table, tmp_path)
    assert max(np.nanmax(whole[name]) for name in ERRORS) < 2e-6
    assert np.array_equal(whole["sum_error"], whole["stored_sum_error"])
    assert np.isnan(whole["model_error"]).tolist() == [False] * CHECKED + [True] * (13 - CHECKED)
    assert whole["z"].shape == (13, 3, 4, 12)
    assert whole["scalars"].shape == (13, 3)
    for options in ({"shards": 3}, {"batch_size": 13}, {"shards": 4, "batch_size": 1}):
        split, _, _ = extracted(loaded, table, tmp_path, **options)
        assert split.keys() == whole.keys()
        for name in ("row", "picture_id"):
            np.testing.assert_array_equal(split[name], whole[name])
        for name in set(split) - {"embedding", "model_error"}:
            np.testing.assert_allclose(split[name], whole[name], atol=1e-6)
    backwards, _, _ = extracted(loaded, table[::-1], tmp_path)
    assert all(np.array_equal(backwards[name], whole[name], equal_nan=True) for name in whole)


def test_the_last_layers_and_the_sum_of_the_rest(loaded, table, tmp_path):
    _, _, files = extracted(loaded, table, tmp_path)
    complete = StoredActivations(*files)
    parts, means = np.concatenate(list(complete.parts())), complete.fit_means()
    moments = complete.fit_moments(2)
    arrays, (proof,), files = extracted(loaded, table, tmp_path, shards=1, layers=1)
    last = StoredActivations(*files)
    assert list(last.layers) == [2]
    assert proof["first_layer"] == 2
    assert arrays["z"].shape[1] == arrays["class_self"].shape[1] == 1
    assert arrays["stored_sum_error"].max() < 2e-6
    assert complete.names[:6] == [(kind, layer) for kind in ("heads", "self") for layer in range(3)]
    assert last.names == [("early", 1), ("heads", 2), ("self", 2), *complete.names[6:]]
    early, kept = [0, 1, 3, 4], [2, 5, *range(6, parts.shape[1])]
    merged = np.concatenate([parts[:, early].sum(1, keepdims=True), parts[:, kept]], axis=1)
    np.testing.assert_allclose(np.concatenate(list(last.parts())), merged, atol=1e-6)
    np.testing.assert_allclose(last.fit_means(), np.concatenate([[means[early].sum(0)], means[kept]]), atol=1e-6)
    np.testing.assert_allclose(last.fit_moments(2)[1].covariance, moments[1].covariance, atol=1e-7)
    with pytest.raises(InputError, match="the last 4 layers; the model has 3"):
        extracted(loaded, table, tmp_path, layers=4)


def test_the_error_of_float16_is_recorded(loaded, table, tmp_path):
    whole, _, _ = extracted(loaded, table, tmp_path)
    half, _, _ = extracted(loaded, table, tmp_path, dtype="float16")
    assert half["z"].dtype == half["mlps"].dtype == np.float16
    assert half["scalars"].dtype == np.float32
    assert 2e-6 < half["stored_sum_error"].max() < 2e-3
    assert half["sum_error"].max() < 2e-6
    np.testing.assert_allclose(half["z"], whole["z"], atol=1e-3)


def test_the_error_of_autocast_is_recorded(table, tmp_path, request):
    loaded = models.load(*(request.config.rootpath / part for part in MODEL), precision="bf16")
    arrays, _, _ = extracted(loaded, table, tmp_path)
    assert arrays["z"].dtype == np.float32
    assert 1e-4 < arrays["sum_error"].max() < devices.LARGEST_ERROR["bf16"]
    with pytest.raises(InputError, match="'fp8' is not a precision; use one of fp32, tf32, fp16, bf16"):
        models.load(*(request.config.rootpath / part for part in MODEL), precision="fp8")


def test_the_precision_is_of_a_models_own_passes(request):
    """Two models in one process: torch's settings are those of the process, and go back to exact float32."""
    paths = [request.config.rootpath / part for part in MODEL]

    def settings():
        cpu = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, cpu

    exact, rough, half = (models.load(*paths, precision=precision) for precision in ("fp32", "tf32", "bf16"))
    for loaded, inside in (
        (rough, (True, True, None)),
        (exact, (False, False, None)),
        (half, (False, False, torch.bfloat16)),
    ):
        with loaded.autocast():
            assert settings() == inside
        assert settings() == (False, False, None)
    with pytest.raises(ZeroDivisionError), rough.autocast():
        1 / 0  # noqa: B018
    assert settings() == (False, False, None)


def test_a_bad_image_is_named_or_skipped(loaded, table, tmp_path):
    (tmp_path / "05.png").write_bytes((tmp_path / "05.png").read_bytes()[:300])
    with pytest.raises(InputError, match=r"05.png has changed since the images were chosen"):
        extracted(loaded, table, tmp_path, on_bad_image="skip")
    table = with_digests(table, tmp_path)
    with pytest.raises(InputError, match=r"05.png cannot be read: image file is truncated\. Repair it"):
        extracted(loaded, table, tmp_path)
    arrays, (proof,), files = extracted(loaded, table, tmp_path, on_bad_image="skip")
    assert arrays["row"].tolist() == [row for row in table["row"] if row != 10]
    assert proof["skipped"] == [{"image": "05.png", "reason": "image file is truncated"}]
    stored = StoredActivations(*files)
    assert stored.images["image"].tolist() == [name for name in table["image"] if name != "05.png"]


def test_activations_that_are_not_finite_and_wrong_sums_are_refused(table, tmp_path, request):
    loaded = models.load(*(request.config.rootpath / part for part in MODEL))
    preprocess, first_pixel = loaded.preprocess, np.array(Image.open(tmp_path / "06.png"))[0, 0, 0]

    def poisoned(image):
        tensor = preprocess(image)
        return tensor * float("nan") if np.array(image)[0, 0, 0] == first_pixel else tensor

    loaded.preprocess = poisoned
    with pytest.raises(InputError, match=r"activations of 06.png are not finite numbers"):
        extracted(loaded, table, tmp_path)
    loaded.preprocess = preprocess
    bare = loaded.model.encode_image
    loaded.model.encode_image = lambda images, **options: bare(images, **options) + 1e-2
    with pytest.raises(InputError, match="miss the model's embedding by .* more than 1e-04"):
        extracted(loaded, table, tmp_path)


def test_too_little_memory_names_the_batch_to_try():
    sentence = "batches of 100 images; set batch_size to 50"
    with pytest.raises(InputError, match=sentence), devices.explain_out_of_memory(100):
        torch.empty(2**55)
    with pytest.raises(InputError, match="take a smaller model"), devices.explain_out_of_memory(1):
        raise torch.OutOfMemoryError
    with pytest.raises(RuntimeError, match="something else"), devices.explain_out_of_memory(1):
        raise RuntimeError("something else")


def test_two_jobs_take_two_gpus(request):
    """Processes that run at the same time lock different GPUs."""
    uuids = [f"test-{os.getpid()}-{number}" for number in range(2)]
    code = f"from clipspectra.towers.devices import lock_free_gpu; print(lock_free_gpu({uuids}), flush=True); input()"
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {"PYTHONPATH": str(request.config.rootpath / "scripts"), "PATH": ""}
    jobs = [subprocess.Popen([sys.executable, "-c", code], env=environment, **options) for _ in range(2)]
    assert sorted(job.stdout.readline() for job in jobs) == ["0\n", "1\n"]
    for job in jobs:
        job.communicate("\n")
    assert devices.lock_free_gpu(uuids) == 0


def test_memory_holds_only_the_tokens_that_are_read(loaded):
    """The memory of an image's activations does not grow with the number of its tokens."""
    batch = activations(loaded.model, torch.randn(2, 3, *loaded.image_size))
    for tensor in (batch.z, batch.mlps, batch.class_self):
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.itemsize
    assert contributions(loaded.model, torch.randn(1, 3, *loaded.image_size)).heads.shape == (1, 3, 4, 32)
