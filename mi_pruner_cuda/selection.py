"""select: one call from embeddings to the rows to keep."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from . import defaults
from ._checks import is_integer
from .budget import Mass, keep_count, resolve
from .reason import items_in_words, reason_for, reason_for_batch

__all__ = ["Mass", "Selection", "keep_count", "select"]


@dataclass(frozen=True)
class Selection:
    """What select returns.

    indices: int64, ascending: (K), or (B, K) for a batch, where an item that keeps fewer than K
        rows ends in -1.
    scores: float32 (N) or (B, N), the relevance of every row in nats; -inf for rows that do not
        count.
    n_kept: how many rows are kept: an int, or a list of B ints for a batch.
    reason: what happened, in words; for a batch whose items differ, item by item. select for
        tensors puts it into words when it is first read, which waits for the device.
    """

    indices: Any
    scores: Any
    n_kept: int | list[int]
    reason: str

    @classmethod
    def to_be_explained(cls, indices, scores, n_kept, explain: Callable[[], str]) -> "Selection":
        """One whose reason is what `explain` returns when it is first asked for."""
        selection = cls.__new__(cls)  # not __init__, which would set the reason
        for name, value in (
            ("indices", indices), ("scores", scores), ("n_kept", n_kept), ("_explain", explain),
        ):  # fmt: skip
            object.__setattr__(selection, name, value)  # past the frozen class's own
        return selection

    def __getattr__(self, name: str):
        """Called for what is not there: the reason, until it is first read."""
        if name != "reason" or "_explain" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.__dict__["reason"] = self.__dict__.pop("_explain")()
        return self.__dict__["reason"]


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
    if redundancy == 0 and (items := _items_without_words(text_mask)):
        raise ValueError(no_words(items, text_mask.dim() > 1))
    options = {"temperature": temperature, "estimator": estimator}
    choosing = {**options, "redundancy": redundancy, "coverage": coverage}
    if visual.dim() == 3:
        if isinstance(keep, Mass):
            raise ValueError(
                "keep: got Mass for a batch; its count differs per item, select one by one"
            )
        if always_keep is not None:
            raise ValueError("always_keep: got a batch, allowed with (N, D) rows only")
        return _select_batch(visual, text, keep, visual_mask, text_mask, choosing, critic)
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
        if visual_mask is not None:
            indices = indices[: min(k, n)]  # without the -1 of an item with too few rows
    kept = indices.shape[0]
    counts = _counts(indices, scores, text, text_mask)
    explain = partial(_explain, keep, k, n, kept, counts, estimator, critic)
    return Selection.to_be_explained(indices, scores, kept, explain)


def _map(critic, text):
    from .critic import apply_critic

    return apply_critic(critic, text)


def noted(reason: str, critic) -> str:
    """The reason, naming the critic if there is one."""
    return reason if critic is None else f"{reason}; compared by a critic"


def _counts(indices, scores, text, text_mask) -> Callable[[], tuple[list[int], list[int]]]:
    """What counts text rows and kept rows that are not finite, of each item, when it is called.

    On an accelerator all is left to that call, as most callers never make it; in host memory only
    the waiting is, so that nothing can change the rows until then.
    """
    if text.is_meta:  # nothing to look at
        items = indices.shape[0] if indices.dim() > 1 else 1
        return partial(tuple, ([text.shape[-2]] * items, [0] * items))
    if text.device.type != "cpu":
        return partial(_count, indices, scores, text, text_mask)
    return partial(_lists, *_count_tensors(indices, scores, text, text_mask))


def _count(indices, scores, text, text_mask):
    return _lists(*_count_tensors(indices, scores, text, text_mask))


def _count_tensors(indices, scores, text, text_mask):
    """int64 () or (B): the text rows that count; and the kept rows that hold NaN or Inf, which
    masked rows, the others that score -inf, never are."""
    words = text.isfinite().all(-1)
    if text_mask is not None:
        words = words & text_mask
    if scores.shape[-1] == 0:
        return words.sum(-1), (indices >= 0).sum(-1)
    kept = scores.gather(-1, indices.clamp_min(0))
    return words.sum(-1), ((kept == -math.inf) & (indices >= 0)).sum(-1)


def _lists(*counts):
    return tuple(count.reshape(-1).tolist() for count in counts)


def _explain(keep, k, n, kept, counts, estimator, critic) -> str:
    """The reason of (N, D) rows."""
    (words,), (not_finite,) = counts()
    return noted(reason_for(keep, k, n, words, estimator, kept, not_finite), critic)


def _explain_batch(keep, k, n, kept, counts, estimator, critic) -> str:
    """n: rows of each item that are not masked, a list or int64 (B); kept: of each item."""
    rows = n if isinstance(n, list) else n.tolist()
    words, not_finite = counts()
    reasons = [
        reason_for(keep, k, rows[b], words[b], estimator, kept[b], not_finite[b])
        for b in range(len(rows))
    ]
    return noted(reason_for_batch(reasons), critic)


def _select_batch(visual, text, keep, visual_mask, text_mask, options, critic):
    import torch

    from . import ops

    batch, n = visual.shape[:2]
    if visual_mask is None or is_integer(keep):
        k = max(1, resolve(keep, n))
        indices, scores = ops.select(visual, text, k, visual_mask, text_mask, **options)
        if visual_mask is None:
            rows, kept = [n] * batch, [indices.shape[1]] * batch
        else:
            rows, kept = visual_mask.sum(1), (indices >= 0).sum(1).tolist()
        counts = _counts(indices, scores, text, text_mask)
        explain = partial(_explain_batch, keep, k, rows, kept, counts, options["estimator"], critic)
        return Selection.to_be_explained(indices, scores, kept, explain)
    # A ratio of unequal lengths keeps unequal counts: one item at a time, then padded to one width.
    items = [
        select(
            visual[b], text[b], keep, visual_mask=visual_mask[b],
            text_mask=None if text_mask is None else text_mask[b], **options,
        )
        for b in range(batch)
    ]  # fmt: skip
    kept = [item.n_kept for item in items]
    indices = visual.new_full((batch, max(kept, default=0)), -1, dtype=torch.int64)
    scores = visual.new_empty((batch, n), dtype=torch.float32)
    for b, item in enumerate(items):
        indices[b, : kept[b]] = item.indices
        scores[b] = item.scores
    explain = partial(_explain_items, items, critic)
    return Selection.to_be_explained(indices, scores, kept, explain)


def _explain_items(items: list[Selection], critic) -> str:
    return noted(reason_for_batch([item.reason for item in items]), critic)


def _select_around(visual, text, k, visual_mask, text_mask, options, always_keep):
    """Keeps the named rows and fills the rest of k from the others."""
    import torch

    from . import ops

    n = visual.shape[0]
    kept = _rows_of(always_keep).to(visual.device).unique()
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
        else _scores_without_text(visual, visual_mask)
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


def _rows_of(always_keep):
    """int64, wherever they are now."""
    import torch

    from . import _arrays, ops

    if not isinstance(always_keep, torch.Tensor):
        return torch.from_numpy(_arrays.integers("always_keep", always_keep))
    ops.check_tensor("always_keep", always_keep)
    if always_keep.is_meta:
        raise ValueError("always_keep: got a tensor on the meta device, which holds no numbers")
    kind = always_keep.dtype
    if always_keep.numel() and (
        kind == torch.bool or kind.is_floating_point or kind.is_complex or always_keep.is_quantized
    ):
        raise TypeError(f"always_keep: got {kind} elements, allowed are integer indices")
    return always_keep.long()


def _scores_without_text(visual, visual_mask):
    """0 for the rows that count, -inf for the others, as where words are."""
    import torch

    counted = visual.isfinite().all(1)
    if visual_mask is not None:
        counted &= visual_mask
    scores = torch.zeros(len(visual), dtype=torch.float32, device=visual.device)
    return scores.masked_fill(~counted, -math.inf)


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


def _items_without_words(text_mask) -> list[int]:
    """Of a mask on the CPU only: on an accelerator the look would stall it."""
    if text_mask is None or text_mask.device.type != "cpu":
        return []
    return (~text_mask.any(-1)).reshape(-1).nonzero()[:, 0].tolist()


def no_words(items: list[int], batch: bool) -> str:
    """What is wrong with redundancy 0 where masks leave these items no text."""
    where = f" of {items_in_words(items)}" if batch else ""
    return (
        f"redundancy: got 0 with a text_mask that leaves no rows{where}, allowed is > 0 there: "
        "with neither text nor redundancy nothing tells the rows apart"
    )


def _row_count(visual, visual_mask) -> int:
    return visual.shape[0] if visual_mask is None else int(visual_mask.sum())
