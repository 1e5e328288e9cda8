"""torch.ops.mipruner.*, and checked functions over them.

The functions here say what is wrong with an argument as ValueError or TypeError before anything
runs; the operators themselves check too, but every error that leaves them is a RuntimeError. All of
them work under torch.compile, torch.export and fake tensors.

Gradients: the results are constants. Nothing here is differentiable, outputs never require a
gradient whatever the inputs do (as under torch.no_grad), and calling backward on them raises
torch's own error. Autocast changes nothing: float32 rows stay float32.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from . import _checks

_LIBRARY_FILE = Path(__file__).with_name("_ops.so")

_LARGEST_RESULT = 2**40  # indices: far more than memory holds, far from where sums overflow
ROW_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ROW_DTYPES_IN_WORDS = "torch.float32, torch.float16 and torch.bfloat16"
# What numbers are while torch.export traces a graph.
_SYMBOLS = (torch.SymInt, torch.SymFloat)


def _load(file: Path) -> None:
    """Loads the operators' library, with a readable reason when that fails."""
    if not file.is_file():
        raise ImportError(
            "mi_pruner_cuda was built without its torch ops, because no torch >= 2.11 was found "
            "then. With torch installed, build it again: pip install --force-reinstall "
            "--no-cache-dir --no-deps --no-build-isolation mi_pruner_cuda (or set "
            "MIPRUNER_TORCH_DIR to the folder of the torch package). mi_pruner_cuda.numpy works "
            "without them."
        )
    try:
        torch.ops.load_library(file)
    except OSError as error:
        raise ImportError(
            f"the torch ops of mi_pruner_cuda need torch >= 2.11; torch {torch.__version__} cannot "
            f"load them: {error}"
        ) from error


_load(_LIBRARY_FILE)

# Kept for the life of the process: what it registered goes when it does.
_library = torch.library.Library("mipruner", "IMPL")
for _name in (
    "normalize",
    "mutual_information",
    "top_k",
    "select",
    "select_varlen",
    "gather_rows",
):
    # Past autograd without a trace: the outputs do not require a gradient. Left unregistered,
    # autograd would do the same at the cost of a slower call.
    _library.impl(_name, torch.library.fallthrough_kernel, "Autograd")


# ---- shapes for torch.compile, torch.export and the meta device ----


@torch.library.register_fake("mipruner::normalize", lib=_library)
def _normalize_shape(x, eps=1e-12):
    return x.new_empty(x.shape)


@torch.library.register_fake("mipruner::mutual_information", lib=_library)
def _mutual_information_shape(
    visual, text, visual_mask=None, text_mask=None, temperature=0.1, estimator="specific"
):
    return visual.new_empty(visual.shape[:-1], dtype=torch.float32)


@torch.library.register_fake("mipruner::top_k", lib=_library)
def _top_k_shape(scores, k):
    shape = (*scores.shape[:-1], torch.sym_min(k, scores.shape[-1]))
    return scores.new_empty(shape), scores.new_empty(shape, dtype=torch.int64)


@torch.library.register_fake("mipruner::select", lib=_library)
def _select_shape(
    visual,
    text,
    k,
    visual_mask=None,
    text_mask=None,
    temperature=0.1,
    redundancy=0.0,
    estimator="specific",
    coverage=0.0,
):
    shape = (*visual.shape[:-2], torch.sym_min(k, visual.shape[-2]))
    indices = visual.new_empty(shape, dtype=torch.int64)
    return indices, visual.new_empty(visual.shape[:-1], dtype=torch.float32)


@torch.library.register_fake("mipruner::select_varlen", lib=_library)
def _select_varlen_shape(
    visual,
    text,
    visual_offsets,
    text_ranges,
    k,
    temperature=0.1,
    redundancy=0.0,
    estimator="specific",
    coverage=0.0,
):
    indices = visual.new_empty(sum(k), dtype=torch.int64)
    return indices, visual.new_empty(visual.shape[:1], dtype=torch.float32)


@torch.library.register_fake("mipruner::gather_rows", lib=_library)
def _gather_rows_shape(rows, indices):
    return rows.new_empty((*indices.shape, *rows.shape[indices.dim() :]))


