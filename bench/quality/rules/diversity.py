"""Rules of diversity: they do not look at the question."""

import math

import torch

from .contract import Sight, rule
from .numbers import cosines, greedy, highest, settled, without


@rule("DivPrune", "2503.02175")
def divprune(sight: Sight, k: int, generator) -> torch.Tensor:
    """The subset whose closest pair is farthest apart, greedily.

    Alvar et al., "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models"
    (arXiv 2503.02175), the max-min diversity problem of equation 3 with the cosine distance
    d(a, b) = 1 - cos(a, b) of equation 4, solved as in algorithm 1: first the row whose nearest
    other row is farthest, then, k - 1 times, the row whose nearest chosen row is farthest. The
    equations were checked against a summary of the paper, not against its own text.

    Left open: ties (lower index) and zero rows, which are at distance 1 from every row.
    """
    distance = 1 - cosines(sight.visual, sight.visual)
    nearest = distance.fill_diagonal_(math.inf).amin(1)
    distance.fill_diagonal_(-math.inf)  # a chosen row is nearest to itself, and never chosen again

    def after(nearest: torch.Tensor, best: torch.Tensor, count: int) -> torch.Tensor:
        row = distance.index_select(0, best)[0]
        return row if count == 1 else torch.minimum(nearest, row)

    return greedy(k, nearest, after)


@rule("DART", "2502.11494")
def dart(sight: Sight, k: int, generator, pivots: int = 8) -> torch.Tensor:
    """Pivots, and the rows that duplicate them least.

    Wen et al., "Stop Looking for Important Tokens in Multimodal Language Models: Duplication
    Matters More" (arXiv 2502.11494), definitions 1 and 2 of section 3.3: dup(p, x) = cos(p, x), a
    pivot p retains R_p = {x : dup(p, x) <= epsilon_p}, and the pivots and the union of all R_p
    stay. Table 1: 8 pivots, those of the largest key norm, after the second layer of the language
    model.

    Left open and decided: here no layer has run, so the pivots are the rows of the largest L1 norm
    among the projector's. epsilon_p is "dynamically determined for each pivot based on reduction
    ratio": it lets every pivot retain the same number of rows, the smallest for which the union
    holds k; of the last row of each, those of the earlier (longer) pivots stay. With k < 8 there
    are k pivots and nothing else. All pivots are visual rows.
    """
    count = min(pivots, k)
    pivot = highest(settled(sight.visual.abs().sum(1)), count)
    others = without(pivot, sight.visual.shape[0])
    least = cosines(sight.visual[pivot], sight.visual[others]).argsort(dim=1, stable=True)
    turns = torch.arange(least.numel(), device=least.device).view(len(others), count).T
    # Each row's first turn: pivots take rows in turn, each its least similar one that is left.
    turn = torch.empty_like(least).scatter_(1, least, turns).amin(0)
    return torch.cat([pivot, others[turn.argsort()[: k - count]]])
