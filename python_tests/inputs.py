"""Inputs for the selection tests: random, and as unpleasant as the contract allows."""

import math

import torch
from hypothesis import strategies as st
from kernels import DTYPES


def related(n, m, d, dtype=torch.float32, batch=(), seed=0):
    """Rows a quarter of which resemble a word: scores with a spread, as real ones have."""
    generator = torch.Generator().manual_seed(seed)
    visual = torch.randn(*batch, n, d, generator=generator)
    text = torch.randn(*batch, m, d, generator=generator)
    count = min(n // 4, m)
    visual[..., :count, :] += text[..., :count, :]
    order = torch.randperm(n, generator=generator)
    return visual[..., order, :].contiguous().to(dtype), text.to(dtype)


def _spoil(rows, generator, faults):
    """Overwrites some rows in place: zeros, copies, huge, tiny and not finite ones."""
    n = rows.shape[0]

    def some(share=4):
        return torch.randperm(n, generator=generator)[: max(1, n // share)]

    largest = torch.finfo(rows.dtype).max
    for fault in faults:
        if fault == "zero":
            rows[some()] = 0
        elif fault == "copies":
            rows[some(2)] = rows[int(torch.randint(n, (1,), generator=generator))].clone()
        elif fault == "huge":
            picked = some()
            scale = largest / rows[picked].double().abs().amax(-1, keepdim=True).clamp_min(1e-30)
            rows[picked] = (rows[picked].double() * scale).clamp(-largest, largest).to(rows.dtype)
        elif fault == "tiny":
            rows[some()] *= 1e-6
        elif fault == "nan":
            rows[some(), 0] = math.nan
        elif fault == "inf":
            rows[some(), -1] = -math.inf
    return rows


FAULTS = st.lists(
    st.sampled_from(["zero", "copies", "huge", "tiny", "nan", "inf"]), max_size=3, unique=True
)


@st.composite
def problems(draw, largest_n=80, faults=FAULTS, masks=True):
    """(visual, text, visual_mask, text_mask) of one item, any dtype."""
    dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
    n = draw(st.integers(1, largest_n))
    m = draw(st.integers(1, 70))
    d = draw(st.integers(1, 300))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    visual = torch.randn(n, d, generator=generator)
    text = torch.randn(m, d, generator=generator)
    visual[: n // 3] += text[torch.arange(n // 3) % m]
    visual = _spoil(visual.to(dtype), generator, draw(faults))
    text = _spoil(text.to(dtype), generator, draw(faults))
    visual_mask = text_mask = None
    if masks and draw(st.booleans()):
        visual_mask = torch.rand(n, generator=generator) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    if masks and draw(st.booleans()):
        text_mask = torch.rand(m, generator=generator) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    return visual, text, visual_mask, text_mask
