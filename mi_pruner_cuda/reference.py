"""The method in plain PyTorch: the oracle that every kernel is tested against.

Nothing here is fast and everything is meant to be read beside the method's equations. Rows that do
not count (masked, or holding NaN or Inf) are removed first, so each formula sees only rows that do.
Compute in float64 by passing float64 tensors; float16 and bfloat16 are computed in float32.

Source: Li, Tiulpin, Blaschko, "MI-Pruner: Crossmodal Mutual Information-guided Token Pruner for
Efficient MLLMs" (arXiv 2604.03072). The equations were reconstructed from the paper's abstract and
summaries.
"""

import itertools
import math

import torch

ESTIMATORS = ("specific", "posterior", "joint", "cosine")


def normalize(x: torch.Tensor, eps: float = 1e-12) -> torch.Tensor:
    """Rows of unit length, x / max(||x||, eps).

    Args:
        x: (..., D), any floating dtype; computed in float32 or wider, returned in x's dtype.
        eps: norms below it count as eps, so that a zero row stays zero.

    Returns:
        (..., D). A row that holds NaN or Inf is NaN throughout.
    """
    wide = _wide(x)
    # Divide by the largest magnitude first: squares of 1e30 overflow float32.
    largest = wide.abs().amax(-1, keepdim=True) if x.shape[-1] else wide.sum(-1, keepdim=True)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    norm = (wide / scale).norm(dim=-1, keepdim=True)
    # norm * scale is the length; dividing in two steps keeps both factors in range.
    unit = (wide / scale) / torch.maximum(norm, eps / scale)
    unit = torch.where(torch.isfinite(wide).all(-1, keepdim=True), unit, math.nan)
    return unit.to(x.dtype)


