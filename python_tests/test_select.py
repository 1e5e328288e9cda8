"""select: the numerical contract, line by line, at every CPU level and dtype.

Bad arguments are in test_ops.py and test_numpy.py, where users meet them.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from inputs import problems, related
from kernels import (
    DTYPES,
    ESTIMATORS,
    LEVELS,
    assert_scores_close,
    assert_top,
    at_level,
    mutual_information,
    same_bits,
    select,
)

from mi_pruner_cuda import _C, reference

dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
redundancies = pytest.mark.parametrize("redundancy", [0.0, 0.7])
any_level = st.sampled_from(LEVELS)


def exact_scores(visual, text, *masks, **options):
    return reference.mutual_information(visual.double(), text.double(), *masks, **options)


def usable(visual, mask):
    """Which rows may be chosen at all, and which of them are finite."""
    allowed = torch.ones(visual.shape[0], dtype=torch.bool) if mask is None else mask
    return allowed, allowed & torch.isfinite(visual).all(1)


# ---- 1. exactly K indices, unique, ascending; ties go to the lower index ----


@given(
    problem=problems(),
    share=st.floats(0, 1.2),
    redundancy=st.sampled_from([0.0, 0.7]),
    coverage=st.sampled_from([0.0, 0.5, 1.0]),
    level=any_level,
    estimator=st.sampled_from(ESTIMATORS),
)
def test_keeps_exactly_k_distinct_rows_that_may_be_kept(
    problem, share, redundancy, coverage, level, estimator
):
    visual, _, visual_mask, _ = problem
    k = max(1, int(share * visual.shape[0]))
    visual, text, visual_mask, text_mask = problem
    options = {"redundancy": redundancy, "coverage": coverage, "estimator": estimator}
    with at_level(level):
        indices, _ = select(visual, text, k, visual_mask, text_mask, **options)
    allowed, finite = usable(visual, visual_mask)
    assert indices.shape == (min(k, visual.shape[0]),)
    kept = indices[indices >= 0]
    assert kept.numel() == min(k, int(allowed.sum()))
    assert (indices[kept.numel() :] == -1).all()
    assert (kept.diff() > 0).all()
    assert allowed[kept].all()
    # Rows that are not finite come last, the lower ones first.
    broken = (allowed & ~finite).nonzero()[:, 0]
    broken_kept = kept[~finite[kept]]
    assert broken_kept.numel() == max(0, kept.numel() - int(finite.sum()))
    assert torch.equal(broken_kept, broken[: broken_kept.numel()])


@given(
    problem=problems(),
    share=st.floats(0, 1),
    level=any_level,
    estimator=st.sampled_from(ESTIMATORS),
)
def test_without_redundancy_the_k_largest_scores_are_kept(problem, share, level, estimator):
    visual, text, visual_mask, text_mask = problem
    _, finite = usable(visual, visual_mask)
    if not finite.any():
        return
    k = max(1, int(share * int(finite.sum())))
    with at_level(level):
        indices, scores = select(visual, text, k, visual_mask, text_mask, estimator=estimator)
        alone = mutual_information(visual, text, visual_mask, text_mask, estimator=estimator)
    assert same_bits(scores, alone)
    exact = exact_scores(visual, text, visual_mask, text_mask, estimator=estimator)
    assert_scores_close(scores, exact)
    position = torch.cumsum(finite, 0) - 1  # of each row among those that may be kept
    assert_top(position[indices], exact[finite], k)


@redundancies
def test_ties_go_to_the_lower_index(level, redundancy):
    visual, text = related(1, 5, 20)
    indices, _ = select(visual.repeat(50, 1), text, 7, redundancy=redundancy)
    assert indices.tolist() == list(range(7))


@redundancies
@pytest.mark.parametrize("k", [10, 11, 2**40])
def test_more_than_all_keeps_all(level, redundancy, k):
    visual, text = related(10, 3, 8)
    assert select(visual, text, k, redundancy=redundancy)[0].tolist() == list(range(10))


# ---- 2. zero rows and rows that are not finite ----


@dtypes
@redundancies
def test_zero_rows_are_allowed_and_poison_nothing(level, dtype, redundancy):
    visual, text = related(60, 6, 40, dtype)
    visual[::7] = 0
    text[2] = 0
    indices, scores = select(visual, text, 30, redundancy=redundancy)
    assert indices.unique().numel() == 30
    assert_scores_close(scores, exact_scores(visual, text))
    zeros, _ = select(torch.zeros_like(visual), text, 30, redundancy=redundancy)
    assert zeros.tolist() == list(range(30))


@dtypes
@redundancies
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_rows_not_finite_count_as_masked(level, dtype, redundancy, estimator):
    visual, text = related(90, 8, 30, dtype)
    broken, text_broken = [0, 31, 48, 89], [3, 7]
    spoiled, spoiled_text = visual.clone(), text.clone()
    for row, value in zip(broken, (math.nan, math.inf, -math.inf, math.nan), strict=True):
        spoiled[row, row % 30] = value
    spoiled_text[text_broken, 5] = math.nan
    mask, text_mask = torch.ones(90, dtype=torch.bool), torch.ones(8, dtype=torch.bool)
    mask[broken], text_mask[text_broken] = False, False
    options = {"redundancy": redundancy, "estimator": estimator}
    indices, scores = select(spoiled, spoiled_text, 40, **options)
    expected = select(visual, text, 40, mask, text_mask, **options)
    assert same_bits(indices, expected[0]) and same_bits(scores, expected[1])
    assert (scores[broken] == -math.inf).all()


@redundancies
def test_rows_not_finite_fill_up_when_too_few_are_left(level, redundancy):
    visual, text = related(8, 3, 10)
    visual[[1, 4, 6]] = math.nan
    indices, _ = select(visual, text, 6, redundancy=redundancy)
    assert indices.tolist() == [0, 1, 2, 3, 5, 7]
    mask = torch.tensor([True, False, True, True, True, True, True, True])
    assert select(visual, text, 8, mask, redundancy=redundancy)[0].tolist() == [
        *(0, 2, 3, 4, 5, 6, 7, -1)
    ]


@dtypes
def test_huge_and_tiny_rows_count_by_direction_alone(level, dtype):
    """Scaling a row by a power of two leaves every cosine as it was, up to the range's ends."""
    visual, text = related(50, 6, 64, dtype)
    exponents = {torch.float32: (120, -30), torch.float16: (12, -6), torch.bfloat16: (120, -30)}
    scaled = visual.clone()
    scaled[5:9] *= 2.0 ** exponents[dtype][0]
    scaled[20:24] *= 2.0 ** exponents[dtype][1]
    big_text = text.clone()
    big_text[1] *= 2.0 ** exponents[dtype][0]
    assert torch.isfinite(scaled).all() and torch.isfinite(big_text).all()
    _, plain = select(visual, text, 10)
    _, scores = select(scaled, big_text, 10)
    torch.testing.assert_close(
        scores, plain, rtol=2e-3 if dtype == torch.float16 else 1e-5, atol=1e-6
    )


