"""libmipruner gives the bits of torch's door, and the reference's answers, through another
language."""

import ctypes
import math
from ctypes import c_float, c_int32

import pytest
import torch
from c_library import ESTIMATORS, Context, SelectParams, installed, load, reference_to
from hypothesis import example, given
from hypothesis import strategies as st
from inputs import problems, related
from kernels import assert_scores_close

import mi_pruner_cuda
from mi_pruner_cuda import defaults, ops, reference

LIBRARY = load()
OK, KEPT_ALL, DEGENERATE = 0, 1, 2


@pytest.fixture(scope="module")
def context():
    return Context(LIBRARY)


def test_it_is_the_version_of_the_package():
    assert LIBRARY.mipruner_version().decode() == mi_pruner_cuda.__version__
    assert LIBRARY.mipruner_abi_version() == 1


# ---- defaults ----


def test_the_defaults_are_pythons(context):
    params = context.fill({})
    assert params.redundancy == c_float(defaults.REDUNDANCY).value
    assert params.coverage == defaults.COVERAGE
    assert params.temperature == c_float(defaults.TEMPERATURE).value
    assert params.estimator == 0 and ESTIMATORS.index(defaults.ESTIMATOR) == 1  # what 0 stands for


@pytest.mark.parametrize("words", [0, 5])
def test_without_params_the_defaults_hold(context, words):
    visual, text = related(40, 5, 24)
    kept = (c_int32 * 40)()
    status = LIBRARY.mipruner_select(
        context.pointer, reference_to(visual), reference_to(text[:words]), None, kept, 40, None,
        None,
    )  # fmt: skip
    expected, _ = ops.select(
        visual, text[:words], 10, redundancy=defaults.REDUNDANCY, coverage=defaults.COVERAGE
    )
    assert status == OK and list(kept)[:10] == expected.tolist()


def test_a_program_of_the_first_release_has_its_defaults(context):
    """With the struct of 64 bytes it keeps what it kept before the library was replaced."""
    params = SelectParams(coverage=1.0)
    LIBRARY.mipruner_select_params_init(ctypes.byref(params), 64)
    assert (params.struct_size, params.redundancy, params.coverage) == (64, 0.0, 1.0)
    visual, text = related(40, 5, 24)
    kept = (c_int32 * 40)()
    LIBRARY.mipruner_select(
        context.pointer, reference_to(visual), reference_to(text), ctypes.byref(params), kept, 40,
        None, None,
    )  # fmt: skip
    assert list(kept)[:10] == ops.select(visual, text, 10)[0].tolist()


# ---- budgets ----


@given(st.integers(0, 2**40), st.floats(0, 1, exclude_min=True))
@example(5, 0.7)  # 3.5 rounds up; as a float32 the ratio would be below 0.7 and keep 3
@example(2**53 + 1, 1.0)
@example(2**53 + 1, 0.1)
@example(1, 1e-300)
def test_keep_count_is_pythons(n, ratio):
    assert LIBRARY.mipruner_keep_count(n, ratio) == mi_pruner_cuda.keep_count(n, ratio)


def fnv_1a(numbers):
    value = 0xCBF29CE484222325
    for number in numbers:
        for byte in number.to_bytes(8, "little"):
            value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


# ---- selection ----


@st.composite
def selections(draw):
    visual, text, _, _ = draw(problems(masks=False))
    n = visual.shape[0]
    return visual, text, {
        "n_keep": draw(st.integers(1, n + 3)),
        "redundancy": draw(st.sampled_from([0.0, 0.25, 1.0])),
        "coverage": draw(st.sampled_from([0.0, 0.0, 0.3, 0.5, 1.0])),
        "estimator": draw(st.sampled_from(["specific", "posterior", "joint", "cosine"])),
        "temperature": draw(st.sampled_from([0.05, 0.1, 1.0])),
    }  # fmt: skip


@given(selections(), st.integers(1, 4))
def test_select_gives_torchs_bits(problem, threads):
    visual, text, params = problem
    status, kept, scores, result = Context(LIBRARY, n_threads=threads).select(
        visual, text, **params
    )
    k = params.pop("n_keep")
    indices, expected = ops.select(visual, text, k, **params)
    assert torch.equal(kept, indices)
    assert torch.equal(scores.view(torch.int32), expected.view(torch.int32))
    n = visual.shape[0]
    assert result.n_keep == min(k, n) and result.n_rows == n
    assert result.keep_hash == fnv_1a([n, *kept.tolist()])
    assert result.n_not_finite == int(torch.isinf(expected).sum())
    assert (status == KEPT_ALL) == (k >= n)


@given(selections())
def test_scores_are_the_references(problem):
    visual, text, params = problem
    _, _, scores, _ = Context(LIBRARY).select(visual, text, **params)
    exact = reference.mutual_information(
        visual.double(), text.double(), temperature=params["temperature"],
        estimator=params["estimator"],
    )  # fmt: skip
    assert_scores_close(scores, exact, params["temperature"])


@given(selections(), st.data())
def test_always_keep_is_pythons(problem, data):
    visual, text, params = problem
    n = visual.shape[0]
    k = min(params.pop("n_keep"), n)
    always = data.draw(st.lists(st.integers(0, n - 1), max_size=k))
    _, kept, scores, _ = Context(LIBRARY).select(
        visual, text, n_keep=k, always_keep=always, **params
    )
    expected = mi_pruner_cuda.select(visual, text, k, always_keep=always or None, **params)
    assert set(always) <= set(kept.tolist())
    assert torch.equal(kept, expected.indices)
    assert torch.equal(scores.view(torch.int32), expected.scores.view(torch.int32))


