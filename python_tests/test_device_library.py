"""libmipruner_cuda on device memory: a CUDA device's where MIPRUNER_TEST_DEVICE says "cuda", an
emulated device's elsewhere.

bench/gpu_check.py calls every test here on machines that may have torch and nothing else: each is a
function without arguments.
"""

import ctypes
import functools
import os

import torch
from c_library import DEVICE, HOST, INVALID, NOT_SUPPORTED, Context, installed, load, reference_to

from mi_pruner_cuda import ops

ON_CUDA = torch.device(os.environ.get("MIPRUNER_TEST_DEVICE", "cpu")).type == "cuda"
WHERE = "cuda" if ON_CUDA else "cpu"
CUDA = 2
BY_RELEVANCE = {"redundancy": 0.0, "coverage": 0.0}


@functools.cache
def library():
    if ON_CUDA:
        return load(installed("libmipruner_cuda"))
    import emulated

    return load(emulated.library())


def prepare():
    """Called once before the tests, each of which has its own time limit: compiles the emulator."""
    library()


def related(n, m, d, dtype=torch.float32):
    visual, text = torch.randn(n, d), torch.randn(m, d)
    count = min(n // 4, m)
    visual[:count] += text[:count]
    return visual.to(dtype), text.to(dtype)


def on_device(*tensors):
    return [None if t is None else t.to(WHERE) for t in tensors]


def stream():
    return torch.cuda.current_stream().cuda_stream if ON_CUDA else None


def assert_same_choice(visual, text, **params):
    """Device memory gives what host memory gives: scores to 1e-5, and the rows that follow."""
    context = Context(library(), backend=CUDA)
    status, kept, scores, result = context.select(visual, text, **params)
    device = context.select(*on_device(visual, text), memory=DEVICE, **params, stream=stream())
    assert device[0] == status and device[3].n_not_finite == result.n_not_finite
    finite = torch.isfinite(scores)
    assert torch.equal(finite, torch.isfinite(device[2]))
    error = (device[2][finite] - scores[finite]).abs().max()
    assert error <= 1e-5 * scores[finite].abs().max() + 2e-6, error
    assert torch.equal(device[1], kept)  # no scores are so close in these problems
    assert device[3].keep_hash == result.keep_hash


def test_select_of_every_kind():
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        visual, text = related(150, 11, 72, dtype)
        for estimator in ("specific", "posterior", "joint", "cosine"):
            assert_same_choice(visual, text, n_keep=40, estimator=estimator, **BY_RELEVANCE)
            options = {"estimator": estimator, "redundancy": 0.5, "coverage": 0.5}
            assert_same_choice(visual, text, n_keep=40, **options)


def test_select_around_rows_that_stay():
    visual, text = related(90, 7, 40)
    for redundancy, coverage in ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)):
        options = {"redundancy": redundancy, "coverage": coverage}
        assert_same_choice(visual, text, n_keep=20, always_keep=[89, 0, 44, 44], **options)
    assert_same_choice(visual, text, n_keep=3, always_keep=[89, 0, 44])
    assert_same_choice(visual, None, n_keep=20, always_keep=[3], redundancy=1.0)


def test_select_in_other_orders_and_without_text():
    visual, text = related(90, 7, 40)
    assert_same_choice(visual, text, n_keep=20, order=1)
    assert_same_choice(visual, None, n_keep=20, redundancy=0.5, coverage=0.0)
    assert_same_choice(visual, None, n_keep=20)  # what is there by default suffices
    assert_same_choice(visual, text, n_keep=90)
    visual[5] = float("inf")
    assert_same_choice(visual, text, n_keep=20)


def test_a_context_grows_and_shrinks():
    """One context, calls of different sizes: its memory is that of the largest."""
    context = Context(library(), backend=CUDA)
    for n in (10, 300, 40, 500, 7):
        visual, text = related(n, 6, 24)
        _, kept, _, _ = context.select(
            *on_device(visual, text), memory=DEVICE, keep_ratio=0.3, **BY_RELEVANCE
        )
        expected = ops.select(visual, text, kept.numel())[0]
        assert torch.equal(kept, expected)


def enqueue(context, visual, text, indices, scores, capacity, **params):
    return context.library.mipruner_select_async(
        context.pointer, reference_to(visual, DEVICE), reference_to(text, DEVICE),
        ctypes.byref(context.fill(params)), ctypes.c_void_p(indices.data_ptr()), capacity,
        ctypes.c_void_p(scores.data_ptr() if scores is not None else None),
    )  # fmt: skip


def test_select_and_gather_on_a_stream():
    context = Context(library(), backend=CUDA)
    visual, text = related(200, 9, 48)
    rows, words = on_device(visual, text)
    indices = torch.full((50,), -7, dtype=torch.int64, device=WHERE)
    scores = torch.empty(200, device=WHERE)
    for out in (scores, None):
        params = {"n_keep": 50, "stream": stream(), **BY_RELEVANCE}
        status = enqueue(context, rows, words, indices, out, 50, **params)
        assert status == 0, context.message()
    packed = torch.empty(50, 48, device=WHERE)
    status = context.library.mipruner_gather_rows_async(
        context.pointer, ctypes.c_void_p(packed.data_ptr()), ctypes.c_void_p(rows.data_ptr()),
        ctypes.c_int64(200), ctypes.c_size_t(48 * 4), ctypes.c_size_t(0),
        ctypes.c_void_p(indices.data_ptr()), 50, ctypes.c_void_p(stream()),
    )  # fmt: skip
    assert status == 0, context.message()
    expected, expected_scores = ops.select(visual, text, 50)
    assert torch.equal(indices.cpu(), expected)
    assert torch.equal(packed.cpu(), visual[expected])
    assert (scores.cpu() - expected_scores).abs().max() < 1e-5 * expected_scores.abs().max() + 2e-6


def test_what_cannot_be_enqueued_is_refused():
    context = Context(library(), backend=CUDA)
    rows, words = on_device(*related(30, 4, 16))
    indices = torch.full((30,), -7, dtype=torch.int64, device=WHERE)
    refused = {
        "order: got 1": {"order": 1},
        "always_keep: got 1 rows": {"always_keep": [3]},
        "n_keep: got -1": {"n_keep": -1},
    }
    for message, params in refused.items():
        assert enqueue(context, rows, words, indices, None, 30, **params) in (
            INVALID,
            NOT_SUPPORTED,
        )
        assert message in context.message()
    assert (indices == -7).all()


def test_memory_of_two_kinds_is_refused():
    context = Context(library(), backend=CUDA)
    visual, text = related(30, 4, 16)
    kept = torch.full((30,), -7, dtype=torch.int32)
    params = context.fill({"n_keep": 5})
    status = context.library.mipruner_select(
        context.pointer, reference_to(*on_device(visual), DEVICE), reference_to(text, HOST),
        ctypes.byref(params), ctypes.c_void_p(kept.data_ptr()), 30, None, None,
    )  # fmt: skip
    assert status == INVALID and "text: got device cpu" in context.message()
    assert (kept == -7).all()


def test_devices_are_counted():
    try:
        Context(library(), backend=CUDA, device_id=1000)
    except RuntimeError as error:
        assert "device_id: got 1000" in str(error)
    else:
        raise AssertionError("device 1000 was accepted")
