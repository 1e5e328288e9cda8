"""The same functions for NumPy arrays. Works where torch is not installed.

Rows are float32, float16 or bfloat16; NumPy has no bfloat16, so those are arrays of
ml_dtypes.bfloat16, or uint16 arrays of the same bits with dtype="bfloat16". Arrays are read where
they lie, at any row stride; only rows whose elements are not adjacent are copied. Arrays that say
more than their numbers are refused: masked arrays in which elements are masked, and subclasses of
numpy.ndarray, such as those with units, but for memmap, matrix and recarray. Results are plain
arrays. The interpreter lock is released during the work.

`threads` is how many threads one call may use; None means one per available processor.
"""

import os

import numpy as np

from . import _C, _arrays, _checks, defaults
from .reason import reason_for, reason_for_batch
from .selection import Selection, no_words

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
    return _C.normalize(_arrays.plain("x", x), eps, _dtype(dtype), _threads(threads))


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
        *_rows_and_masks(visual, text, visual_mask, text_mask), temperature, estimator,
        _dtype(dtype), _threads(threads),
    )  # fmt: skip


def top_k(scores, k: int, *, threads: int | None = None):
    """The min(k, N) largest float32 scores, (N) or (B, N), by ascending index: values and
    indices."""
    return _C.top_k(_arrays.plain("scores", scores), _checks.count("k", k), _threads(threads))


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
    visual, text, visual_mask, text_mask = _rows_and_masks(visual, text, visual_mask, text_mask)
    if redundancy == 0 and text_mask is not None and text_mask.dtype == bool and text_mask.ndim:
        without = np.flatnonzero(~text_mask.any(-1)).tolist()
        if without:
            raise ValueError(no_words(without, text_mask.ndim > 1))
    indices, scores = _C.select(
        visual, text, k, visual_mask, text_mask, temperature, redundancy, estimator, _dtype(dtype),
        _threads(threads), coverage=coverage,
    )  # fmt: skip
    kept = (indices >= 0).sum(-1)
    rows, words = _counted(visual, visual_mask), _words(text, text_mask)
    reasons = _reasons(k, indices, scores, rows, words, estimator)
    if visual.ndim == 2:
        indices = indices[: int(kept)]
    return Selection(indices, scores, kept.tolist(), reason_for_batch(reasons))


def _rows_and_masks(visual, text, visual_mask, text_mask):
    return (
        _arrays.plain("visual", visual),
        _arrays.plain("text", text),
        None if visual_mask is None else _arrays.plain("visual_mask", visual_mask),
        None if text_mask is None else _arrays.plain("text_mask", text_mask),
    )


def _reasons(k: int, indices, scores, rows, words, estimator: str) -> list[str]:
    """Of each item. rows, words: int64 () or (B), those that count (rows: are not masked)."""
    found = indices >= 0
    # Masked rows, the others that score -inf, are never kept.
    lost = found & (_at(scores, np.maximum(indices, 0)) == -np.inf)
    numbers = [np.atleast_1d(n).tolist() for n in (rows, words, found.sum(-1), lost.sum(-1))]
    return [
        reason_for(k, k, n, m, estimator, kept, not_finite)
        for n, m, kept, not_finite in zip(*numbers, strict=True)
    ]


def _at(scores, indices):
    return np.take_along_axis(scores, indices, -1) if scores.size else np.zeros(indices.shape, "f4")


def _counted(rows, mask):
    """int64 () or (B): the rows that are not masked."""
    return np.full(rows.shape[:-2], rows.shape[-2]) if mask is None else mask.sum(-1)


def _words(text, mask):
    """int64 () or (B): the text rows that are neither masked nor hold NaN or Inf."""
    bits = text.dtype == np.uint16  # of bfloat16: all of the exponent's are set in NaN and Inf
    counts = ((text & 0x7F80 != 0x7F80) if bits else np.isfinite(text)).all(-1)
    return (counts if mask is None else counts & mask).sum(-1)


def _dtype(dtype: str | None) -> str | None:
    if dtype is not None and not (isinstance(dtype, str) and dtype in _DTYPES):
        raise ValueError(f"dtype: got {dtype!r}, allowed are None, {', '.join(_DTYPES)}")
    return dtype


def _threads(threads: int | None) -> int:
    if threads is not None:
        return min(_checks.count("threads", threads), _MOST_THREADS)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1
