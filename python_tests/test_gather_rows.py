"""gather_rows: kept rows by index, whatever a row is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mi_pruner_cuda import ops


@st.composite
def gathers(draw):
    """(rows, indices): any dtype, row shape, batch and layout."""
    dtype = draw(
        st.sampled_from(
            [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
        )
    )
    batch = draw(st.sampled_from([(), (1,), (3,)]))
    n = draw(st.integers(1, 30))
    row = draw(st.lists(st.integers(0, 9), max_size=2))
    rows = torch.randint(0, 200, (*batch, n, *row)).to(dtype)
    layout = draw(st.sampled_from(["contiguous", "transposed", "every other", "expanded"]))
    if layout == "transposed" and rows.dim() > 1:
        rows = rows.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "every other":
        rows = rows.repeat_interleave(2, dim=len(batch)).narrow(len(batch), 0, 2 * n)
        rows = rows[:, ::2] if batch else rows[::2]
    if layout == "expanded" and n > 1:
        rows = rows.narrow(len(batch), 0, 1).expand(*batch, n, *row)
    indices = torch.randint(-1, n, (*batch, draw(st.integers(0, 40))))
    return rows, indices


def expected_rows(rows, indices):
    if indices.dim() == 2:
        return torch.stack([expected_rows(r, i) for r, i in zip(rows, indices, strict=True)])
    out = rows[indices.clamp_min(0)]
    out[indices < 0] = 0
    return out


@given(problem=gathers())
def test_equals_indexing(problem):
    result = ops.gather_rows(*problem)
    assert torch.equal(result, expected_rows(*problem))
    assert result.is_contiguous() and result.dtype == problem[0].dtype


def test_marker_rows_of_a_selection_with_places_left_over():
    visual = torch.arange(5.0)[:, None].expand(5, 7) + 1  # row i is full of i + 1
    mask = torch.tensor([True, False, True, False, False])
    indices, _ = ops.select(visual, visual[:2], 4, visual_mask=mask)
    assert indices.tolist() == [0, 2, -1, -1]
    assert ops.gather_rows(visual, indices)[:, 0].tolist() == [1, 3, 0, 0]


def test_nothing_to_gather_and_nothing_to_gather_from():
    none = torch.empty(0, dtype=torch.int64)
    assert ops.gather_rows(torch.ones(3, 2), none).shape == (0, 2)
    assert ops.gather_rows(torch.ones(0, 2), none).shape == (0, 2)
    assert ops.gather_rows(torch.ones(0, 2), none - 1).shape == (0, 2)
    assert ops.gather_rows(torch.ones(0, 2), torch.tensor([-1])).tolist() == [[0, 0]]


ROWS = torch.ones(4, 3)


@pytest.mark.parametrize("index", [4, -2, 2**40])
def test_an_index_out_of_range_is_an_error(index):
    with pytest.raises(RuntimeError, match=f"indices: got {index}, allowed are 0 to 3, and -1"):
        ops.gather_rows(ROWS, torch.tensor([0, index]))


@pytest.mark.parametrize(
    ("rows", "indices", "error", "message"),
    [
        ([1.0], torch.tensor([0]), TypeError, "rows: got list"),
        (ROWS, [0], TypeError, "indices: got list"),
        (ROWS, torch.tensor([0], dtype=torch.int32), TypeError, "indices: got dtype torch.int32"),
        (ROWS, torch.tensor(0), ValueError, r"indices: got shape \(\), allowed is \(K\)"),
        (ROWS, torch.zeros(2, 1, dtype=torch.int64), ValueError, r"rows: got shape \(4, 3\)"),
        (torch.tensor(1.0), torch.tensor([0]), ValueError, r"rows: got shape \(\)"),
    ],
)
def test_bad_arguments_name_themselves(rows, indices, error, message):
    with pytest.raises(error, match=message):
        ops.gather_rows(rows, indices)
