"""The numerical rank is that of the data, whatever type it was stored as."""

import numpy as np
import pytest
import torch
from stored_small import stored_small

from clipspectra.contributions.moments import Moments, Reduced
from clipspectra.explanations.spectral import principal_components

rng = np.random.default_rng(2)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("rank", [1, 3, 8])
@pytest.mark.parametrize("offset", [0, 10], ids=["centred", "large mean"])
def test_the_true_rank_is_found(dtype, rank, offset):
    for images, scale in ((50, 1), (3000, 1), (3000, 1e-4)):  # 1e-4: where float16 has few digits left
        rows = rng.normal(size=(images, rank)) @ rng.normal(size=(rank, 64)) + offset * rng.normal(size=64)
        rows = scale * rows
        basis = rng.normal(size=(128, 64))
        for data in (rows.astype(dtype), Reduced(rows.astype(dtype), basis)):
            assert len(principal_components(Moments.from_data(data))[0]) == rank
        half = images // 2
        merged = Moments.from_data(rows[:half].astype(dtype)).merge(Moments.from_data(rows[half:].astype(dtype)))
        assert len(principal_components(merged)[0]) == rank


def test_stored_activations_know_their_type(tmp_path):
    """The z of a head in float16 has its spacing, the scalars, which stay float32, have theirs."""
    stored = stored_small(tmp_path, dtype=torch.float32, store="float16").stored
    (moments, *_) = stored.fit_moments(2)
    assert set(moments.spacing[: -stored.scalars]) == {np.finfo(np.float16).eps}
    assert set(moments.spacing[-stored.scalars :]) == {np.finfo(np.float32).eps}
