"""The NumPy door: mi_pruner_cuda.numpy, the same numbers without torch."""

import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

import mi_pruner_cuda
import mi_pruner_cuda.numpy as mnp
from mi_pruner_cuda import ops
from mi_pruner_cuda.build_info import build_info

RANDOM = np.random.default_rng(0)
DTYPES = {
    "float32": (np.dtype("float32"), torch.float32),
    "float16": (np.dtype("float16"), torch.float16),
    "bfloat16": (np.dtype(ml_dtypes.bfloat16), torch.bfloat16),
}
dtypes = pytest.mark.parametrize("dtype", DTYPES)
batches = pytest.mark.parametrize("batch", [(), (3,)], ids=["2d", "3d"])


def rows(*shape, dtype="float32"):
    return RANDOM.standard_normal(shape).astype(DTYPES[dtype][0])


def to_torch(x):
    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.view(np.uint16).copy()).view(torch.bfloat16)
    return torch.from_numpy(x.copy())


def from_torch(x):
    if x.dtype == torch.bfloat16:
        return x.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return x.numpy()


def equal(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# ---- the same bits as torch's door ----


@dtypes
@batches
@pytest.mark.parametrize("redundancy", [0.0, 0.5])
def test_select_gives_torchs_bits(dtype, batch, redundancy):
    visual, text = rows(*batch, 50, 24, dtype=dtype), rows(*batch, 7, 24, dtype=dtype)
    masks = RANDOM.random((*batch, 50)) > 0.2, RANDOM.random((*batch, 7)) > 0.2
    options = {"redundancy": redundancy, "coverage": 0.4}
    ours = mnp.select(visual, text, 9, *masks, **options)
    indices, scores = ops.select(
        to_torch(visual), to_torch(text), 9, *map(torch.from_numpy, masks), **options
    )
    assert equal(ours.indices, indices.numpy()) and equal(ours.scores, scores.numpy())
    assert ours.n_kept == ([9] * 3 if batch else 9)
    assert ours.reason == "selected"


@dtypes
@batches
@pytest.mark.parametrize("estimator", ["specific", "posterior", "joint", "cosine"])
def test_mutual_information_gives_torchs_bits(dtype, batch, estimator):
    visual, text = rows(*batch, 50, 24, dtype=dtype), rows(*batch, 7, 24, dtype=dtype)
    ours = mnp.mutual_information(visual, text, temperature=0.2, estimator=estimator)
    theirs = ops.mutual_information(
        to_torch(visual), to_torch(text), temperature=0.2, estimator=estimator
    )
    assert equal(ours, theirs.numpy())


@dtypes
@batches
def test_normalize_gives_torchs_bits_in_the_same_dtype(dtype, batch):
    x = rows(*batch, 50, 24, dtype=dtype)
    assert equal(mnp.normalize(x), from_torch(ops.normalize(to_torch(x))))


@batches
def test_top_k_gives_torchs_bits(batch):
    scores = rows(*batch, 50)
    values, indices = mnp.top_k(scores, 9)
    expected = ops.top_k(torch.from_numpy(scores), 9)
    assert equal(values, expected[0].numpy()) and equal(indices, expected[1].numpy())


def test_bfloat16_as_bits():
    visual, text = rows(50, 24, dtype="bfloat16"), rows(7, 24, dtype="bfloat16")
    expected = mnp.select(visual, text, 9)
    bits = mnp.select(visual.view(np.uint16), text.view(np.uint16), 9, dtype="bfloat16")
    assert equal(bits.indices, expected.indices) and equal(bits.scores, expected.scores)
    unit = mnp.normalize(visual.view(np.uint16), dtype="bfloat16")
    assert equal(unit.view(ml_dtypes.bfloat16), mnp.normalize(visual))
    named = mnp.select(visual, text, 9, dtype="bfloat16")
    assert equal(named.scores, expected.scores)


# ---- memory ----


def layouts(x):
    """The same values as x, laid out in every way that the door has to deal with."""
    *batch, n, d = x.shape
    wide = np.full((*batch, n, d + 3), np.nan, x.dtype)
    wide[..., 1 : d + 1] = x
    apart = np.full((*batch, 2 * n, d), np.nan, x.dtype)
    apart[..., ::2, :] = x
    packed = np.empty((*batch, n), [("rows", x.dtype, d), ("odd", "u1")])
    packed["rows"] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    return {
        "wider rows, offset": wide[..., 1 : d + 1],
        "every other row": apart[..., ::2, :],
        "column-major": np.asfortranarray(x),
        "backward rows": np.ascontiguousarray(x[..., ::-1, :])[..., ::-1, :],
        "backward columns": np.ascontiguousarray(x[..., ::-1])[..., ::-1],
        "backward batch": np.ascontiguousarray(x[::-1])[::-1],
        "not aligned": packed["rows"],
        "read-only": read_only,
    }


@dtypes
@batches
def test_strides_change_no_bit(dtype, batch):
    visual, text = rows(*batch, 20, 16, dtype=dtype), rows(*batch, 5, 16, dtype=dtype)
    expected = mnp.select(visual, text, 4, redundancy=0.3)
    unit = mnp.normalize(visual)
    for name, laid_out in layouts(visual).items():
        assert np.array_equal(laid_out.astype("f4"), visual.astype("f4")), name
        ours = mnp.select(laid_out, text, 4, redundancy=0.3)
        assert equal(ours.indices, expected.indices) and equal(ours.scores, expected.scores), name
        assert equal(mnp.normalize(laid_out), unit), name
    for name, laid_out in layouts(text).items():
        ours = mnp.select(visual, laid_out, 4, redundancy=0.3)
        assert equal(ours.scores, expected.scores), name


def test_mask_and_score_strides():
    visual, text = rows(3, 20, 16), rows(3, 5, 16)
    mask = (RANDOM.random((20, 6)) > 0.4)[:, ::2].T
    expected = mnp.select(visual, text, 4, mask.copy())
    for laid_out in (mask, np.asfortranarray(mask), mask[::-1].copy()[::-1]):
        ours = mnp.select(visual, text, 4, laid_out)
        assert equal(ours.indices, expected.indices) and equal(ours.scores, expected.scores)
    scores = rows(3, 20)
    for laid_out in (np.asfortranarray(scores), scores[:, ::-1].copy()[:, ::-1]):
        assert equal(mnp.top_k(laid_out, 4)[1], mnp.top_k(scores, 4)[1])


def test_broadcast_rows_are_read_as_they_are():
    visual, text = rows(3, 20, 16), rows(5, 16)
    shared = np.broadcast_to(text, (3, 5, 16))
    expected = mnp.mutual_information(visual, shared.copy())
    assert equal(mnp.mutual_information(visual, shared), expected)


def test_inputs_are_not_written():
    visual, text, mask = rows(20, 16), rows(5, 16), np.ones(20, bool)
    copies = visual.copy(), text.copy(), mask.copy()
    mnp.select(visual, text, 4, mask, redundancy=0.2)
    mnp.normalize(visual)
    assert all(equal(a, b) for a, b in zip((visual, text, mask), copies, strict=True))


def test_empty_arrays():
    kept = mnp.select(rows(0, 20, 16), rows(0, 5, 16), 4)
    assert kept.indices.shape == (0, 4) and kept.scores.shape == (0, 20) and kept.n_kept == []
    kept = mnp.select(rows(0, 16), rows(5, 16), 4)
    assert kept.indices.shape == (0,) and kept.n_kept == 0
    assert mnp.normalize(rows(0, 16)).shape == (0, 16)
    assert mnp.top_k(rows(0), 3)[1].shape == (0,)


# ---- what a Selection says ----


def test_more_than_there_is():
    kept = mnp.select(rows(20, 16), rows(5, 16), 2**70)
    assert kept.n_kept == 20 and kept.reason.startswith("kept all")


def test_masked_rows_are_not_selected():
    mask = np.zeros(20, bool)
    mask[[3, 5]] = True
    visual, text = rows(20, 16), rows(5, 16)
    kept = mnp.select(visual, text, 4, mask)
    assert kept.indices.tolist() == [3, 5] and kept.n_kept == 2 and "kept all" in kept.reason
    kept = mnp.select(visual[None], text[None], 4, mask[None])
    assert kept.indices.tolist() == [[3, 5, -1, -1]] and kept.n_kept == [2]


def test_without_text_and_with_one_word():
    kept = mnp.select(rows(20, 16), rows(0, 16), 4, redundancy=1.0)
    assert kept.n_kept == 4 and "no text" in kept.reason
    assert "one text token" in mnp.select(rows(20, 16), rows(1, 16), 4).reason
    one_left = np.array([False, True, False])
    kept = mnp.select(rows(20, 16), rows(3, 16), 4, text_mask=one_left)
    assert "one text token" in kept.reason


# ---- threads ----


def test_threads_change_no_bit():
    visual, text = rows(2, 300, 64), rows(2, 9, 64)
    expected = mnp.select(visual, text, 40, redundancy=0.2, threads=1)
    for threads in (2, 3, 8, None):
        ours = mnp.select(visual, text, 40, redundancy=0.2, threads=threads)
        assert equal(ours.indices, expected.indices) and equal(ours.scores, expected.scores)


def test_the_interpreter_lock_is_released():
    """While one thread is inside the core, another must get to run Python."""
    visual, text = rows(4000, 512), rows(64, 512)
    done = threading.Event()

    def work():
        mnp.select(visual, text, 400, redundancy=0.2, threads=1)
        done.set()

    start = time.perf_counter()
    work()
    alone = time.perf_counter() - start
    done.clear()
    worker = threading.Thread(target=work)
    worker.start()
    ticks = 0
    while not done.is_set():
        ticks += 1
        time.sleep(alone / 100)
    worker.join()
    # A held lock would let this loop run once or twice: before the call and after it.
    assert ticks >= 10


# ---- bad input ----

V, T = rows(20, 16), rows(5, 16)
# What is wrong: the arguments in place of good ones, the exception, and words of its message.
BAD = {
    "list": ({"visual": [[1.0]]}, TypeError, "visual: got list, allowed is a numpy.ndarray"),
    "tensor": ({"text": torch.ones(5, 16)}, TypeError, "text: got Tensor"),
    "float64": ({"visual": V.astype("f8")}, TypeError, "visual: got dtype float64, allowed are"),
    "byte order": (
        {"visual": V.astype(">f4")},
        TypeError,
        "visual: got dtype byte-swapped float32",
    ),
    "uint16 with no name": (
        {"visual": V.astype("u2")},
        TypeError,
        "visual: got dtype uint16, .*bf",
    ),
    "mixed dtypes": ({"text": T.astype("f2")}, ValueError, "text: got float16, .* float32"),
    "dtype names another": ({"dtype": "float16"}, TypeError, 'float32 with dtype="float16"'),
    "dtype": ({"dtype": "int8"}, ValueError, "dtype: got 'int8', allowed are None, float32"),
    "one dimension": (
        {"visual": V[0]},
        ValueError,
        r"visual: got 1 dimensions, shape \(16,\), all",
    ),
    "mixed ranks": ({"visual": V[None]}, ValueError, r"text: got shape \(5, 16\), .*\(1, 20, 16\)"),
    "mixed batches": (
        {"visual": rows(2, 20, 16), "text": rows(3, 5, 16)},
        ValueError,
        "text: got batch 3, .* 2",
    ),
    "mixed widths": ({"text": T[:, :8]}, ValueError, "text: got row width 8, .* 16"),
    "no text": (
        {"text": T[:0], "redundancy": 0},
        ValueError,
        "redundancy: got 0 without text rows",
    ),
    "k = 0": ({"k": 0}, ValueError, "k: got 0, allowed is an integer >= 1"),
    "k is a float": ({"k": 2.5}, TypeError, "k: got 2.5"),
    "mask is a list": ({"visual_mask": [True] * 20}, TypeError, "visual_mask: got list"),
    "mask dtype": (
        {"visual_mask": np.ones(20)},
        TypeError,
        "visual_mask: got dtype float64, .*bool",
    ),
    "mask shape": (
        {"visual_mask": np.ones(19, bool)},
        ValueError,
        r"visual_mask: got shape \(19,\)",
    ),
    "text mask": ({"text_mask": np.ones(20, bool)}, ValueError, r"text_mask: got shape \(20,\)"),
    "temperature": ({"temperature": 0}, ValueError, "temperature: got 0, allowed is"),
    "temperature is text": ({"temperature": "hot"}, TypeError, "temperature: got 'hot'"),
    "temperature NaN": ({"temperature": np.nan}, ValueError, "temperature: got nan"),
    "redundancy": ({"redundancy": -1}, ValueError, "redundancy: got -1"),
    "coverage": ({"coverage": 1.01}, ValueError, r"coverage: got 1.01, allowed is \[0, 1\]"),
    "coverage is text": ({"coverage": "all"}, TypeError, "coverage: got 'all'"),
    "estimator": ({"estimator": "best"}, ValueError, "estimator: got 'best'"),
    "estimator is a number": ({"estimator": 3}, ValueError, "estimator: got 3"),
    "threads": ({"threads": 0}, ValueError, "threads: got 0, allowed is an integer >= 1"),
    "threads is text": ({"threads": "two"}, TypeError, "threads: got 'two'"),
}


@pytest.mark.parametrize(("wrong", "kind", "message"), BAD.values(), ids=list(BAD))
def test_bad_input(wrong, kind, message):
    with pytest.raises(kind, match=message):
        mnp.select(**{"visual": V, "text": T, "k": 4, **wrong})


def test_bad_input_to_the_other_functions():
    with pytest.raises(ValueError, match="text: got 0 rows"):
        mnp.mutual_information(V, T[:0])
    with pytest.raises(ValueError, match="eps: got 0"):
        mnp.normalize(V, 0)
    with pytest.raises(ValueError, match="x: got 4 dimensions"):
        mnp.normalize(V[None, None])
    with pytest.raises(TypeError, match="scores: got dtype float16, allowed is float32"):
        mnp.top_k(V[0].astype("f2"), 3)
    with pytest.raises(ValueError, match="scores: got 3 dimensions"):
        mnp.top_k(V[None], 3)


# ---- the package without torch ----


def run_without(modules, program):
    """Runs a program in a new interpreter where importing any of the modules fails."""
    block = f"import sys\nfor name in {modules!r}: sys.modules[name] = None\n"
    root = Path(mi_pruner_cuda.__file__).parent.parent
    return subprocess.run(
        [sys.executable, "-c", block + textwrap.dedent(program)],
        cwd=root,
        capture_output=True,
        text=True,
    )


def test_works_without_torch():
    done = run_without(
        ["torch", "transformers", "matplotlib", "PIL"],
        """
        import numpy as np
        import mi_pruner_cuda
        visual = np.eye(6, 8, dtype="float32")
        text = np.eye(2, 8, dtype="float32")
        kept = mi_pruner_cuda.numpy.select(
            visual, text, mi_pruner_cuda.keep_count(6, 0.3), redundancy=0, coverage=0
        )
        assert isinstance(kept, mi_pruner_cuda.Selection)
        print(kept.indices.tolist())
        """,
    )
    assert (done.stdout, done.stderr) == ("[0, 1]\n", "")


def test_what_needs_torch_says_so():
    done = run_without(["torch"], "import mi_pruner_cuda; mi_pruner_cuda.ops")
    assert done.returncode == 1 and "torch" in done.stderr.splitlines()[-1]


def test_importing_loads_nothing_heavy():
    done = run_without(
        [],
        """
        import sys, mi_pruner_cuda
        print([m for m in ("transformers", "matplotlib", "PIL") if m in sys.modules])
        """,
    )
    assert done.stdout == "[]\n"


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        mi_pruner_cuda.nonsense  # noqa: B018
    assert set(mi_pruner_cuda.__all__) <= set(dir(mi_pruner_cuda))


def test_build_info():
    info = build_info()
    assert info["version"] == mi_pruner_cuda.__version__
    assert info["cpu_level"] in info["cpu_levels"] and info["cpu_levels"][0] == "baseline"
    # Machine code for a GPU has a section of its own.
    assert info["has_cuda"] is (
        b".nv_fatbin" in Path(mi_pruner_cuda.numpy._C.__file__).read_bytes()
    )
    assert info["torch_ops"] is True and info["torch"] == torch.__version__
    assert info["compiler"] and "-O" in info["flags"]
