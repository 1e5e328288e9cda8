"""How many tokens to keep. Free of torch, so that an engine can size its placeholders with it."""

import math
from dataclasses import dataclass
from numbers import Integral

from . import _checks


def keep_count(n: int, ratio: float) -> int:
    """The number of rows that the ratio keeps of n: min(n, max(1, floor(ratio * n + 0.5))).

    A pure function of (n, ratio), the same in C, C++ and Python: an engine may size its
    placeholders before anything is encoded. Halves round up. n = 0 keeps 0.

    Raises:
        TypeError: n is no integer or ratio no number.
        ValueError: n < 0, or ratio outside (0, 1].
    """
    if not _checks.is_integer(n):
        raise TypeError(f"n: got {n!r}, allowed is an integer >= 0")
    if n < 0:
        raise ValueError(f"n: got {n}, allowed is an integer >= 0")
    if not _checks.is_number(ratio):
        raise TypeError(f"ratio: got {ratio!r}, allowed is a number in (0, 1]")
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio: got {ratio}, allowed is a number in (0, 1]")
    return min(int(n), max(1, math.floor(float(ratio) * n + 0.5)))


@dataclass(frozen=True)
class Mass:
    """A budget by information: the fewest rows whose relevance adds up to `share` of the total.

    Negative scores count as 0. The count depends on the data, which rules out whatever must know it
    beforehand: CUDA graphs, pre-sized placeholders, batches of one width.
    """

    share: float

    def __post_init__(self):
        if not _checks.is_number(self.share):
            raise TypeError(f"Mass(share): got {self.share!r}, allowed is a number in (0, 1]")
        if not 0 < self.share <= 1:
            raise ValueError(f"Mass(share): got {self.share}, allowed is a number in (0, 1]")

    def count(self, scores) -> int:
        """The smallest K >= 1 whose K largest scores (a 1-D sequence, nats) reach the share."""
        gains = sorted((max(0.0, float(s)) for s in scores), reverse=True)
        goal = self.share * math.fsum(gains)
        kept = 0.0
        for k, gain in enumerate(gains, start=1):
            kept += gain
            if kept >= goal:
                return k
        return max(1, sum(g > 0 for g in gains))  # rounding kept the sum just below the goal


def resolve(keep, n: int) -> int:
    """An exact count from keep: an int >= 1 (at most n) or a float ratio in (0, 1]."""
    if not _checks.is_number(keep):
        raise TypeError(
            f"keep: got {keep!r}, allowed is a ratio in (0, 1], a count >= 1 or Mass(share)"
        )
    if isinstance(keep, Integral):
        if keep < 1:
            raise ValueError(f"keep: got {keep}, allowed is a count >= 1 or a ratio in (0, 1]")
        return min(int(keep), n)
    if not 0 < keep <= 1:
        raise ValueError(f"keep: got {keep}, allowed is a ratio in (0, 1] or an integer count >= 1")
    return keep_count(n, keep)
