"""Positions of kept tokens without the gaps that pruning leaves."""

import torch


def close_gaps(used: torch.Tensor, begin: torch.Tensor) -> torch.Tensor:
    """Leaves out the numbers that nobody uses: equal stay equal, and the order stays.

    On one axis this is contiguous numbering; a (t, h, w) grid stays a grid without its empty rows
    and columns.

    Args:
        used: integers of any shape, at least one: the positions of one prompt on all its axes.
        begin: the new smallest one.
    """
    return begin + torch.unique(used, return_inverse=True)[1].to(used.dtype)
