"""TextSpan from the covariance against the greedy algorithm on the images themselves."""

from pathlib import Path

import numpy as np
import pytest

from clipspectra.contributions.moments import Moments, Reduced
from clipspectra.explanations.textspan import text_span

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "algorithms.npz")


def greedy(data, texts, iterations, variant):
    """Gandelsman et al., Algorithm 1, as in their code; "centred" centres data and texts first."""
    if variant == "centred":
        data, texts = data - data.mean(0), texts - texts.mean(0)
    singular, components = np.linalg.svd(data, full_matrices=False)[1:]
    components = components[singular > 1e-6 * singular[0]]
    texts, data = texts @ components.T @ components, data - data.mean(0)
    picked = []
    for _ in range(iterations):
        picked.append((data @ texts.T).std(0).argmax())
        direction = texts[picked[-1]] / np.linalg.norm(texts[picked[-1]])
        data = data - np.outer(data @ direction, direction)
        texts = texts - np.outer(texts @ direction, direction)
    return picked


@pytest.fixture
def head():
    """q and basis of one head of rank 7 in 12 dimensions, and texts."""
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(90, 7)) * 2.0 ** -np.arange(7) + 1
    return rows, rng.normal(size=(12, 7)), rng.normal(size=(60, 12))


def test_golden():
    span = text_span(GOLDEN["data"], GOLDEN["text_features"], iterations=int(GOLDEN["text_span_iters"]), rank=80)
    np.testing.assert_array_equal(span.text, GOLDEN["text_span_idx"])
    np.testing.assert_allclose(span.reconstruct(GOLDEN["data"]), GOLDEN["text_span_reconstruct"], atol=1e-5)


@pytest.mark.parametrize("variant", ["centred", "paper"])
def test_greedy_algorithm_on_the_images(variant, head):
    rows, basis, texts = head
    dense = rows @ basis.T
    span = text_span(Reduced(rows, basis), texts, iterations=6, variant=variant)
    assert span.text.tolist() == greedy(dense, texts, 6, variant)
    from_dense = text_span(dense, texts, iterations=6, variant=variant)
    np.testing.assert_array_equal(from_dense.text, span.text)
    residual = dense - span.reconstruct(dense)
    np.testing.assert_allclose(span.variance.sum(), dense.var(0).sum() - residual.var(0).sum(), rtol=1e-9)


@pytest.mark.parametrize("variant", ["centred", "paper"])
def test_order_and_shards_change_nothing(variant, head):
    rows, basis, texts = head
    whole = text_span(Reduced(rows, basis), texts, iterations=99, variant=variant)
    shuffled = Reduced(np.random.default_rng(0).permutation(rows), basis)
    np.testing.assert_array_equal(text_span(shuffled, texts, iterations=99, variant=variant).text, whole.text)
    shards = [Moments.from_data(Reduced(shard, basis)) for shard in np.split(rows, [11, 50])]
    merged = text_span(shards[0].merge(shards[1]).merge(shards[2]), texts, iterations=99, variant=variant)
    np.testing.assert_array_equal(merged.text, whole.text)
    np.testing.assert_allclose(merged.steps, whole.steps, atol=1e-9)


def test_the_list_ends_at_the_numerical_rank(head):
    rows, basis, texts = head
    span = text_span(Reduced(rows, basis), texts, iterations=80, rank=80)
    assert len(span.text) == span.rank == 7
    assert len(set(span.text)) == 7
    np.testing.assert_allclose(span.reconstruct(rows @ basis.T), rows @ basis.T, atol=1e-9)
    np.testing.assert_allclose(span.steps @ span.steps.T, np.eye(7), atol=1e-9)
    assert len(text_span(Reduced(rows, basis), texts[:4], iterations=80).text) == 3  # centring costs one
    assert len(text_span(Reduced(rows, basis), texts, iterations=80, rank=5).text) == 5


def test_a_constant_head_has_no_texts(head):
    rows, basis, texts = head
    span = text_span(np.ones((9, 12)), texts, iterations=5)
    assert len(span.text) == 0
    np.testing.assert_allclose(span.reconstruct(np.zeros((2, 12))), 1)
    with pytest.raises(ValueError, match="variant is 'other'"):
        text_span(rows @ basis.T, texts, iterations=1, variant="other")