@given(selections(), st.data())
def test_coverage_is_of_the_rows_besides_those_always_kept(problem, data):
    visual, text, params = problem
    n = visual.shape[0]
    k = min(params.pop("n_keep"), n)
    always = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=k, unique=True))
    _, kept, scores, _ = Context(LIBRARY).select(
        visual, text, n_keep=k, always_keep=always, **params
    )
    others = torch.ones(n, dtype=torch.bool)
    others[always] = False
    left = k - len(always)
    if left > 0 and params["redundancy"] > 0:
        chosen = ops.select(visual, text, left, others, **params)[0]
    else:
        # The covered rows, then the best of the others by their relevance among all rows.
        candidates = (others & torch.isfinite(visual).all(1)).nonzero()[:, 0]
        count = reference.coverage_count(params["coverage"], left, len(candidates))
        ranking = scores.clone()
        ranking[candidates[reference.coverage_positions(len(candidates), count)]] = math.inf
        chosen = others.nonzero()[:, 0]
        chosen = chosen[reference.top_k(ranking[chosen], left)[1]]
    assert kept.tolist() == sorted([*always, *chosen.tolist()])


def test_a_program_of_the_first_release_has_no_coverage(context):
    visual, text = related(40, 5, 24)
    expected = context.select(visual, text, n_keep=10, coverage=0.0)[1]
    covered = context.select(visual, text, n_keep=10, coverage=1.0)[1]
    assert covered.tolist() == reference.coverage_positions(40, 10) != expected.tolist()
    old = context.select(visual, text, n_keep=10, coverage=1.0, struct_size=64)[1]
    assert torch.equal(old, expected)


def test_rows_between_others_are_read_where_they_lie(context):
    """As DeepStack rows are: the scored columns first, other planes behind them."""
    visual, text = related(60, 9, 32)
    wide = torch.randn(60, 96)
    wide[:, :32] = visual
    strided = wide[:, :32]
    assert strided.stride(0) == 96
    alone, beside = (context.select(v, text, n_keep=15) for v in (visual, strided))
    assert torch.equal(alone[1], beside[1]) and torch.equal(alone[2], beside[2])


def test_without_text_redundancy_decides(context):
    visual, _ = related(50, 5, 24)
    status, kept, _, _ = context.select(visual, None, n_keep=10, redundancy=0.5, coverage=0.0)
    expected, _ = ops.select(visual, visual[:0], 10, redundancy=0.5)
    assert status == OK and torch.equal(kept, expected)
    with pytest.raises(RuntimeError, match="redundancy: got 0 without text rows"):
        context.select(visual, None, n_keep=10, redundancy=0.0)


def test_order_by_score(context):
    visual, text = related(50, 5, 24)
    _, ascending, scores, by_index = context.select(visual, text, n_keep=12)
    _, best_first, _, by_score = context.select(visual, text, n_keep=12, order=1)
    assert torch.equal(best_first, ascending[scores[ascending].argsort(descending=True)])
    assert by_index.keep_hash == by_score.keep_hash


def test_images_of_few_tokens_are_kept_whole(context):
    visual, text = related(40, 5, 24)
    assert context.select(visual, text, n_keep=4, min_tokens=40)[0] == KEPT_ALL
    status, kept, _, _ = context.select(visual, text, keep_ratio=0.1, min_tokens=39)
    assert status == OK and kept.numel() == mi_pruner_cuda.keep_count(40, 0.1)


def test_degenerate_inputs_are_told(context, capfd):
    visual, text = related(40, 5, 24)
    visual[7, 3] = math.nan
    status, kept, scores, result = context.select(visual, text, n_keep=39)
    assert status == DEGENERATE and 7 not in kept and scores[7] == -math.inf
    assert result.n_not_finite == 1
    assert "1 of 40 visual rows hold NaN or Inf" in capfd.readouterr().err
    by_relevance = {"redundancy": 0.0, "coverage": 0.0}
    status, kept, _, _ = context.select(visual[8:], torch.zeros(5, 24), n_keep=4, **by_relevance)
    assert status == DEGENERATE and kept.tolist() == [0, 1, 2, 3]


def test_the_library_with_cuda_serves_machines_without(context):
    path = installed("libmipruner_cuda")
    if path is None:
        pytest.skip("this package was built without nvcc")
    library = load(path)
    visual, text = related(40, 5, 24)
    automatic = Context(library).select(visual, text, n_keep=10)
    assert torch.equal(automatic[1], context.select(visual, text, n_keep=10)[1])
    if torch.cuda.is_available():
        return  # test_device_library.py has the rest
    with pytest.raises(RuntimeError, match="cudaGetDeviceCount: "):
        Context(library, backend=2)


def test_the_library_for_the_processor_has_no_other_backend():
    with pytest.raises(RuntimeError, match="no CUDA kernels; link libmipruner_cuda"):
        Context(LIBRARY, backend=2)
    with pytest.raises(RuntimeError, match=r"backend: got 3, allowed are 0 to 2"):
        Context(LIBRARY, backend=3)
