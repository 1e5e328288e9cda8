"""coverage: part of the budget spread evenly over the rows, whatever they hold.

The rule is reference.coverage_positions; everything else follows from it and from select without
coverage. Each test runs at every CPU level and on the emulated CUDA device.
"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from inputs import problems, related
from kernels import CUDA_LEVEL, DTYPES, ESTIMATORS, LEVELS, at_level, same_bits, select

from mi_pruner_cuda import reference

any_level = st.sampled_from(LEVELS)
redundancies = pytest.mark.parametrize("redundancy", [0.0, 0.7])
shares = st.one_of(st.sampled_from([0.3, 0.5, 1.0]), st.floats(0, 1))


def counting(visual, mask=None):
    """The rows that count, ascending."""
    finite = torch.isfinite(visual).all(1)
    return (finite if mask is None else finite & mask).nonzero()[:, 0]


def covered_rows(visual, mask, k, coverage):
    rows = counting(visual, mask)
    n = len(rows)
    return rows[reference.coverage_positions(n, reference.coverage_count(coverage, k, n))]


# ---- the positions ----


@given(n=st.integers(1, 3000), share=st.floats(0, 1))
def test_one_position_of_each_of_equal_runs(n, share):
    count = int(share * n)
    positions = reference.coverage_positions(n, count)
    assert len(positions) == count
    for j, position in enumerate(positions):
        assert j * n // count <= position < (j + 1) * n // count


def test_positions_by_hand():
    assert reference.coverage_positions(20, 0) == []
    assert reference.coverage_positions(7, 7) == [0, 1, 2, 3, 4, 5, 6]
    # Runs of 5: from their middle on by the golden ratio, 0.5, 0.118, 0.736, 0.354 of 5.
    assert reference.coverage_positions(20, 4) == [2, 5, 13, 16]
    # Runs [0, 3), [3, 6), [6, 10).
    assert reference.coverage_positions(10, 3) == [1, 3, 8]


@pytest.mark.parametrize("width", [16, 24, 27])
def test_positions_do_not_line_up_in_a_grid(width):
    """A row of each line of the grid: in most columns, and in no column more than three times."""
    columns = [p % width for p in reference.coverage_positions(width * width, width)]
    assert len(set(columns)) > width / 2
    assert max(columns.count(c) for c in columns) <= 3


# ---- select ----


@given(
    problem=problems(),
    share=st.floats(0, 1.2),
    coverage=shares,
    level=any_level,
    estimator=st.sampled_from(ESTIMATORS),
)
def test_without_redundancy_the_best_of_the_others_follow(
    problem, share, coverage, level, estimator
):
    visual, text, mask, text_mask = problem
    k = max(1, int(share * len(visual)))
    options = {"estimator": estimator}
    with at_level(level):
        indices, scores = select(visual, text, k, mask, text_mask, coverage=coverage, **options)
        plain, plain_scores = select(visual, text, k, mask, text_mask, **options)
    assert same_bits(scores, plain_scores)
    rows = counting(visual, mask)
    if k >= len(rows):
        assert same_bits(indices, plain)
        return
    covered = covered_rows(visual, mask, k, coverage)
    others = rows[~torch.isin(rows, covered)]
    best = others[reference.top_k(scores[others], k - len(covered))[1]]
    assert torch.equal(indices, torch.cat([covered, best]).sort().values)


@given(
    problem=problems(),
    share=st.floats(0, 1),
    redundancy=st.sampled_from([0.0, 0.7]),
    level=any_level,
)
def test_all_of_the_budget_is_the_positions_alone(problem, share, redundancy, level):
    visual, text, mask, text_mask = problem
    rows = counting(visual, mask)
    k = max(1, int(share * (len(rows) - 1)))
    if k >= len(rows):
        return
    options = {"redundancy": redundancy, "coverage": 1.0}
    with at_level(level):
        indices, _ = select(visual, text, k, mask, text_mask, **options)
    assert torch.equal(indices, rows[reference.coverage_positions(len(rows), k)])


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("coverage", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("n, m, d, k", [(60, 5, 24, 20), (150, 9, 64, 149), (300, 4, 30, 60)])
def test_greedy_goes_on_after_them_as_the_reference_does(level, dtype, coverage, n, m, d, k):
    visual, text = related(n, m, d, dtype)
    mask = torch.ones(n, dtype=torch.bool)
    mask[7::10] = False
    for masks, words in (((), text), ((mask,), text), ((), text[:0])):
        options = {"redundancy": 0.7, "coverage": coverage}
        indices, _ = select(visual, words, k, *masks, **options)
        expected, _ = reference.select(visual.double(), words.double(), k, *masks, **options)
        assert torch.equal(indices, expected)


def test_copies_of_covered_rows_are_redundant(level):
    """The relevance of a row that a covered row repeats counts for less, as after any choice."""
    visual, text = related(200, 5, 48)
    best = select(visual, text, 1)[0].item()
    covered = covered_rows(visual, None, 8, 0.5)
    visual[covered] = visual[best].clone()
    kept, _ = select(visual, text, 8, redundancy=1.0, coverage=0.5)
    assert torch.isin(covered, kept).all()
    assert best not in kept
    assert best in select(visual, text, 8, redundancy=0.0, coverage=0.5)[0]


def test_text_free_selection_begins_with_them(level):
    visual, text = related(120, 3, 40)
    nothing = text[:0]
    first = select(visual, nothing, 1, redundancy=0.7)[0]
    # A share that rounds to no row leaves the most representative one.
    assert torch.equal(select(visual, nothing, 1, redundancy=0.7, coverage=0.49)[0], first)
    # A half of one row is one.
    alone, _ = select(visual, nothing, 1, redundancy=0.7, coverage=0.5)
    assert alone.tolist() == reference.coverage_positions(120, 1) != first.tolist()


@redundancies
def test_rows_that_do_not_count_are_not_covered(level, redundancy):
    visual, text = related(90, 5, 20)
    options = {"redundancy": redundancy, "coverage": 0.5}
    real = torch.arange(90)[torch.arange(90) % 4 != 1]
    mask = torch.zeros(90, dtype=torch.bool)
    mask[real] = True
    expected, _ = select(visual[real], text, 30, **options)
    assert torch.equal(select(visual, text, 30, mask, **options)[0], real[expected])
    visual[~mask, 3] = math.nan
    assert torch.equal(select(visual, text, 30, **options)[0], real[expected])


@redundancies
def test_broken_rows_come_after_all_others(level, redundancy):
    visual, text = related(8, 3, 10)
    visual[[1, 4, 6]] = math.nan
    indices, _ = select(visual, text, 6, redundancy=redundancy, coverage=1.0)
    assert indices.tolist() == [0, 1, 2, 3, 5, 7]


@redundancies
def test_ties_go_to_the_lower_of_the_other_rows(level, redundancy):
    visual, text = related(1, 5, 20)
    indices, _ = select(visual.repeat(50, 1), text, 7, redundancy=redundancy, coverage=0.4)
    assert indices.tolist() == sorted([*reference.coverage_positions(50, 3), 0, 1, 2, 3])


@pytest.mark.parametrize("text_rows", [6, 0])
@pytest.mark.parametrize("cached_rows", [1, 2, 64, 130, 699])
def test_recomputed_rows_give_the_same_bits(level, cached_rows, text_rows):
    n, k = 700, 12 if level == CUDA_LEVEL else 150  # steps are slow to emulate
    visual, text = related(n, 6, 20)
    options = {"redundancy": 0.6, "coverage": 0.5}
    stored, _ = select(visual, text[:text_rows], k, **options)
    options["similarity_bytes"] = cached_rows * n * 4
    assert torch.equal(stored, select(visual, text[:text_rows], k, **options)[0])


def test_a_long_image_of_which_many_rows_are_covered():
    """More positions than a block has threads, more rows than keys fit shared memory."""
    visual, text = related(25_000, 3, 4)
    results = {}
    for level in ("baseline", CUDA_LEVEL):
        with at_level(level):
            results[level], _ = select(visual, text, 9000, coverage=0.5)
    covered = torch.tensor(reference.coverage_positions(25_000, 4500))
    assert torch.isin(covered, results[CUDA_LEVEL]).all()
    # But for scores that differ in their last bits.
    assert torch.isin(results[CUDA_LEVEL], results["baseline"]).sum() >= 8990


@given(
    problem=problems(),
    redundancy=st.sampled_from([0.0, 0.7]),
    coverage=shares,
    threads=st.integers(2, 4),
    level=any_level,
)
def test_neither_threads_nor_the_rest_of_a_batch_change_a_bit(
    problem, redundancy, coverage, threads, level
):
    visual, text, *masks = problem
    k = max(1, len(visual) // 3)
    options = {"redundancy": redundancy, "coverage": coverage}

    def doubled(rows):
        return None if rows is None else torch.stack([rows, rows.flip(0)])

    with at_level(level):
        alone = select(visual, text, k, *masks, **options)
        threaded = select(visual, text, k, *masks, threads=threads, **options)
        batch = select(doubled(visual), doubled(text), k, *map(doubled, masks), **options)
    for one, other, together in zip(alone, threaded, batch, strict=True):
        assert same_bits(one, other) and same_bits(one, together[0].clone())
