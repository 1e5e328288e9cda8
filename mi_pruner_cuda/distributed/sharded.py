"""select over a process group."""

import math
from dataclasses import dataclass

import torch

from .. import defaults, ops
from ..budget import Mass, resolve
from ..reason import reason_for
from ..selection import noted, with_coverage
from .agreement import Call, agree
from .relevance import cosines, relevance
from .wire import Wire


@dataclass(frozen=True)
class ShardSelection:
    """What select returns; all but the local fields is the same, bit for bit, on every rank.

    indices: int64 (K), ascending, rows in the global order: rank 0's shard first.
    local_indices: int64, ascending, the kept rows of this rank's shard, counted from its start;
        may be empty.
    scores: float32 (N_r), the relevance of this shard's rows in nats; -inf for rows that do not
        count.
    all_scores: float32 (N), the scores of all ranks in the global order; scores is a part of it.
    n_kept: K.
    reason: what happened, in words.
    offset: the global row of this shard's first row.
    """

    indices: torch.Tensor
    local_indices: torch.Tensor
    scores: torch.Tensor
    all_scores: torch.Tensor
    n_kept: int
    reason: str
    offset: int


@torch.no_grad()
def select(
    visual_shard: torch.Tensor,
    text: torch.Tensor,
    keep,
    group=None,
    *,
    temperature: float = defaults.TEMPERATURE,
    estimator: str = defaults.ESTIMATOR,
    visual_mask: torch.Tensor | None = None,
    critic=None,
    coverage: float | None = None,
) -> ShardSelection:
    """mi_pruner_cuda.select on visual rows that are sharded over the ranks of a process group.

    Every rank of the group calls it at the same point of its program, and every rank gets the same
    answer, the one that a single process would get with redundancy=0 for all rows together: scores
    within 1e-5 relative, indices equal but where two scores lie within that distance.

    Each rank sends a header of 13 numbers, one number per text row and one per visual row (those of
    the longest shard, as shorter ones are padded): O(N + M) in all, whatever D is. There is no
    redundancy argument, nor a text-free mode: redundancy compares every pair of visual rows, and
    that would take O(N D) traffic. It keeps more answers where it can be had
    (bench/quality/README.md).

    The call waits for the other ranks and for the device: it is not for CUDA graphs.

    Args:
        visual_shard: (N_r, D) float32, float16 or bfloat16, rows of the global order from this
            rank's offset on; shards may differ in length, and be empty: (0, D).
        text: (M, D), M >= 1, the question's token embeddings, the same bits on every rank; dtype
            and device of visual_shard.
        keep: an int >= 1 (exact count; more than N keeps all), a float in (0, 1] (keep_count of the
            rows of all shards that are not masked) or Mass(share); the same on every rank.
        group: a process group, gloo or NCCL; None for the default one. With NCCL the shards are on
            GPUs, one per rank.
        temperature: tau > 0.
        estimator: "specific", "posterior", "joint" or "cosine".
        visual_mask: bool (N_r), True where the row counts; masked rows are never selected. Ranks
            may do without.
        critic: as in mi_pruner_cuda.select, the same bits on every rank. The ranks compare a hash
            of it, which a Critic keeps and a bare matrix costs at every call.
        coverage: as in mi_pruner_cuda.select, with the same default, over the rows of all shards.

    Raises:
        TypeError, ValueError: naming the argument, what was given and what is allowed; for an
            argument that is wrong on any rank, or differs between ranks, the same error on every
            rank. Only a group that this process is not in is an error of this process alone.
    """
    _, coverage = defaults.choice(keep, 0.0, coverage)
    wire = Wire(group, visual_shard.device if isinstance(visual_shard, torch.Tensor) else None)
    call, headers = agree(
        wire, visual_shard, text, keep, temperature, estimator, visual_mask, critic, coverage
    )
    own = _score(call, sum(header.finite for header in headers), wire)
    # NaN marks masked rows on the way: they have no score, not even a low one.
    sizes = [header.rows for header in headers]
    scores = wire.gather_unequal(own.masked_fill(~call.counted, math.nan), sizes)
    indices, reason = _choose(scores, call.text, keep, estimator, coverage)
    offset = sum(sizes[: wire.rank])
    end = offset + visual_shard.shape[0]
    indices = indices.to(visual_shard.device)
    all_scores = scores.masked_fill(scores.isnan(), -math.inf).to(visual_shard.device)
    return ShardSelection(
        indices=indices,
        local_indices=indices[(indices >= offset) & (indices < end)] - offset,
        scores=all_scores[offset:end],
        all_scores=all_scores,
        n_kept=indices.shape[0],
        reason=noted(reason, critic),
        offset=offset,
    )


def _score(call: Call, n: int, wire: Wire) -> torch.Tensor:
    """float32 (N_r): the relevance of the rows that are finite, -inf for the others.

    n: finite rows on all ranks.
    """
    scores = call.visual.new_full(call.finite.shape, -math.inf, dtype=torch.float32)
    words = call.text[call.text.isfinite().all(1)]
    if words.shape[0] == 0:  # on every rank, as they have the same text
        return scores.masked_fill(call.finite, 0.0)

    def log_totals(table):
        return wire.gather(table.logsumexp(0)).logsumexp(0).to(table.device)

    table = cosines(call.visual[call.finite], words)
    scores[call.finite] = relevance(table, n, call.temperature, call.estimator, log_totals).float()
    return scores


def _choose(scores: torch.Tensor, text: torch.Tensor, keep, estimator: str, coverage: float):
    """float32 (N), NaN for masked rows -> int64 indices, ascending, and the reason."""
    candidates = (~scores.isnan()).nonzero()[:, 0]
    n = candidates.shape[0]
    known = scores[candidates]
    k = keep.count(known.tolist()) if isinstance(keep, Mass) else max(1, resolve(keep, n))
    # By ascending index and with ties to the lower one, as the candidates are in order.
    indices = candidates[ops.top_k(with_coverage(known, k, coverage), k)[1]]
    words = int(text.isfinite().all(1).sum())
    not_finite = int((scores[indices] == -math.inf).sum())
    return indices, reason_for(keep, k, n, words, estimator, len(indices), not_finite)
