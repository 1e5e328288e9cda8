"""Budgets: counts from ratios and from information."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mi_pruner_cuda import Mass, keep_count
from mi_pruner_cuda.budget import resolve

ratios = st.floats(0, 1, exclude_min=True)


@given(n=st.integers(0, 10**9), ratio=ratios)
def test_keep_count_is_the_documented_formula(n, ratio):
    assert keep_count(n, ratio) == min(n, max(1, math.floor(ratio * n + 0.5)))


@given(n=st.integers(1, 10**6), ratio=ratios)
def test_keep_count_is_the_nearest_count(n, ratio):
    kept = keep_count(n, ratio)
    assert 1 <= kept <= n
    distance = abs(Fraction(ratio) * n - kept)
    assert kept == 1 or distance <= Fraction(1, 2) + Fraction(1, 10**6)


@pytest.mark.parametrize(
    "n, ratio, kept",
    [
        (576, 0.25, 144),
        (256, 0.1, 26),
        (10, 0.25, 3),
        (10, 0.24, 2),
        (3, 0.01, 1),
        (0, 0.5, 0),
        (1, 1, 1),
    ],
)
def test_keep_count_examples(n, ratio, kept):
    assert keep_count(n, ratio) == kept


@pytest.mark.parametrize("ratio", [0, -0.1, 1.0001, math.nan, math.inf])
def test_ratio_out_of_range(ratio):
    with pytest.raises(ValueError, match=r"ratio: got .*allowed is a number in \(0, 1\]"):
        keep_count(10, ratio)


@pytest.mark.parametrize("n, ratio", [(1.5, 0.5), (True, 0.5), ("9", 0.5), (9, "0.5"), (9, True)])
def test_wrong_types(n, ratio):
    with pytest.raises(TypeError, match="got"):
        keep_count(n, ratio)


def test_negative_n():
    with pytest.raises(ValueError, match="n: got -1"):
        keep_count(-1, 0.5)


@pytest.mark.parametrize("keep, k", [(3, 3), (99, 10), (0.25, 3), (1.0, 10), (1, 1)])
def test_resolve(keep, k):
    assert resolve(keep, 10) == k


@pytest.mark.parametrize("keep", [0, -3, 0.0, 1.5, -0.5, math.nan, math.inf])
def test_resolve_out_of_range(keep):
    with pytest.raises(ValueError, match="keep: got"):
        resolve(keep, 10)


@pytest.mark.parametrize("keep", [True, "0.5", None, [1]])
def test_resolve_wrong_types(keep):
    with pytest.raises(TypeError, match="keep: got"):
        resolve(keep, 10)


@given(scores=st.lists(st.floats(-5, 5), min_size=1, max_size=40), share=ratios)
def test_mass_is_the_smallest_sufficient_count(scores, share):
    k = Mass(share).count(scores)
    gains = sorted((max(0.0, s) for s in scores), reverse=True)
    goal = share * math.fsum(gains)
    slack = 1e-9 * (1 + goal)
    assert 1 <= k <= len(scores)
    assert math.fsum(gains[:k]) >= goal - slack
    assert k == 1 or math.fsum(gains[: k - 1]) < goal + slack


def test_mass_examples():
    assert Mass(0.9).count([5, 4, 1]) == 2
    assert Mass(0.91).count([5, 4, 1]) == 3
    assert Mass(1.0).count([0.3, 0.0, -2.0, 0.1]) == 2
    assert Mass(0.5).count([-1.0, -2.0]) == 1
    assert Mass(0.5).count([-math.inf, 2.0]) == 1


@pytest.mark.parametrize("share", [0, 1.1, -1, math.nan])
def test_mass_out_of_range(share):
    with pytest.raises(ValueError, match=r"Mass\(share\): got"):
        Mass(share)


def test_mass_wrong_type():
    with pytest.raises(TypeError, match=r"Mass\(share\): got"):
        Mass("half")
