"""Arithmetic that several rules share."""

from collections.abc import Callable

import torch

# Equal rows must tie, but a matrix product may round them differently. In double precision cosines
# are rounded to this many decimals, and values that differ by at most SLACK are equal. Float32 is
# for timing: nothing is rounded there, and torch decides between equal values.
DECIMALS = 12
SLACK = 1e-10


def settled(values: torch.Tensor) -> torch.Tensor:
    """Without the last digits, on which equal rows may differ; of float32 as it is."""
    return values.round(decimals=DECIMALS) if values.dtype == torch.float64 else values


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Rows of length 1; a zero row stays zero."""
    norm = rows.norm(dim=-1, keepdim=True)
    return rows / torch.where(norm > 0, norm, 1.0)


def cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(A, D), (B, D) -> (A, B). A zero row has cosine 0 with every row, itself too."""
    left = unit(a)
    return settled(left @ (left if b is a else unit(b)).T)


def highest(values: torch.Tensor, k: int) -> torch.Tensor:
    """int64 (k): the places of the k largest, the largest first, ties to the lower index."""
    if values.dtype == torch.float64:
        return values.argsort(descending=True, stable=True)[:k]
    return values.topk(k).indices


def first_best(values: torch.Tensor) -> torch.Tensor:
    """int64 (1): the place of the largest value; of those equal up to SLACK the lowest place."""
    if values.dtype == torch.float64:
        values = (values >= values.max() - SLACK).view(torch.uint8)
    return values.argmax(0, keepdim=True)


def greedy(
    k: int,
    gains: torch.Tensor,
    after: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor],
) -> torch.Tensor:
    """k times the row with the largest gain, given those chosen before. int64 (k), in that order.

    Nothing here waits for the device.

    Args:
        gains: (N), before any row is chosen.
        after: (gains, the row just chosen: int64 (1), how many are chosen) -> gains (N) given
            those, -inf for each of them. It may change what it is given.
    """
    chosen = [first_best(gains)]
    while len(chosen) < k:
        gains = after(gains, chosen[-1], len(chosen))
        chosen.append(first_best(gains))
    return torch.cat(chosen)


def without(taken: torch.Tensor, n: int) -> torch.Tensor:
    """int64: those of n rows that are not taken, ascending."""
    left = torch.ones(n, dtype=torch.bool, device=taken.device)
    left[taken] = False
    return left.nonzero()[:, 0]
