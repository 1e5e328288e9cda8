"""The same functions for NumPy arrays. Works where torch is not installed.

Rows are float32, float16 or bfloat16; NumPy has no bfloat16, so those are arrays of
ml_dtypes.bfloat16, or uint16 arrays of the same bits with dtype="bfloat16". Arrays are read where
they lie, at any row stride; only rows whose elements are not adjacent are copied. The interpreter
lock is released during the work.

`threads` is how many threads one call may use; None means one per available processor.
"""

import os

import numpy as np

from . import _C, _checks, defaults
from .selection import Selection

__all__ = ["mutual_information", "normalize", "select", "top_k"]

_DTYPES = ("float32", "float16", "bfloat16")
_MOST_THREADS = 1024


def normalize(x, eps: float = 1e-12, *, dtype: str | None = None, threads: int | None = None):
    """Rows of unit length, x / max(||x||, eps), in the dtype of x; a zero row stays zero.

    Args:
        x: (N, D) or (B, N, D).
        eps: norms below it count as eps.
        dtype: "bfloat16" for uint16 arrays that hold bfloat16 bits.
        threads: see the module.
    """
    _checks.positive("eps", eps)
    return _C.normalize(x, eps, _dtype(dtype), _threads(threads))


def mutual_information(
    visual,
    text,
    visual_mask=None,
    text_mask=None,
    temperature: float = 0.1,
    estimator: str = "specific",
    *,
    dtype: str | None = None,
    threads: int | None = None,
):
    """The relevance of each visual row for the text rows, float32 (N) or (B, N), in nats.

    Args:
        visual: (N, D) or (B, N, D).
        text: (M, D) or (B, M, D), M >= 1, same dtype.
        visual_mask: bool (N) or (B, N), True where the row counts.
        text_mask: bool (M) or (B, M).
        temperature: tau > 0, divides the cosines.
        estimator: "specific", "posterior", "joint" or "cosine".
        dtype, threads: see normalize.
    """
    _checks.temperature(temperature)
    _checks.estimator(estimator)
    return _C.mutual_information(
        visual, text, visual_mask, text_mask, temperature, estimator, _dtype(dtype),
        _threads(threads),
    )  # fmt: skip


def top_k(scores, k: int, *, threads: int | None = None):
    """The min(k, N) largest float32 scores, (N) or (B, N), by ascending index: values and
    indices."""
    return _C.top_k(scores, _checks.count("k", k), _threads(threads))


def select(
    visual,
    text,
    k: int,
    visual_mask=None,
    text_mask=None,
    temperature: float = defaults.TEMPERATURE,
    redundancy: float | None = None,
    estimator: str = defaults.ESTIMATOR,
    coverage: float | None = None,
    *,
    dtype: str | None = None,
    threads: int | None = None,
) -> Selection:
    """The k rows to keep, and every row's relevance.

    Args: as in mutual_information, and
        text: M = 0 selects without text, by redundancy, which must be > 0 then, and coverage.
        k: at least 1; more than N keeps all N. From a ratio: mi_pruner_cuda.keep_count(n, ratio).
        redundancy: lambda >= 0, None for defaults.REDUNDANCY; with coverage 0 as well, 0 is exactly
            the top k by relevance.
        coverage: None for defaults.COVERAGE; else in [0, 1], the share of the k rows that is spread
            evenly over the rows that count (neither masked nor holding NaN or Inf), one row of each
            of so many equal runs, whatever they hold. With redundancy they count as the first
            choices. The others are chosen as without it.

    Returns:
        Selection of NumPy arrays.

    Raises:
        TypeError, ValueError: naming the argument, what was given and what is allowed.
    """
    k = _checks.count("k", k)
    _checks.temperature(temperature)
    redundancy, coverage = defaults.choice(k, redundancy, coverage)
    _checks.not_negative("redundancy", redundancy)
    _checks.share("coverage", coverage)
    _checks.estimator(estimator)
    if redundancy == 0 and text_mask is not None and not np.any(text_mask, -1).all():
        raise ValueError(
            "redundancy: got 0 with a text_mask that leaves no rows, allowed is > 0 there: with "
            "neither text nor redundancy nothing tells the rows apart"
        )
    indices, scores = _C.select(
        visual, text, k, visual_mask, text_mask, temperature, redundancy, estimator, _dtype(dtype),
        _threads(threads), coverage=coverage,
    )  # fmt: skip
    kept = (indices >= 0).sum(-1)
    if visual.ndim == 2:
        indices = indices[: int(kept)]
    words = text.shape[-2] if text_mask is None else int(np.max(np.sum(text_mask, -1), initial=0))
    rows = visual.shape[-2]
    return Selection(indices, scores, kept.tolist(), _reason(k, rows, kept, words, estimator))


def _reason(k: int, rows: int, kept, words: int, estimator: str) -> str:
    notes = []
    if k >= rows or (kept < k).any():
        notes.append(f"kept all: {k} of {rows} asked for")
    if words == 0:
        notes.append("no text: selected by what rows share")
    if words == 1 and estimator == "specific":
        notes.append("one text token: scored by pointwise information")
    return "; ".join(notes) or "selected"


def _dtype(dtype: str | None) -> str | None:
    if dtype is not None and dtype not in _DTYPES:
        raise ValueError(f"dtype: got {dtype!r}, allowed are None, {', '.join(_DTYPES)}")
    return dtype


def _threads(threads: int | None) -> int:
    if threads is not None:
        return min(_checks.count("threads", threads), _MOST_THREADS)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1
