"""The four estimators where no rank sees all visual rows.

What they need of the other ranks is one number per text row: the logarithm of a sum over all visual
rows, which is a log-sum-exp of the ranks' own log-sum-exps. Everything is computed in float64: it
costs no traffic to speak of, is the same under autocast and TF32, and equal rows score the same
float32 on whichever rank they are.
"""

import math
from collections.abc import Callable

import torch

from .. import reference

_BLOCK = 1024  # rows made float64 at once

# (n, M) -> (M): the log-sum-exp over the rows of all ranks.
LogTotals = Callable[[torch.Tensor], torch.Tensor]


def cosines(visual: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """s_ij of finite rows: (n, D), (M, D) -> float64 (n, M)."""
    words = reference.normalize(text.double())
    table = words.new_empty(visual.shape[0], words.shape[0])
    for begin in range(0, visual.shape[0], _BLOCK):
        rows = reference.normalize(visual[begin : begin + _BLOCK].double())
        table[begin : begin + _BLOCK] = rows @ words.T
    return table


def relevance(
    table: torch.Tensor, n: int, temperature: float, estimator: str, log_totals: LogTotals
) -> torch.Tensor:
    """Scores of this rank's rows, in nats ("cosine": the cosine itself).

    Args:
        table: cosines, float64 (rows of this rank, M), M >= 1.
        n: the rows of all ranks.
        log_totals: asks the other ranks, once. Not called for "cosine".

    Returns:
        float64 (rows of this rank).
    """
    if estimator == "cosine":
        return table.amax(1)
    logits = table / temperature
    words = table.shape[1]
    log_n = math.log(max(n, 1))
    if estimator == "joint":
        return _joint(logits, log_totals(logits))
    if estimator == "specific" and words > 1:
        log_p = torch.log_softmax(logits, 1)  # log P(t_j|v_i)
        log_prior = log_totals(log_p) - log_n  # log P(t_j)
        return (log_p.exp() * (log_p - log_prior)).sum(1)
    log_p = logits - log_totals(logits)  # log P(v_i|t_j)
    if estimator == "specific":
        # The specific information of a single word is identically 0: log[N P(v_i|t)] instead.
        return log_p[:, 0] + log_n
    return (log_p.exp() * (log_p + log_n)).sum(1) / words


def _joint(logits: torch.Tensor, totals: torch.Tensor) -> torch.Tensor:
    """One softmax over the table of all ranks; its column sums give the whole sum as well."""
    whole = totals.logsumexp(0)
    log_p = logits - whole  # log P_ij
    marginals = log_p.logsumexp(1, keepdim=True) + (totals - whole)
    return (log_p.exp() * (log_p - marginals)).sum(1)