# ---- 3. masked rows ----


@given(
    problem=problems(masks=False),
    redundancy=st.sampled_from([0.0, 0.7]),
    coverage=st.sampled_from([0.0, 0.5]),
    estimator=st.sampled_from(ESTIMATORS),
    level=any_level,
    data=st.data(),
)
def test_padding_changes_no_bit(problem, redundancy, coverage, estimator, level, data):
    """Masked rows, wherever they stand and whatever they hold, leave no trace in the real rows."""
    visual, text, _, _ = problem

    def pad(rows):
        n = rows.shape[0]
        extra = data.draw(st.integers(0, 60))
        order = torch.from_numpy(np.random.default_rng(extra).permutation(n + extra))
        real = order[:n].sort().values
        padded = torch.full(
            (n + extra, rows.shape[1]), data.draw(st.sampled_from([0.0, 7.0, math.nan]))
        )
        padded = padded.to(rows.dtype)
        padded[real] = rows
        mask = torch.zeros(n + extra, dtype=torch.bool)
        mask[real] = True
        return padded, mask, real

    k = max(1, visual.shape[0] // 3)
    padded, mask, real = pad(visual)
    padded_text, text_mask, _ = pad(text)
    options = {"redundancy": redundancy, "coverage": coverage, "estimator": estimator}
    with at_level(level):
        indices, scores = select(visual, text, k, **options)
        padded_indices, padded_scores = select(padded, padded_text, k, mask, text_mask, **options)
    assert same_bits(padded_scores[real], scores)
    assert (padded_scores[~mask] == -math.inf).all()
    assert torch.equal(padded_indices, real[indices])


# ---- 4. batches, threads, repetitions ----


@dtypes
@redundancies
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_batch_equals_its_items_bit_for_bit(level, dtype, redundancy, estimator):
    visual, text = related(130, 9, 37, dtype, batch=(4,))
    visual[1, 3], visual[2, 5, 0] = 0, math.nan
    mask, text_mask = torch.rand(4, 130) < 0.8, torch.rand(4, 9) < 0.8
    for masks, coverage in (((None, None), 0.0), ((mask, text_mask), 0.5)):
        options = {"redundancy": redundancy, "estimator": estimator, "coverage": coverage}
        indices, scores = select(visual, text, 33, *masks, **options)
        for b in range(4):
            own = [None if m is None else m[b] for m in masks]
            one = select(visual[b], text[b], 33, *own, **options)
            assert same_bits(indices[b].clone(), one[0]) and same_bits(scores[b].clone(), one[1])


@given(
    problem=problems(largest_n=400),
    redundancy=st.sampled_from([0.0, 0.7]),
    estimator=st.sampled_from(ESTIMATORS),
    threads=st.integers(2, 9),
    level=any_level,
)
def test_threads_change_no_bit(problem, redundancy, estimator, threads, level):
    visual, text, visual_mask, text_mask = problem
    k = max(1, visual.shape[0] // 4)
    options = {"redundancy": redundancy, "estimator": estimator}
    with at_level(level):
        one = select(visual, text, k, visual_mask, text_mask, **options)
        for _ in range(2):
            many = select(visual, text, k, visual_mask, text_mask, threads=threads, **options)
            assert same_bits(one[0], many[0]) and same_bits(one[1], many[1])


@pytest.mark.parametrize("redundancy", [0.0, 0.7])
def test_busy_threads_change_no_bit(redundancy):
    """Long enough for threads to meet in the middle of packing, multiplying and mirroring."""
    visual, text = related(800, 256, 4096)
    one = select(visual, text, 100, redundancy=redundancy)
    for _ in range(6):
        many = select(visual, text, 100, redundancy=redundancy, threads=4)
        assert same_bits(one[0], many[0]) and same_bits(one[1], many[1])


# ---- 5. every level agrees within 1e-5, as backends must ----


@dtypes
@redundancies
def test_levels_agree(dtype, redundancy):
    visual, text = related(300, 20, 128, dtype)
    results = {}
    for level in LEVELS:
        with at_level(level):
            results[level] = select(visual, text, 75, redundancy=redundancy)
    indices, scores = results["baseline"]
    for other_indices, other_scores in results.values():
        assert_scores_close(other_scores, scores)
        assert torch.equal(other_indices, indices)


# ---- 6. shapes and strides ----


@redundancies
@pytest.mark.parametrize("shape", [(0, 5, 4), (2, 0, 5, 4), (0, 7, 5, 4)])
def test_empty(level, redundancy, shape):
    *batch, n, m, d = shape
    visual, text = torch.empty(*batch, n, d), torch.empty(*batch, m, d)
    indices, scores = select(visual, text, 3, redundancy=redundancy)
    assert indices.shape == (*batch, min(3, n)) and indices.dtype == torch.int64
    assert scores.shape == (*batch, n) and scores.dtype == torch.float32


@dtypes
@redundancies
@pytest.mark.parametrize("d", [1, 2, 3, 15, 16, 17, 255, 256, 257, 511, 4097])
def test_any_width(level, dtype, redundancy, d):
    visual, text = related(70, 5, d, dtype)
    indices, scores = select(visual, text, 20, redundancy=redundancy)
    assert_scores_close(scores, exact_scores(visual, text))
    if redundancy:
        assert indices.unique().numel() == 20
    else:
        assert_top(indices, exact_scores(visual, text), 20)


@dtypes
@redundancies
def test_strides_change_no_bit(level, dtype, redundancy):
    wide, wide_text = related(160, 30, 90, dtype, batch=(3,))
    views = wide[:, ::2, 3:60], wide_text[:, 1::3, 3:60]
    copies = [x.contiguous() for x in views]
    ours = select(*views, 17, redundancy=redundancy)
    expected = select(*copies, 17, redundancy=redundancy)
    assert same_bits(ours[0], expected[0]) and same_bits(ours[1], expected[1])
    # Columns that are not adjacent, and one row repeated by a stride of zero.
    columns = select(wide[0, :, ::3], wide_text[0, :, ::3], 17, redundancy=redundancy)
    own = [x.contiguous() for x in (wide[0, :, ::3], wide_text[0, :, ::3])]
    assert same_bits(columns[1], select(*own, 17, redundancy=redundancy)[1])
    repeated = select(wide[0, :1].expand(9, -1), wide_text[0], 4, redundancy=redundancy)
    assert repeated[0].tolist() == [0, 1, 2, 3]


@redundancies
def test_offsets_past_two_to_the_31(level, redundancy):
    """Rows 1.3 GiB apart: the last begins past 2^31 elements. Untouched pages cost no memory."""
    stride = 716_000_000
    storage = np.empty(3 * stride + 64, dtype=np.float16)
    assert 3 * stride > 2**31
    far = np.lib.stride_tricks.as_strided(storage, (4, 64), (2 * stride, 2))
    near = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float16)
    far[:] = near
    text = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float16)
    ours = _C.select(far, text, 2, redundancy=redundancy)
    expected = _C.select(near, text, 2, redundancy=redundancy)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(ours, expected, strict=True))