def apply_critic(critic: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """A^T t of unit text rows t, so that <v, A^T t> = <A v, t>: text rows to compare with.

    Args:
        critic: A, (D, D), any floating dtype.
        text: (.., D); computed in float32 or wider, returned in its dtype.

    Returns:
        (.., D), unit rows: their length does not count, and half types hold any scale of A.
    """
    wide = torch.promote_types(_wide(text).dtype, critic.dtype)
    return normalize(_product(normalize(text.to(wide)), critic.to(wide))).to(text.dtype)


def mutual_information(
    visual: torch.Tensor,
    text: torch.Tensor,
    visual_mask: torch.Tensor | None = None,
    text_mask: torch.Tensor | None = None,
    temperature: float = 0.1,
    estimator: str = "specific",
) -> torch.Tensor:
    """Relevance of each visual row for the text rows, in nats ("cosine": the cosine itself).

    Args:
        visual: (N, D) or (B, N, D).
        text: (M, D) or (B, M, D).
        visual_mask: bool (N) or (B, N), True where the row counts.
        text_mask: bool (M) or (B, M).
        temperature: tau > 0, divides the cosines.
        estimator: one of ESTIMATORS.

    Returns:
        (N) or (B, N), float32 (float64 for float64 input). Rows that do not count score -inf. With
        no text row that counts every other row scores 0.
    """
    if visual.dim() == 3:
        scores = [
            mutual_information(
                visual[b],
                text[b],
                _item(visual_mask, b),
                _item(text_mask, b),
                temperature,
                estimator,
            )
            for b in range(visual.shape[0])
        ]
        return torch.stack(scores) if scores else _wide(visual).new_empty(visual.shape[:2])
    rows = _counted(visual, visual_mask)
    words = _counted(text, text_mask)
    scores = _wide(visual).new_full((visual.shape[0],), -math.inf)
    if rows.any():
        scores[rows] = _relevance(visual[rows], text[words], temperature, estimator)
    return scores


def _relevance(visual, text, temperature, estimator):
    """The four estimators on rows that all count: (N, D), (M, D) -> (N)."""
    n, m = visual.shape[0], text.shape[0]
    if m == 0:
        return _wide(visual).new_zeros(n)
    cosines = _product(normalize(_wide(visual)), normalize(_wide(text)).T)  # s_ij
    if estimator == "cosine":
        return cosines.amax(1)
    logits = cosines / temperature
    if estimator == "specific" and m == 1:
        # The specific information of a single word is identically 0: use log[N P(v_i|t)] instead.
        return torch.log_softmax(logits[:, 0], 0) + math.log(n)
    if estimator == "specific":
        log_p = torch.log_softmax(logits, 1)  # log P(t_j|v_i)
        log_prior = torch.logsumexp(log_p, 0) - math.log(n)  # log P(t_j)
        return (log_p.exp() * (log_p - log_prior)).sum(1)
    if estimator == "posterior":
        log_p = torch.log_softmax(logits, 0)  # log P(v_i|t_j)
        return (log_p.exp() * (log_p + math.log(n))).sum(1) / m
    if estimator == "joint":
        log_p = torch.log_softmax(logits.flatten(), 0).view(n, m)  # log P_ij
        marginals = torch.logsumexp(log_p, 1, keepdim=True) + torch.logsumexp(
            log_p, 0, keepdim=True
        )
        return (log_p.exp() * (log_p - marginals)).sum(1)
    raise ValueError(f"estimator: got {estimator!r}, allowed are {', '.join(ESTIMATORS)}")


def redundancy_table(visual: torch.Tensor, temperature: float = 0.1) -> torch.Tensor:
    """r_ik = max(0, P(v_k|v_i) log[N P(v_k|v_i)]) with r_ii = 0, for (N, D) rows that all count."""
    unit = normalize(_wide(visual))
    logits = _product(unit, unit.T) / temperature
    logits.fill_diagonal_(-math.inf)  # the softmax runs over k != i
    n = visual.shape[0]
    if n == 1:
        return torch.zeros_like(logits)
    log_p = torch.log_softmax(logits, 1)
    log_p.fill_diagonal_(0.0)  # a finite number where P = 0, so that 0 * log 0 is 0
    table = (log_p.exp() * (log_p + math.log(n))).clamp_min(0)
    return table.fill_diagonal_(0.0)


def top_k(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The min(k, N) largest scores by ascending index; ties go to the lower index, NaN is -inf.

    Args:
        scores: (N) or (B, N).
        k: at least 1.

    Returns:
        values and int64 indices, (min(k, N)) or (B, min(k, N)).
    """
    keys = torch.where(torch.isnan(scores), -math.inf, scores)
    order = torch.sort(keys, dim=-1, descending=True, stable=True).indices
    indices = order[..., :k].sort(dim=-1).values
    return keys.gather(-1, indices), indices


def coverage_positions(n: int, count: int) -> list[int]:
    """`count` <= n positions spread evenly over n, ascending: one of each of count equal runs.

    Run j is [floor(j n / count), floor((j + 1) n / count)). The place in it is the fractional part
    of j times the golden ratio, plus a half, of its length, in 32-bit integers: places that do not
    line up in the columns of a grid (additive recurrence, the low-discrepancy sequence of dimension
    one; Niederreiter, "Random Number Generation and Quasi-Monte Carlo Methods", 1992).
    """
    borders = [j * n // count for j in range(count + 1)] if count else []
    places = [(j * 2654435769 + 2**31) % 2**32 for j in range(count)]
    return [
        begin + (place * (end - begin) >> 32)
        for place, (begin, end) in zip(places, itertools.pairwise(borders), strict=True)
    ]


def coverage_count(coverage: float, k: int, n: int) -> int:
    """How many of k rows out of n are spread evenly: none where all n are kept."""
    return 0 if k >= n else math.floor(coverage * k + 0.5)


def greedy(
    visual: torch.Tensor,
    relevance: torch.Tensor,
    k: int,
    redundancy: float,
    temperature: float = 0.1,
    text_free: bool = False,
    coverage: float = 0.0,
) -> list[int]:
    """Greedy selection on rows that all count, in the order of choice.

    k times: argmax over the rows not yet chosen of relevance_i - redundancy * sum_{k chosen} r_ik.

    Args:
        visual: (N, D).
        relevance: (N), nats.
        k: how many to choose; all N when larger.
        redundancy: lambda >= 0.
        temperature: tau > 0.
        text_free: there is no text; the first choice is the row with the largest sum_i r_ik.
        coverage: share of the k rows, [0, 1], that is spread evenly: they are the first choices.
    """
    table = redundancy_table(visual, temperature)
    gains = relevance.clone()
    n = visual.shape[0]
    covered = coverage_positions(n, coverage_count(coverage, k, n))
    chosen = []
    for step in range(min(k, n)):
        if step < len(covered):
            best = covered[step]
        else:
            ranking = table.sum(0) if text_free and step == 0 else gains.clone()
            ranking[chosen] = -math.inf
            # The lowest index of the maximum.
            best = int(torch.argmax((ranking == ranking.max()).int()))
        chosen.append(best)
        gains = gains - redundancy * table[:, best]
    return chosen


def select(
    visual: torch.Tensor,
    text: torch.Tensor,
    k: int,
    visual_mask: torch.Tensor | None = None,
    text_mask: torch.Tensor | None = None,
    temperature: float = 0.1,
    redundancy: float = 0.0,
    estimator: str = "specific",
    coverage: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k rows to keep, and every row's relevance.

    Args: as in mutual_information; k >= 1; redundancy >= 0, 0 being exactly the top k; coverage in
        [0, 1], the share of the k rows that coverage_positions spreads over the rows that count.

    Returns:
        int64 indices, ascending, (min(k, N)) or (B, min(k, N)); and the scores of
        mutual_information. Rows that hold NaN or Inf are chosen only after all others, masked rows
        never: an item with too few rows ends in -1.
    """
    if visual.dim() == 3:
        items = [
            select(
                visual[b], text[b], k, _item(visual_mask, b), _item(text_mask, b), temperature,
                redundancy, estimator, coverage,
            )
            for b in range(visual.shape[0])
        ]  # fmt: skip
        if not items:
            width = min(k, visual.shape[1])
            empty = _wide(visual).new_empty(visual.shape[:2])
            return torch.empty(0, width, dtype=torch.int64, device=visual.device), empty
        return torch.stack([i for i, _ in items]), torch.stack([s for _, s in items])
    scores = mutual_information(visual, text, visual_mask, text_mask, temperature, estimator)
    finite = _counted(visual, visual_mask)
    rows = finite.nonzero()[:, 0]
    if redundancy > 0:
        text_free = not _counted(text, text_mask).any()
        order = greedy(visual[rows], scores[rows], k, redundancy, temperature, text_free, coverage)
        chosen = rows[order]
    else:
        ranking = scores[rows]  # a copy
        ranking[coverage_positions(len(rows), coverage_count(coverage, k, len(rows)))] = math.inf
        chosen = rows[top_k(ranking, k)[1]]
    broken = ~torch.isfinite(visual).all(-1) & (True if visual_mask is None else visual_mask)
    width = min(k, visual.shape[0])
    chosen = torch.cat([chosen, broken.nonzero()[:, 0]])[:width].sort().values
    missing = chosen.new_full((width - chosen.shape[0],), -1)
    return torch.cat([chosen, missing]), scores


def _product(a, b):
    """a @ b, rounded once: neither autocast nor torch's precision of float32 products counts."""
    return (a.double() @ b.double()).to(a.dtype)


def _wide(x):
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _item(mask, b):
    return None if mask is None else mask[b]


def _counted(rows, mask):
    """Which rows count: not masked and finite throughout."""
    finite = torch.isfinite(rows).all(-1)
    return finite if mask is None else finite & mask
