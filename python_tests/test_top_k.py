"""top_k: the k largest scores by ascending index."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from kernels import same_bits, top_k

from mi_pruner_cuda import reference


def assert_same(scores, k):
    values, indices = top_k(scores, k)
    expected_values, expected_indices = reference.top_k(scores, k)
    assert torch.equal(indices, expected_indices)
    assert torch.equal(values, expected_values)  # -0.0 equals 0.0


SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 3e38, -3e38]
any_float = st.floats(width=32) | st.sampled_from(SPECIAL)


@given(
    scores=hnp.arrays(np.float32, st.integers(1, 200), elements=any_float),
    k=st.integers(1, 220),
)
def test_any_scores(scores, k):
    assert_same(torch.from_numpy(scores), k)


@given(data=st.data(), n=st.integers(1, 300))
def test_few_distinct_scores(data, n):
    """Ties everywhere: most of the choice is made by index."""
    pool = data.draw(st.lists(any_float, min_size=1, max_size=4))
    scores = data.draw(hnp.arrays(np.float32, n, elements=st.sampled_from(pool)))
    assert_same(torch.from_numpy(scores), data.draw(st.integers(1, n)))


@pytest.mark.parametrize("k", [1, 2, 511, 512, 4095, 4096, 5000])
@pytest.mark.parametrize(
    "make",
    [
        lambda n: torch.randn(n),
        lambda n: torch.zeros(n),
        lambda n: torch.arange(n).float(),
        lambda n: -torch.arange(n).float(),
        # One sign, one exponent, and fractions that differ in their last ten bits only.
        lambda n: (
            torch.randint(0, 1024, (n,), dtype=torch.int32).add(0x3F800000).view(torch.float32)
        ),
        lambda n: torch.full((n,), math.nan),
        lambda n: torch.cat([torch.full((n - 1,), -math.inf), torch.ones(1)]),
    ],
    ids=["random", "equal", "rising", "falling", "crowded", "nan", "one-finite"],
)
def test_long_rows(make, k):
    assert_same(make(4096), k)


def test_every_digit_can_decide():
    """Two keys that differ in a single bit, for each of the 32."""
    for bit in range(32):
        pair = torch.tensor([0, 1 << bit if bit < 31 else -(1 << 31)], dtype=torch.int32)
        for base in (0x3F800000, 0x00000001, -0x40000000):
            scores = (pair ^ base).view(torch.float32)
            assert_same(scores, 1)
            assert_same(scores.flip(0).contiguous(), 1)


def test_batches_equal_their_items():
    scores = torch.randn(5, 333).round(decimals=1)
    values, indices = top_k(scores, 40, threads=3)
    for b in range(5):
        one = top_k(scores[b], 40)
        assert same_bits(values[b].clone(), one[0]) and torch.equal(indices[b], one[1])


def test_a_million_scores():
    scores = torch.randn(1_000_000)
    values, indices = top_k(scores, 1000)
    assert torch.equal(values.sort().values, scores.topk(1000).values.sort().values)
    assert torch.equal(indices, indices.unique())


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4)])
def test_empty(shape):
    values, indices = top_k(torch.empty(shape), 2)
    assert values.shape == indices.shape == (*shape[:-1], min(2, shape[-1]))