# ---- the functions ----


def normalize(x: torch.Tensor, eps: float = 1e-12) -> torch.Tensor:
    """Rows of unit length, x / max(||x||, eps), in the dtype of x; a zero row stays zero.

    Args:
        x: (N, D) or (B, N, D), float32, float16 or bfloat16.
        eps: norms below it count as eps.
    """
    _check_rows("x", x, "(N, D) or (B, N, D)")
    _checks.positive("eps", eps, _SYMBOLS)
    return torch.ops.mipruner.normalize(x, eps)


def mutual_information(
    visual: torch.Tensor,
    text: torch.Tensor,
    visual_mask: torch.Tensor | None = None,
    text_mask: torch.Tensor | None = None,
    temperature: float = 0.1,
    estimator: str = "specific",
) -> torch.Tensor:
    """The relevance of each visual row for the text rows, in nats ("cosine": the cosine itself).

    Args:
        visual: (N, D) or (B, N, D), float32, float16 or bfloat16.
        text: (M, D) or (B, M, D), M >= 1, same dtype and device.
        visual_mask: bool (N) or (B, N), True where the row counts.
        text_mask: bool (M) or (B, M).
        temperature: tau > 0, divides the cosines.
        estimator: "specific", "posterior", "joint" or "cosine".

    Returns:
        float32 (N) or (B, N). Masked rows and rows that hold NaN or Inf score -inf.
    """
    check_relevance(visual, text, visual_mask, text_mask, temperature, estimator)
    if text.shape[-2] == 0:
        raise ValueError(
            "text: got 0 rows, allowed is at least 1 (select has a text-free mode with "
            "redundancy > 0)"
        )
    return torch.ops.mipruner.mutual_information(
        visual, text, visual_mask, text_mask, temperature, estimator
    )


