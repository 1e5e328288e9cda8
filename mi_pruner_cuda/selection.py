"""select: one call from embeddings to the rows to keep."""

import math
from dataclasses import dataclass, replace
from typing import Any

from . import defaults
from .budget import Mass, keep_count, resolve

__all__ = ["Mass", "Selection", "keep_count", "select"]


@dataclass(frozen=True)
class Selection:
    """What select returns.

    indices: int64, ascending: (K), or (B, K) for a batch, where an item that keeps fewer than K
        rows ends in -1.
    scores: float32 (N) or (B, N), the relevance of every row in nats; -inf for rows that do not
        count.
    n_kept: how many rows are kept: an int, or a list of B ints for a batch.
    reason: what happened, in words.
    """

    indices: Any
    scores: Any
    n_kept: int | list[int]
    reason: str


def select(
    visual,
    text,
    keep,
    *,
    visual_mask=None,
    text_mask=None,
    temperature: float = defaults.TEMPERATURE,
    redundancy: float | None = None,
    estimator: str = defaults.ESTIMATOR,
    always_keep=None,
    critic=None,
    coverage: float | None = None,
) -> Selection:
    """The visual rows that carry the most information about the text rows.

    Unless told otherwise a part of them is spread evenly over all rows, and what the others share
    with rows already chosen counts against them: of what bench/quality/study.py measured, the
    combination that keeps most answers about the objects that a question names.
    redundancy=0, coverage=0 is the top K by relevance.

    Args:
        visual: (N, D) or (B, N, D) float32, float16 or bfloat16, after the projector.
        text: (M, D) or (B, M, D), the question's token embeddings, same dtype and device. M = 0
            selects without text, by redundancy, which must be > 0 then, and coverage.
        keep: an int >= 1 (exact count; more than N keeps all), a float in (0, 1] (keep_count of the
            rows that are not masked) or Mass(share) ((N, D) only).
        visual_mask: bool (N) or (B, N), True where the row counts; masked rows are never selected.
        text_mask: bool (M) or (B, M).
        temperature: tau > 0.
        redundancy: lambda >= 0, the weight of what a row shares with those already chosen. None:
            defaults.REDUNDANCY, or 0 with keep=Mass(share), as only the best rows by relevance
            hold the share.
        estimator: "specific", "posterior", "joint" or "cosine".
        always_keep: indices into the N rows ((N, D) only) that are kept whatever their score, as
            part of the K. With redundancy > 0 the other rows are chosen greedily among themselves.
        critic: None, or a mi_pruner_cuda.critic.Critic or its matrix A, float32 (D, D): rows are
            compared by <A v, t>, the cosine between v and A^T t (critic.apply_critic), and
            otherwise as always.
        coverage: in [0, 1], the share of the K rows, those of always_keep aside, that is spread
            evenly over the other rows that count, whatever they hold
            (reference.coverage_positions); the rest is chosen as always. It keeps something of the
            whole picture where relevance alone would keep one object. None: defaults.COVERAGE, or
            0 with keep=Mass(share).

    Raises:
        TypeError, ValueError: naming the argument, what was given and what is allowed.
    """
    from . import ops

    redundancy, coverage = defaults.choice(keep, redundancy, coverage)
    ops.check_relevance(visual, text, visual_mask, text_mask, temperature, estimator)
    if isinstance(keep, Mass) and text.shape[-2] == 0:
        raise ValueError(
            "keep: got Mass without text rows, allowed is a count or a ratio there: without text "
            "no row has relevance"
        )
    ops.check_choice(text, redundancy, coverage)
    if critic is not None:
        text = _map(critic, text)
    if redundancy == 0 and _some_item_has_no_words(text_mask):
        raise ValueError(
            "redundancy: got 0 with a text_mask that leaves no rows, allowed is > 0 there: with "
            "neither text nor redundancy nothing tells the rows apart"
        )
    options = {"temperature": temperature, "estimator": estimator}
    choosing = {**options, "redundancy": redundancy, "coverage": coverage}
    if visual.dim() == 3:
        if isinstance(keep, Mass):
            raise ValueError(
                "keep: got Mass for a batch; its count differs per item, select one by one"
            )
        if always_keep is not None:
            raise ValueError("always_keep: got a batch, allowed with (N, D) rows only")
        return noted(_select_batch(visual, text, keep, visual_mask, text_mask, choosing), critic)
    n = _row_count(visual, visual_mask)
    if isinstance(keep, Mass):
        scores = ops.mutual_information(visual, text, visual_mask, text_mask, **options)
        k = keep.count(scores.tolist())
    else:
        k = max(1, resolve(keep, n))
    if always_keep is not None:
        indices, scores = _select_around(
            visual, text, k, visual_mask, text_mask, choosing, always_keep
        )
    else:
        indices, scores = ops.select(visual, text, k, visual_mask, text_mask, **choosing)
        indices = indices[: min(k, n)]
    reason = reason_for(keep, k, n, text, text_mask, estimator)
    return noted(Selection(indices, scores, indices.shape[0], reason), critic)


