"""select_varlen: images of different sizes in one call are what each would be alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from inputs import related
from kernels import DTYPES, ESTIMATORS, same_bits

from mi_pruner_cuda import ops

dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


@st.composite
def packed(draw):
    """Arguments of one call: images of 0 to 40 rows, questions that may be shared or overlap."""
    dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
    sizes = draw(st.lists(st.integers(0, 40), min_size=1, max_size=6))
    words = draw(st.integers(1, 12))
    visual, text = related(sum(sizes) + 3, words, draw(st.integers(1, 70)), dtype, seed=len(sizes))
    begin = draw(st.integers(0, 3))  # rows before the first image belong to none
    offsets = torch.tensor([begin, *(begin + torch.tensor(sizes).cumsum(0)).tolist()])
    ranges = []
    for _ in sizes:
        first = draw(st.integers(0, words - 1))
        ranges.append([first, draw(st.integers(first + 1, words))])
    k = [draw(st.integers(1, 45)) for _ in sizes]
    return visual, text, offsets, torch.tensor(ranges), k


def one_by_one(visual, text, offsets, ranges, k, **options):
    indices = []
    scores = torch.full((len(visual),), -torch.inf)
    for s, count in enumerate(k):
        first, last = offsets[s : s + 2].tolist()
        words = slice(*ranges[s].tolist())
        if first == last:
            indices.append(torch.full((count,), -1))
            continue
        kept, scores[first:last] = ops.select(visual[first:last], text[words], count, **options)
        missing = torch.full((count - kept.numel(),), -1)
        indices.append(torch.cat([kept + first, missing]))
    return torch.cat(indices), scores


@given(
    problem=packed(),
    redundancy=st.sampled_from([0.0, 0.7]),
    coverage=st.sampled_from([0.0, 0.5, 1.0]),
    estimator=st.sampled_from(ESTIMATORS),
)
def test_every_segment_is_what_it_would_be_alone_bit_for_bit(
    problem, redundancy, coverage, estimator
):
    options = {"redundancy": redundancy, "coverage": coverage, "estimator": estimator}
    options["temperature"] = 0.2
    indices, scores = ops.select_varlen(*problem, **options)
    expected_indices, expected_scores = one_by_one(*problem, **options)
    assert torch.equal(indices, expected_indices)
    assert same_bits(scores, expected_scores)


@dtypes
def test_equal_segments_are_a_batch(dtype):
    visual, text = related(30, 5, 40, dtype, batch=(4,))
    offsets = torch.arange(0, 121, 30)
    ranges = torch.tensor([[5 * s, 5 * s + 5] for s in range(4)])
    indices, scores = ops.select_varlen(
        visual.flatten(0, 1), text.flatten(0, 1), offsets, ranges, [7] * 4
    )
    expected_indices, expected_scores = ops.select(visual, text, 7)
    assert torch.equal(indices.view(4, 7) - offsets[:4, None], expected_indices)
    assert same_bits(scores.view(4, 30), expected_scores)


def test_strided_rows_and_numbers():
    visual, text = related(60, 6, 32)
    arguments = (torch.tensor([0, 25, 60]), torch.tensor([[0, 6], [2, 4]]), [4, 9])
    expected = ops.select_varlen(visual, text, *arguments)
    wide = torch.cat([visual, visual], 1)[:, :32]
    offsets = arguments[0].repeat_interleave(2)[::2]
    ranges = arguments[1].T.contiguous().T
    result = ops.select_varlen(wide, text, offsets, ranges, arguments[2])
    assert torch.equal(result[0], expected[0]) and same_bits(result[1], expected[1])


def test_a_segment_without_text_is_selected_by_redundancy_alone():
    visual, text = related(50, 6, 32)
    ranges = torch.tensor([[0, 6], [3, 3]])
    indices, scores = ops.select_varlen(
        visual, text, torch.tensor([0, 20, 50]), ranges, [5, 5], redundancy=1.0
    )
    assert torch.equal(indices[5:] - 20, ops.select(visual[20:], text[:0], 5, redundancy=1.0)[0])
    assert (scores[20:] == 0).all()


def test_no_segments_and_empty_ones():
    visual, text = related(10, 3, 8)
    none = torch.empty(0, 2, dtype=torch.int64)
    indices, scores = ops.select_varlen(visual, text, torch.tensor([0]), none, [])
    assert indices.numel() == 0 and (scores == -torch.inf).all() and scores.shape == (10,)
    indices, scores = ops.select_varlen(
        visual, text, torch.tensor([4, 4, 10]), torch.tensor([[0, 3], [0, 3]]), [2, 1]
    )
    assert indices[:2].tolist() == [-1, -1] and indices[2] >= 4
    assert (scores[:4] == -torch.inf).all()


VISUAL, TEXT = related(10, 3, 8)
GOOD = {
    "visual": VISUAL,
    "text": TEXT,
    "visual_offsets": torch.tensor([0, 4, 10]),
    "text_ranges": torch.tensor([[0, 3], [0, 2]]),
    "k": [2, 3],
}
BAD = [
    ({"visual": VISUAL[None]}, "dimensions"),
    ({"visual": VISUAL[None], "text": TEXT[None]}, r"visual: got shape \(1, 10, 8\)"),
    ({"visual_offsets": torch.tensor([0, 4])}, r"visual_offsets: got shape \(2,\)"),
    ({"visual_offsets": torch.tensor([0, 4, 11])}, "visual_offsets: got .* 10 rows of visual"),
    ({"visual_offsets": torch.tensor([0, 7, 4])}, "visual_offsets: got .* ascending"),
    ({"visual_offsets": torch.tensor([-1, 4, 10])}, "visual_offsets: got .* ascending"),
    ({"text_ranges": torch.tensor([[0, 3]])}, r"text_ranges: got shape \(1, 2\)"),
    ({"text_ranges": torch.tensor([[0, 3], [2, 1]])}, "text_ranges: got .* begin <= end"),
    ({"text_ranges": torch.tensor([[0, 4], [0, 2]])}, "text_ranges: got .* 3 rows of text"),
    ({"text_ranges": torch.tensor([[0, 3], [2, 2]])}, "redundancy: got 0 with an empty text"),
    ({"k": [2, 0]}, r"k\[1\]: got 0"),
    ({"k": [2**62, 2**62]}, "k: got .* in all"),
    ({"temperature": 0.0}, "temperature: got 0.0"),
    ({"redundancy": -1.0}, "redundancy: got -1.0"),
    ({"coverage": 1.5}, r"coverage: got 1.5, allowed is \[0, 1\]"),
    ({"estimator": "best"}, "estimator: got 'best'"),
]
WRONG_TYPES = [
    ({"visual_offsets": torch.tensor([0, 4, 10], dtype=torch.int32)}, "visual_offsets: got dtype"),
    ({"text_ranges": torch.tensor([[0.0, 3], [0, 2]])}, "text_ranges: got dtype"),
    ({"text_ranges": [[0, 3], [0, 2]]}, "text_ranges: got list"),
    ({"k": 5}, "k: got int"),
    ({"k": [2, 1.5]}, r"k\[1\]: got 1.5"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_values_name_the_argument(change, message):
    with pytest.raises(ValueError, match=message):
        ops.select_varlen(**{**GOOD, **change})


@pytest.mark.parametrize(("change", "message"), WRONG_TYPES)
def test_wrong_types_name_the_argument(change, message):
    with pytest.raises(TypeError, match=message):
        ops.select_varlen(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [pair for pair in BAD if set(pair[0]) & {"visual_offsets", "text_ranges"}]
    + [({"k": [2, 0]}, "k: got 0"), ({"k": [2]}, "length of k")]
    + [({"coverage": -0.5}, "coverage: got -0.5")],
)
def test_the_operator_itself_checks_too(change, message):
    message = message.replace(r"\(", r"\[").replace(r"\)", r"\]").replace(",\\]", r"\]")
    message = "text_ranges: got no row" if "empty text" in message else message
    with pytest.raises(RuntimeError, match=message):
        torch.ops.mipruner.select_varlen(**{**GOOD, **change})
