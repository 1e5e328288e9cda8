"""torch.ops.mipruner.*, and checked functions over them.

The functions here say what is wrong with an argument as ValueError or TypeError before anything
runs; the operators themselves check too, but every error that leaves them is a RuntimeError. All of
them work under torch.compile, torch.export and fake tensors.

Gradients: the results are constants. Nothing here is differentiable, outputs never require a
gradient whatever the inputs do (as under torch.no_grad), and calling backward on them raises
torch's own error. Autocast changes nothing: float32 rows stay float32.
"""

from pathlib import Path

import torch

from . import _checks

_LIBRARY_FILE = Path(__file__).with_name("_ops.so")

_ROW_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
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
for _name in ("normalize", "mutual_information", "top_k", "select"):
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
):
    shape = (*visual.shape[:-2], torch.sym_min(k, visual.shape[-2]))
    indices = visual.new_empty(shape, dtype=torch.int64)
    return indices, visual.new_empty(visual.shape[:-1], dtype=torch.float32)


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
    _check_tensor("scores", scores)
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
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k rows to keep, and every row's relevance.

    Args: as in mutual_information, and
        text: M = 0 selects without text, by redundancy alone, and needs redundancy > 0.
        k: at least 1; more than N keeps all N.
        redundancy: lambda >= 0; 0 is exactly the top k by relevance.

    Returns:
        int64 indices, ascending, (min(k, N)) or (B, min(k, N)), and float32 scores (N) or (B, N).
        An item with fewer unmasked rows than that ends in -1.
    """
    check_relevance(visual, text, visual_mask, text_mask, temperature, estimator)
    _checks.not_negative("redundancy", redundancy, _SYMBOLS)
    if text.shape[-2] == 0 and redundancy == 0:
        raise ValueError(
            "redundancy: got 0 without text rows, allowed is > 0 there: with neither text nor "
            "redundancy nothing tells the rows apart"
        )
    k = _checks.count("k", k, _SYMBOLS)
    return torch.ops.mipruner.select(
        visual, text, k, visual_mask, text_mask, temperature, redundancy, estimator
    )


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


def _check_tensor(name, x):
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name}: got {type(x).__name__}, allowed is a torch.Tensor")


def _check_rows(name, x, allowed):
    _check_tensor(name, x)
    if x.dtype not in _ROW_DTYPES:
        raise TypeError(
            f"{name}: got dtype {x.dtype}, allowed are torch.float32, torch.float16 and "
            "torch.bfloat16"
        )
    if x.dim() not in (2, 3):
        raise ValueError(
            f"{name}: got {x.dim()} dimensions, shape {_shape(x)}, allowed is {allowed}"
        )


def _check_mask(name, mask, rows):
    if mask is None:
        return
    _check_tensor(name, mask)
    if mask.dtype != torch.bool:
        raise TypeError(f"{name}: got dtype {mask.dtype}, allowed is torch.bool")
    if mask.shape != rows.shape[:-1]:
        raise ValueError(
            f"{name}: got shape {_shape(mask)}, allowed is {_shape(rows[..., 0])}, one per row"
        )
    _check_same_device(name, mask, rows)


def _check_same_device(name, x, rows):
    if x.device != rows.device:
        raise ValueError(
            f"{name}: got device {x.device}, allowed is that of the rows, {rows.device}"
        )


def _shape(x) -> str:
    return str(tuple(x.shape))
