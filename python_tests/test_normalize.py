"""normalize: rows of unit length."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernels import DTYPES, LEVELS, at_level, normalize, same_bits

from mi_pruner_cuda import reference

dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
# Half an ulp of rounding, and one more for a float32 value that falls on the other side of a tie.
TOLERANCE = {torch.float32: 3e-7, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def assert_unit(ours, x, eps=1e-12):
    exact = reference.normalize(x.double(), eps)
    tolerance = TOLERANCE[x.dtype]
    torch.testing.assert_close(ours.double(), exact, rtol=tolerance, atol=1e-7, equal_nan=True)


@dtypes
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (17, 64), (5, 1000), (2, 9, 33)])
def test_agrees_with_the_reference(level, dtype, shape):
    x = torch.randn(shape).to(dtype)
    ours = normalize(x)
    assert ours.dtype == dtype
    assert_unit(ours, x)


@dtypes
@given(
    level=st.sampled_from(LEVELS),
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 20),
    columns=st.integers(1, 70),
    exponent=st.integers(-44, 38),
)
def test_any_magnitude(dtype, level, seed, rows, columns, exponent):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=generator, dtype=torch.float64) * 10.0**exponent
    x = x.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)
    with at_level(level):
        assert_unit(normalize(x), x)


@dtypes
def test_zero_rows_stay_zero_and_broken_rows_become_nan(level, dtype):
    x = torch.randn(6, 10).to(dtype)
    x[1] = 0
    x[2, 3] = math.nan
    x[4, 9] = -math.inf
    ours = normalize(x)
    assert (ours[1] == 0).all()
    assert ours[2].isnan().all() and ours[4].isnan().all()
    assert_unit(ours, x)


def test_a_tiny_eps_leaves_tiny_rows_their_direction(level):
    x = torch.tensor([[3e-30, 4e-30], [3e-38, 4e-38], [0.0, 0.0]])
    expected = torch.tensor([[0.6, 0.8], [0.6, 0.8], [0.0, 0.0]])
    torch.testing.assert_close(normalize(x, eps=2e-38), expected, rtol=1e-5, atol=0)


def test_norms_below_eps_count_as_eps(level):
    x = torch.tensor([[3e-3, 4e-3], [3.0, 4.0]])
    torch.testing.assert_close(normalize(x, eps=0.01), torch.tensor([[0.3, 0.4], [0.6, 0.8]]))


@dtypes
def test_threads_and_strides_change_no_bit(level, dtype):
    x = torch.randn(3, 50, 40).to(dtype)
    expected = normalize(x[:, :, :33].contiguous())
    assert same_bits(normalize(x[:, :, :33]), expected)
    assert same_bits(normalize(x[:, :, :33], threads=4), expected)
    assert same_bits(normalize(x[1, ::2, :33]), expected[1, ::2].contiguous())


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (2, 0, 3), (0, 2, 3)])
def test_empty(level, shape):
    assert normalize(torch.empty(shape)).shape == shape
