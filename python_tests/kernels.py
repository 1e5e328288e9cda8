"""The compiled kernels at any level, on torch tensors, to be compared with the reference.

They are called through `_C`, whose level can be changed within one process; test_ops.py and
test_numpy.py show that the doors that users call give the same bits. The last level is CUDA_LEVEL,
the CUDA kernels on an emulated device: every test of every operation runs there too.
"""

from contextlib import contextmanager

import emulated
import ml_dtypes
import numpy as np
import torch

from mi_pruner_cuda import _C

# Every level that this machine can run; "emulated" is avx512_bf16's code on baseline instructions.
CPU_LEVELS = _C.build_info()["cpu_levels"]
CUDA_LEVEL = "cuda_emulated"
LEVELS = [*CPU_LEVELS, CUDA_LEVEL]
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ESTIMATORS = ("specific", "posterior", "joint", "cosine")


_active = _C


@contextmanager
def at_level(level):
    """Runs the body at one level."""
    global _active
    if level == CUDA_LEVEL:
        _active = emulated.module()
    else:
        _C.set_cpu_level(level)
    try:
        yield
    finally:
        _active = _C
        _C.set_cpu_level(None)


def array(x):
    """The same memory as a NumPy array."""
    if x is None or isinstance(x, np.ndarray):
        return x
    if x.dtype == torch.bfloat16:
        return x.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return x.numpy()


def tensor(x):
    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(x)


def normalize(x, eps=1e-12, threads=1):
    return tensor(_active.normalize(array(x), eps, threads=threads))


def mutual_information(visual, text, visual_mask=None, text_mask=None, **options):
    masks = array(visual_mask), array(text_mask)
    return tensor(_active.mutual_information(array(visual), array(text), *masks, **options))


def top_k(scores, k, threads=1):
    values, indices = _active.top_k(array(scores), k, threads=threads)
    return tensor(values), tensor(indices)


def select(visual, text, k, visual_mask=None, text_mask=None, **options):
    masks = array(visual_mask), array(text_mask)
    indices, scores = _active.select(array(visual), array(text), k, *masks, **options)
    return tensor(indices), tensor(scores)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and array(a).tobytes() == array(b).tobytes()


def resolution(temperature):
    """What float32 can resolve of a score, in nats: probabilities carry a relative error of a few
    2^-24, and exponents of up to 1 / temperature one unit in their last place, 2^-23 of them.
    """
    return 2.0**-23 * max(4.0, 1 / temperature)


def assert_scores_close(ours, exact, temperature=0.1):
    """Within the contract's 1e-5 of the largest score, and what float32 can resolve beside it.

    The relative part grows below temperature 0.05, where the exponents, cosine / temperature, are
    so large that one unit in their last place is more than 1e-5 / 2.
    """
    tolerance = 1e-5 * max(1.0, 0.05 / temperature)
    finite = torch.isfinite(exact)
    assert torch.equal(torch.isfinite(ours), finite)
    assert (ours[~finite] == -torch.inf).all()
    if not finite.any():
        return
    largest = exact[finite].abs().max().item()
    error = (ours[finite].double() - exact[finite].double()).abs().max().item()
    assert error <= tolerance * largest + resolution(temperature), (error, largest)


def assert_top(indices, scores, k, tolerance=1e-5):
    """indices are the k largest exact scores, but for exchanges within the tolerance."""
    assert indices.unique().numel() == indices.numel() == min(k, scores.numel())
    assert torch.equal(indices, indices.sort().values)
    chosen = torch.zeros(scores.shape, dtype=torch.bool)
    chosen[indices] = True
    if chosen.all():
        return
    slack = tolerance * scores[torch.isfinite(scores)].abs().max().item() + resolution(0.1)
    assert scores[chosen].min() >= scores[~chosen].max() - slack
