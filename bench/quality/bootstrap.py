"""Paired bootstrap over scenes: how sure a difference between two methods is.

Questions about one scene share its picture, so scenes are drawn, with all their questions, and both
methods are compared on the same draw (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993,
chapters 6 and 13: percentile intervals, cluster resampling).
"""

import numpy as np

DRAWS = 4000
_SEED = 20260401


def interval(values: np.ndarray, cluster: np.ndarray, share: float = 0.95) -> tuple[float, float]:
    """The interval of the mean of values.

    Args:
        values: float (Q), one per question: hits, or a difference of hits.
        cluster: int64 (Q), the scene of each.
        share: of the draws that lie within.
    """
    _, own = np.unique(cluster, return_inverse=True)
    sums = np.bincount(own, values)
    sizes = np.bincount(own)
    rng = np.random.default_rng(_SEED)
    times = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), DRAWS)
    means = (times @ sums) / (times @ sizes)
    low, high = np.quantile(means, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)
