"""Greedy selection with redundancy, and its text-free mode."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from inputs import problems, related
from kernels import CUDA_LEVEL, DTYPES, LEVELS, at_level, same_bits, select

from mi_pruner_cuda import reference

dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


def exact(visual, text, k, *masks, **options):
    return reference.select(visual.double(), text.double(), k, *masks, **options)[0]


@dtypes
@pytest.mark.parametrize("redundancy", [0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize(
    "n, m, d, k", [(2, 2, 3, 1), (60, 5, 24, 20), (150, 9, 64, 149), (300, 4, 30, 60)]
)
def test_agrees_with_the_reference(level, dtype, redundancy, n, m, d, k):
    visual, text = related(n, m, d, dtype)
    indices, _ = select(visual, text, k, redundancy=redundancy)
    assert torch.equal(indices, exact(visual, text, k, redundancy=redundancy))


@dtypes
@pytest.mark.parametrize("n, k", [(1, 1), (2, 1), (3, 2), (120, 30)])
def test_text_free_mode_agrees_with_the_reference(level, dtype, n, k):
    visual, text = related(n, 3, 40, dtype)
    indices, scores = select(visual, text[:0], k, redundancy=0.7)
    assert torch.equal(indices, exact(visual, text[:0], k, redundancy=0.7))
    assert (scores == 0).all()


def test_the_first_text_free_choice_is_the_most_representative_row(level):
    """One row is the centre of a cluster, the others point elsewhere."""
    visual = torch.randn(40, 64)
    centre = torch.randn(64)
    visual[10:25] = centre + 0.7 * torch.randn(15, 64)
    visual[17] = centre
    indices, _ = select(visual, visual[:0], 1, redundancy=1.0)
    assert indices.tolist() == [17]


def test_no_words_left_by_the_mask_is_text_free(level):
    visual, text = related(50, 4, 20)
    none = torch.zeros(4, dtype=torch.bool)
    masked, _ = select(visual, text, 12, None, none, redundancy=0.5)
    assert torch.equal(masked, select(visual, text[:0], 12, redundancy=0.5)[0])


@pytest.mark.parametrize("text_rows", [6, 0])
@pytest.mark.parametrize("cached_rows", [1, 2, 7, 64, 130, 699])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_recomputed_rows_give_the_same_bits(level, dtype, cached_rows, text_rows):
    """Below the limit for all similarities, rows are cached, evicted and computed again."""
    n, k = 700, 12 if level == CUDA_LEVEL else 150  # steps are slow to emulate
    visual, text = related(n, 6, 20, dtype)
    text = text[:text_rows]
    stored, _ = select(visual, text, k, redundancy=0.6)
    limited, _ = select(visual, text, k, redundancy=0.6, similarity_bytes=cached_rows * n * 4)
    assert torch.equal(stored, limited)


def test_more_rows_than_the_default_limit_holds():
    """4,097 rows have more similarities than 64 MB: the streaming path, as users meet it."""
    visual, text = related(4097, 3, 8)
    indices, _ = select(visual, text, 40, redundancy=0.5, threads=2)
    everything, _ = select(visual, text, 40, redundancy=0.5, threads=2, similarity_bytes=1 << 28)
    assert torch.equal(indices, everything)


@given(problem=problems(), share=st.floats(0.01, 1.0), level=st.sampled_from(LEVELS))
def test_threads_and_limits_change_no_bit(problem, share, level):
    visual, text, visual_mask, text_mask = problem
    k = max(1, int(share * visual.shape[0]))
    options = {"redundancy": 0.8}
    with at_level(level):
        one = select(visual, text, k, visual_mask, text_mask, **options)
        for other in ({"threads": 3}, {"similarity_bytes": 0}):
            again = select(visual, text, k, visual_mask, text_mask, **options, **other)
            assert same_bits(one[0], again[0]) and same_bits(one[1], again[1])


def test_a_vanishing_redundancy_is_the_top_k(level):
    visual, text = related(200, 8, 32)
    expected, _ = select(visual, text, 50)
    assert torch.equal(select(visual, text, 50, redundancy=1e-12)[0], expected)


def test_gains_never_grow():
    """Diminishing returns (submodularity): what makes greedy selection near-optimal."""
    visual, text = related(80, 6, 32)
    relevance = reference.mutual_information(visual.double(), text.double())
    table = reference.redundancy_table(visual.double())
    assert (table >= 0).all() and (table.diagonal() == 0).all()
    chosen = reference.greedy(visual.double(), relevance, 80, 1.0)
    gains = [relevance[i] - table[i, chosen[:step]].sum() for step, i in enumerate(chosen)]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(gains))


def test_copies_of_a_row_are_not_all_kept(level):
    """Ten copies of the most relevant row are all in the top, but not in a greedy choice."""
    visual, text = related(200, 5, 48)
    best = select(visual, text, 1)[0].item()
    copies = torch.arange(40, 50)
    visual[copies] = visual[best].clone()
    count = {
        lam: torch.isin(select(visual, text, 20, redundancy=lam)[0], copies).sum().item()
        for lam in (0.0, 1.0)
    }
    assert count[0.0] == 10
    assert count[1.0] <= 5


def test_a_huge_redundancy_still_keeps_k_distinct_rows(level):
    visual, text = related(60, 5, 12)
    indices, _ = select(visual, text, 30, redundancy=3e38)
    assert indices.unique().numel() == 30