def _map(critic, text):
    from .critic import apply_critic

    return apply_critic(critic, text)


def noted(selection, critic):
    """A Selection or ShardSelection as it is, its reason naming the critic if there is one."""
    if critic is None:
        return selection
    return replace(selection, reason=f"{selection.reason}; compared by a critic")


def _select_batch(visual, text, keep, visual_mask, text_mask, options):
    import torch

    from . import ops

    n = visual.shape[1]
    if visual_mask is None or isinstance(keep, int):
        k = max(1, resolve(keep, n))
        indices, scores = ops.select(visual, text, k, visual_mask, text_mask, **options)
        if visual_mask is None:
            kept = [indices.shape[1]] * indices.shape[0]
        else:
            kept = (indices >= 0).sum(1).tolist()
        return Selection(
            indices, scores, kept, reason_for(keep, k, n, text, text_mask, options["estimator"])
        )
    # A ratio of unequal lengths keeps unequal counts: one item at a time, then padded to one width.
    items = [
        select(
            visual[b], text[b], keep, visual_mask=visual_mask[b],
            text_mask=None if text_mask is None else text_mask[b], **options,
        )
        for b in range(visual.shape[0])
    ]  # fmt: skip
    kept = [item.n_kept for item in items]
    indices = visual.new_full((len(items), max(kept, default=0)), -1, dtype=torch.int64)
    scores = visual.new_empty((len(items), n), dtype=torch.float32)
    for b, item in enumerate(items):
        indices[b, : kept[b]] = item.indices
        scores[b] = item.scores
    reasons = "; ".join(dict.fromkeys(item.reason for item in items))
    return Selection(indices, scores, kept, reasons or "the batch is empty")


def _select_around(visual, text, k, visual_mask, text_mask, options, always_keep):
    """Keeps the named rows and fills the rest of k from the others."""
    import torch

    from . import ops

    n = visual.shape[0]
    kept = torch.as_tensor(always_keep, device=visual.device)
    if kept.numel() and (kept.dtype == torch.bool or kept.is_floating_point()):
        raise TypeError(f"always_keep: got {kept.dtype} elements, allowed are integer indices")
    kept = kept.long().unique()
    if kept.numel() and (int(kept.min()) < 0 or int(kept.max()) >= n):
        raise ValueError(f"always_keep: got {kept.tolist()}, allowed are indices in [0, {n})")
    if visual_mask is not None and not bool(visual_mask[kept].all()):
        raise ValueError("always_keep: got a row that visual_mask masks out")
    if kept.numel() > k:
        raise ValueError(f"always_keep: got {kept.numel()} rows, allowed are at most keep = {k}")
    others = torch.ones(n, dtype=torch.bool, device=visual.device)
    if visual_mask is not None:
        others &= visual_mask
    others[kept] = False
    scores = (
        ops.mutual_information(
            visual, text, visual_mask, text_mask, options["temperature"], options["estimator"]
        )
        if text.shape[0]
        else visual.new_zeros(n, dtype=torch.float32)
    )
    wanted = min(k - kept.numel(), int(others.sum()))
    if wanted == 0:
        return kept, scores
    if options["redundancy"] > 0:
        chosen, _ = ops.select(visual, text, wanted, others, text_mask, **options)
    else:
        candidates = others.nonzero()[:, 0]
        ranking = with_coverage(scores[candidates], wanted, options["coverage"])
        chosen = candidates[ops.top_k(ranking, wanted)[1]]
    return torch.cat([kept, chosen]).sort().values, scores


def with_coverage(scores, k: int, coverage: float):
    """(N) scores in which the rows that coverage keeps are ahead of all others; k is at least 1."""
    from .reference import coverage_count, coverage_positions

    finite = (scores > -math.inf).nonzero()[:, 0]
    count = coverage_count(coverage, k, len(finite))
    if count == 0:
        return scores
    ranking = scores.clone()
    ranking[finite[coverage_positions(len(finite), count)]] = math.inf
    return ranking


def _some_item_has_no_words(text_mask) -> bool:
    """Looks at masks on the CPU only: on an accelerator the look would stall it."""
    if text_mask is None or text_mask.device.type != "cpu":
        return False
    return not bool(text_mask.any(-1).all())


def _row_count(visual, visual_mask) -> int:
    return visual.shape[0] if visual_mask is None else int(visual_mask.sum())


def reason_for(keep, k, n, text, text_mask, estimator) -> str:
    """What a selection of k among n rows has to say."""
    words = text.shape[-2] if text_mask is None or text_mask.dim() > 1 else int(text_mask.sum())
    if n == 0:
        return "there are no rows to keep"
    notes = []
    if k >= n:
        asked_for = keep if isinstance(keep, int) else k
        notes.append(f"kept all: {asked_for} of {n} asked for")
    if words == 0:
        notes.append("no text: selected by what rows share")
    if words == 1 and estimator == "specific":
        notes.append("one text token: scored by pointwise information")
    if isinstance(keep, Mass):
        notes.append(f"{k} rows hold {keep.share:g} of the relevance")
    return "; ".join(notes) or "selected"