def top_k(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The min(k, N) largest scores by ascending index: values and int64 indices.

    Ties go to the lower index; NaN counts as -inf.

    Args:
        scores: float32 (N) or (B, N).
        k: at least 1.
    """
    check_tensor("scores", scores)
    if scores.dtype != torch.float32:
        raise TypeError(f"scores: got dtype {scores.dtype}, allowed is torch.float32")
    if scores.dim() not in (1, 2):
        raise ValueError(f"scores: got shape {_shape(scores)}, allowed is (N) or (B, N)")
    return torch.ops.mipruner.top_k(scores, _checks.count("k", k, _SYMBOLS))


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

    Args: as in mutual_information, and
        text: M = 0 selects without text, by redundancy alone, and needs redundancy > 0.
        k: at least 1; more than N keeps all N.
        redundancy: lambda >= 0; 0 is exactly the top k by relevance.
        coverage: in [0, 1], the share of the k rows that is spread evenly over the rows that count
            (neither masked nor holding NaN or Inf), one row of each of so many equal runs, whatever
            they hold (mi_pruner_cuda.reference.coverage_positions). With redundancy they count as
            the first choices. The others are chosen as without it.

    Returns:
        int64 indices, ascending, (min(k, N)) or (B, min(k, N)), and float32 scores (N) or (B, N).
        An item with fewer unmasked rows than that ends in -1.
    """
    check_relevance(visual, text, visual_mask, text_mask, temperature, estimator)
    check_choice(text, redundancy, coverage)
    k = _checks.count("k", k, _SYMBOLS)
    return torch.ops.mipruner.select(
        visual, text, k, visual_mask, text_mask, temperature, redundancy, estimator, coverage
    )


def select_varlen(
    visual: torch.Tensor,
    text: torch.Tensor,
    visual_offsets: torch.Tensor,
    text_ranges: torch.Tensor,
    k: Sequence[int],
    temperature: float = 0.1,
    redundancy: float = 0.0,
    estimator: str = "specific",
    coverage: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """select on S images of different sizes in one call: each segment of `visual` by itself.

    Args:
        visual: (R, D), the rows of all images one after another; float32, float16 or bfloat16.
        text: (T, D), the rows of all questions, same dtype and device.
        visual_offsets: int64 (S + 1) on the same device; image s is rows
            visual_offsets[s] to visual_offsets[s + 1].
        text_ranges: int64 (S, 2) on the same device, begin and end of each image's question;
            several images may name the same rows. An empty range selects without text and needs
            redundancy > 0.
        k: S counts of rows to keep, at least 1 each.
        temperature, redundancy, estimator, coverage: as in select.

    Returns:
        int64 indices (sum of k), rows of the packed `visual`: k[0] of image 0, then k[1] of image 1
        and so on, each ascending and ending in -1 where an image has fewer rows than k; and float32
        scores (R), -inf for rows that belong to no image.
    """
    check_relevance(visual, text, None, None, temperature, estimator)
    if visual.dim() != 2:
        raise ValueError(f"visual: got shape {_shape(visual)}, allowed is (R, D)")
    _checks.not_negative("redundancy", redundancy, _SYMBOLS)
    _checks.share("coverage", coverage, _SYMBOLS)
    if isinstance(k, (str, bytes)) or not isinstance(k, Sequence):
        raise TypeError(f"k: got {type(k).__name__}, allowed is a sequence of integers >= 1")
    k = [_checks.count(f"k[{s}]", value) for s, value in enumerate(k)]
    if sum(k) > _LARGEST_RESULT:
        raise ValueError(f"k: got {sum(k)} rows in all, allowed are {_LARGEST_RESULT} or fewer")
    _check_integers("visual_offsets", visual_offsets, visual, (len(k) + 1,))
    _check_integers("text_ranges", text_ranges, visual, (len(k), 2))
    if visual.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_segments(visual, text, visual_offsets, text_ranges, redundancy)
    return torch.ops.mipruner.select_varlen(
        visual, text, visual_offsets, text_ranges, k, temperature, redundancy, estimator, coverage
    )


def gather_rows(rows: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """The rows that were kept: out[..., j] = rows[..., indices[..., j]], a row of zeros for -1.

    For embeddings, DeepStack planes and position numbers alike.

    Args:
        rows: (N, ...) or, with two-dimensional indices, (B, N, ...); any dtype.
        indices: int64 (K) or (B, K) on the same device; -1 stands for a place that select left
            over.

    Returns:
        (K, ...) or (B, K, ...), contiguous, in the dtype of rows.
    """
    check_tensor("rows", rows)
    check_tensor("indices", indices)
    if indices.dim() not in (1, 2):
        raise ValueError(f"indices: got shape {_shape(indices)}, allowed is (K) or (B, K)")
    if rows.dim() < indices.dim() or rows.shape[: indices.dim() - 1] != indices.shape[:-1]:
        allowed = "(N, ...)" if indices.dim() == 1 else f"({indices.shape[0]}, N, ...)"
        raise ValueError(
            f"rows: got shape {_shape(rows)}, allowed is {allowed} for indices of shape "
            f"{_shape(indices)}"
        )
    _check_integers("indices", indices, rows, tuple(indices.shape))
    return torch.ops.mipruner.gather_rows(rows, indices)


# ---- checks ----


def check_relevance(visual, text, visual_mask, text_mask, temperature, estimator):
    _check_rows("visual", visual, "(N, D) or (B, N, D)")
    _check_rows("text", text, "(M, D) or (B, M, D)")
    if text.dim() != visual.dim() or text.shape[:-2] != visual.shape[:-2]:
        raise ValueError(
            f"text: got shape {_shape(text)}, allowed are the dimensions and the batch of visual, "
            f"{_shape(visual)}"
        )
    if text.shape[-1] != visual.shape[-1]:
        raise ValueError(
            f"text: got row width {text.shape[-1]}, allowed is that of visual, {visual.shape[-1]}"
        )
    if visual.shape[-1] == 0:
        raise ValueError("visual: got row width 0, allowed is at least 1")
    if text.dtype != visual.dtype:
        raise TypeError(f"text: got {text.dtype}, allowed is the dtype of visual, {visual.dtype}")
    _check_same_device("text", text, visual)
    _check_mask("visual_mask", visual_mask, visual)
    _check_mask("text_mask", text_mask, text)
    _checks.temperature(temperature, _SYMBOLS)
    _checks.estimator(estimator)


def check_choice(text, redundancy, coverage):
    _checks.not_negative("redundancy", redundancy, _SYMBOLS)
    _checks.share("coverage", coverage, _SYMBOLS)
    if text.shape[-2] == 0 and redundancy == 0:
        raise ValueError(
            "redundancy: got 0 without text rows, allowed is > 0 there: with neither text nor "
            "redundancy nothing tells the rows apart"
        )


def check_tensor(name, x):
    """A tensor whose numbers are all there is to it, one after another in memory."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name}: got {type(x).__name__}, allowed is a torch.Tensor")
    if x.is_nested:
        raise TypeError(f"{name}: got a nested tensor, allowed is a torch.Tensor of one shape")
    if x.layout != torch.strided:
        raise TypeError(f"{name}: got layout {x.layout}, allowed is torch.strided: to_dense()")
    if isinstance(x, torch.masked.MaskedTensor):
        raise TypeError(
            f"{name}: got a MaskedTensor, allowed is a torch.Tensor without a mask: visual_mask "
            "and text_mask say which rows count, and get_data() gives the numbers"
        )
    if hasattr(x, "placements"):  # a DTensor; its module is not loaded for the question
        raise TypeError(
            f"{name}: got {type(x).__name__}, allowed is a torch.Tensor: to_local() gives this "
            "rank's shard, which mi_pruner_cuda.distributed.select takes"
        )


def _check_rows(name, x, allowed):
    check_tensor(name, x)
    if x.dtype not in ROW_DTYPES:
        raise TypeError(f"{name}: got dtype {x.dtype}, allowed are {ROW_DTYPES_IN_WORDS}")
    if x.dim() not in (2, 3):
        raise ValueError(
            f"{name}: got {x.dim()} dimensions, shape {_shape(x)}, allowed is {allowed}"
        )


def _check_mask(name, mask, rows):
    if mask is None:
        return
    check_tensor(name, mask)
    if mask.dtype != torch.bool:
        raise TypeError(f"{name}: got dtype {mask.dtype}, allowed is torch.bool")
    if mask.shape != rows.shape[:-1]:
        raise ValueError(
            f"{name}: got shape {_shape(mask)}, allowed is {_shape(rows[..., 0])}, one per row"
        )
    _check_same_device(name, mask, rows)


def _check_integers(name, x, rows, shape):
    check_tensor(name, x)
    if x.dtype != torch.int64:
        raise TypeError(f"{name}: got dtype {x.dtype}, allowed is torch.int64")
    if tuple(x.shape) != shape:
        raise ValueError(f"{name}: got shape {_shape(x)}, allowed is {shape}")
    _check_same_device(name, x, rows)


def _check_segments(visual, text, visual_offsets, text_ranges, redundancy):
    """Only where the numbers are in host memory: elsewhere looking would wait for the device."""
    sizes = visual_offsets.diff()
    if (sizes < 0).any() or (visual_offsets < 0).any() or (visual_offsets > len(visual)).any():
        raise ValueError(
            f"visual_offsets: got {visual_offsets.tolist()}, allowed are ascending numbers from 0 "
            f"to the {len(visual)} rows of visual"
        )
    begin, end = text_ranges.unbind(1)
    if ((begin < 0) | (end < begin) | (end > len(text))).any():
        raise ValueError(
            f"text_ranges: got {text_ranges.tolist()}, allowed is begin <= end, both from 0 to the "
            f"{len(text)} rows of text"
        )
    if redundancy == 0 and (begin == end).any():
        raise ValueError(
            "redundancy: got 0 with an empty text range, allowed is > 0 there: with neither text "
            "nor redundancy nothing tells the rows apart"
        )


def _check_same_device(name, x, rows):
    if x.device != rows.device:
        raise ValueError(
            f"{name}: got device {x.device}, allowed is that of the rows, {rows.device}"
        )


def _shape(x) -> str:
    return str(tuple(x.shape))