@pytest.mark.parametrize("estimator", ["posterior", "specific", "joint"])
def test_many_rows_some_of_which_do_not_count(estimator):
    """Chunks of the column sums get smaller, and more, when rows are masked."""
    visual, text = related(65_537, 64, 4)
    visual[77] = math.nan
    mask = torch.ones(65_537, dtype=torch.bool)
    mask[5] = False
    ours = mutual_information(visual, text, mask, estimator=estimator, threads=2)
    real = mask & torch.isfinite(visual).all(1)
    expected = mutual_information(visual[real], text, estimator=estimator)
    assert same_bits(ours[real], expected)


# ---- memory ----


@pytest.mark.parametrize(
    "n, m, d",
    [(576, 64, 4096), (2880, 64, 4096), (8192, 128, 3584), (64, 2000, 8192), (65536, 8192, 64)],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_workspace_without_redundancy(n, m, d, threads):
    """At most one N x M table of float32 and 16 MB."""
    assert _C.select_workspace_bytes(n, m, d, threads=threads) <= 4 * n * m + (16 << 20)


def test_workspace_with_redundancy_keeps_to_its_limit():
    without = _C.select_workspace_bytes(20_000, 64, 1024)
    greedy = _C.select_workspace_bytes(20_000, 64, 1024, redundancy=1.0)
    assert greedy - without <= (64 << 20) + (16 << 20)


def test_redundancy_is_not_worked_out_where_all_rows_stay():
    without = _C.select_workspace_bytes(3_000, 64, 256)
    assert _C.select_workspace_bytes(3_000, 64, 256, redundancy=1.0, k=3_000) == without
    assert _C.select_workspace_bytes(3_000, 64, 256, redundancy=1.0, k=2_999) > without
