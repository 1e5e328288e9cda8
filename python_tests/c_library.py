"""libmipruner through ctypes: mipruner.h as another language sees it."""

import ctypes
from ctypes import POINTER, c_double, c_float, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from pathlib import Path

import torch

import mi_pruner_cuda

INVALID, OUT_OF_MEMORY, TOO_SMALL, NOT_SUPPORTED = -1, -2, -3, -4
HOST, DEVICE = 0, 1
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 30}
ESTIMATORS = ["default", "specific", "posterior", "joint", "cosine"]


class View(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p), ("n_rows", c_int64), ("n_cols", c_int64), ("row_stride", c_int64),
        ("dtype", c_int32), ("memory", c_int32),
    ]  # fmt: skip


class ContextParams(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("backend", c_int32), ("device_id", c_int32),
        ("n_threads", c_int32), ("reserved", c_int32), ("max_workspace", c_uint64),
        ("abort_callback", c_void_p), ("abort_user_data", c_void_p),
    ]  # fmt: skip


class SelectParams(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("keep_ratio", c_double), ("n_keep", c_int32),
        ("min_tokens", c_int32), ("estimator", c_int32), ("order", c_int32),
        ("temperature", c_float), ("redundancy", c_float), ("always_keep", POINTER(c_int32)),
        ("n_always_keep", c_int64), ("stream", c_void_p), ("coverage", c_double),
    ]  # fmt: skip


class Result(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t), ("keep_hash", c_uint64), ("workspace", c_uint64),
        ("n_rows", c_int32), ("n_keep", c_int32), ("n_not_finite", c_int32), ("t_ms", c_float),
    ]  # fmt: skip


def installed(name):
    """The path of a library that came with this package, or None."""
    folder = Path(mi_pruner_cuda.get_include()).parent
    return next(folder.glob(f"lib*/{name}.so.*"), None)


def load(path=None):
    """The library at the path, or the package's own for the processor."""
    library = ctypes.CDLL(str(path or installed("libmipruner")))
    library.mipruner_keep_count.restype = c_int64
    library.mipruner_keep_count.argtypes = [c_int64, c_double]
    library.mipruner_keep_hash.restype = c_uint64
    library.mipruner_last_error.restype = ctypes.c_char_p
    library.mipruner_last_error.argtypes = [c_void_p]
    library.mipruner_free.argtypes = [c_void_p]
    library.mipruner_version.restype = ctypes.c_char_p
    return library


class Context:
    """One context; raises RuntimeError with the library's sentence."""

    def __init__(self, library, **params):
        self.library = library
        filled = ContextParams()
        library.mipruner_context_params_init(ctypes.byref(filled), ctypes.sizeof(filled))
        for name, value in params.items():
            setattr(filled, name, value)
        self.pointer = c_void_p()
        status = library.mipruner_init(ctypes.byref(filled), ctypes.byref(self.pointer))
        if status < 0:
            raise RuntimeError(library.mipruner_last_error(None).decode())

    def __del__(self):
        self.library.mipruner_free(self.pointer)

    def message(self):
        return self.library.mipruner_last_error(self.pointer).decode()

    def fill(self, params):
        """The struct, its defaults replaced by `params`."""
        filled = SelectParams()
        self.library.mipruner_select_params_init(ctypes.byref(filled), ctypes.sizeof(filled))
        always_keep = params.pop("always_keep", None)
        if always_keep is not None:
            filled.always_keep = (c_int32 * len(always_keep))(*always_keep)
            filled.n_always_keep = len(always_keep)
        for name, value in params.items():
            setattr(filled, name, ESTIMATORS.index(value) if name == "estimator" else value)
        return filled

    def select(self, visual, text, memory=HOST, **params):
        """(status, kept rows, scores, Result) for 2-D tensors; text may be None."""
        filled = self.fill(params)
        n = visual.shape[0]
        kept = torch.full((max(n, 1),), -7, dtype=torch.int32)
        scores = torch.empty(n)
        result = Result(struct_size=ctypes.sizeof(Result))
        status = self.library.mipruner_select(
            self.pointer, reference_to(visual, memory), reference_to(text, memory),
            ctypes.byref(filled), c_void_p(kept.data_ptr()), n, c_void_p(scores.data_ptr()),
            ctypes.byref(result),
        )  # fmt: skip
        if status < 0:
            raise RuntimeError(self.message())
        return status, kept[: result.n_keep].long(), scores, result


def reference_to(rows, memory=HOST):
    """To a view of a 2-D tensor whose rows are contiguous, at any distance; NULL for None."""
    if rows is None:
        return None
    assert rows.stride(1) == 1 or rows.shape[1] == 1
    stride = max(rows.stride(0), rows.shape[1])
    return ctypes.byref(View(rows.data_ptr(), *rows.shape, stride, DTYPES[rows.dtype], memory))
