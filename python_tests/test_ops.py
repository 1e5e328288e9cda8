"""The torch door: how torch.ops.mipruner.* behaves as operators.

What they compute is tested elsewhere; here it is shapes, tracing, gradients, autocast, strides,
errors.
"""

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.library import opcheck

import mi_pruner_cuda
from mi_pruner_cuda import ops, reference

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def rows(*shape, dtype=torch.float32, grad=False):
    return torch.randn(shape).to(dtype).requires_grad_(grad)


def calls(dtype=torch.float32, batch=(), grad=False):
    """One call of each operator: (operator, positional arguments, keyword arguments)."""
    visual = rows(*batch, 20, 16, dtype=dtype, grad=grad)
    text = rows(*batch, 5, 16, dtype=dtype, grad=grad)
    masks = {
        "visual_mask": torch.rand(*batch, 20) > 0.3,
        "text_mask": torch.rand(*batch, 5) > 0.3,
    }
    scores = rows(*batch, 20, grad=grad)
    kept = torch.tensor([0, 7, 19, -1])
    flat, words = visual.flatten(0, -2), text.flatten(0, -2)
    offsets, ranges = torch.tensor([0, 6, 20]), torch.tensor([[0, 5], [1, 3]])
    namespace = torch.ops.mipruner
    return [
        (namespace.normalize.default, (visual,), {"eps": 1e-6}),
        (namespace.mutual_information.default, (visual, text), masks),
        (namespace.mutual_information.default, (visual, text), {"estimator": "joint"}),
        (namespace.top_k.default, (scores, 7), {}),
        (namespace.top_k.default, (scores, 50), {}),
        (namespace.select.default, (visual, text, 6), {}),
        (namespace.select.default, (visual, text, 6), {"redundancy": 0.5, **masks}),
        (namespace.select.default, (visual, text[..., :0, :], 50), {"redundancy": 0.5}),
        (namespace.select.default, (visual, text, 6), {"coverage": 0.5, **masks}),
        (namespace.gather_rows.default, (visual, kept.expand(*batch, 4)), {}),
        (namespace.select_varlen.default, (flat, words, offsets, ranges, [3, 9]), {}),
        (
            namespace.select_varlen.default,
            (flat, words, offsets, ranges, [3, 9]),
            {"redundancy": 0.5, "coverage": 0.5},
        ),
    ]


def tensors(result):
    return result if isinstance(result, tuple) else (result,)


def same(result, expected):
    pairs = zip(tensors(result), tensors(expected), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# ---- registration ----


def test_the_schemas_are_the_documented_ones():
    expected = {
        "normalize": "mipruner::normalize(Tensor x, float eps=9.9999999999999998e-13) -> Tensor",
        "mutual_information": "mipruner::mutual_information(Tensor visual, Tensor text, "
        "Tensor? visual_mask=None, Tensor? text_mask=None, float temperature=0.10000000000000001, "
        'str estimator="specific") -> Tensor',
        "top_k": "mipruner::top_k(Tensor scores, SymInt k) -> (Tensor values, Tensor indices)",
        "select": "mipruner::select(Tensor visual, Tensor text, SymInt k, "
        "Tensor? visual_mask=None, Tensor? text_mask=None, float temperature=0.10000000000000001, "
        'float redundancy=0., str estimator="specific", float coverage=0.) -> '
        "(Tensor indices, Tensor scores)",
        "select_varlen": "mipruner::select_varlen(Tensor visual, Tensor text, "
        "Tensor visual_offsets, Tensor text_ranges, int[] k, "
        "float temperature=0.10000000000000001, float redundancy=0., "
        'str estimator="specific", float coverage=0.) -> (Tensor indices, Tensor scores)',
        "gather_rows": "mipruner::gather_rows(Tensor rows, Tensor indices) -> Tensor",
    }
    operators = torch.ops.mipruner
    assert expected == {name: str(getattr(operators, name).default._schema) for name in expected}


@dtypes
@pytest.mark.parametrize("batch", [(), (3,)], ids=["2d", "3d"])
@pytest.mark.parametrize("grad", [False, True], ids=["constant", "requires_grad"])
def test_opcheck(dtype, batch, grad):
    for operator, arguments, keywords in calls(dtype, batch, grad):
        opcheck(operator, arguments, keywords)


@dtypes
@pytest.mark.parametrize("batch", [(), (3,)], ids=["2d", "3d"])
def test_meta_tensors_get_the_shapes_and_dtypes_of_real_ones(dtype, batch):
    def to_meta(value):
        return value.to("meta") if isinstance(value, torch.Tensor) else value

    for operator, arguments, keywords in calls(dtype, batch):
        real = tensors(operator(*arguments, **keywords))
        meta = tensors(
            operator(*map(to_meta, arguments), **{k: to_meta(v) for k, v in keywords.items()})
        )
        assert [(m.shape, m.dtype, m.stride()) for m in meta] == [
            (r.shape, r.dtype, r.stride()) for r in real
        ]
        assert all(m.device.type == "meta" for m in meta)


def test_importing_the_package_registers_the_ops():
    assert torch.ops.mipruner.select is not None
    indices, scores = torch.ops.mipruner.select(rows(576, 64), rows(8, 64), 64)
    assert indices.shape == (64,) and scores.shape == (576,)


# ---- tracing ----


def prune(visual, text, k):
    indices, scores = ops.select(visual, text, k, redundancy=0.1, coverage=0.5)
    values, _ = ops.top_k(ops.mutual_information(visual, text), k)
    return visual[indices], ops.normalize(text), scores, values


def test_dynamic_compile_makes_one_graph():
    counter = CompileCounter()
    compiled = torch.compile(prune, fullgraph=True, dynamic=True, backend=counter)
    # k below, at and above the number of rows.
    for n, m, k in [(20, 5, 4), (33, 6, 7), (64, 5, 64), (9, 12, 20), (300, 2, 30)]:
        visual, text = rows(n, 16), rows(m, 16)
        assert same(compiled(visual, text, k), prune(visual, text, k))
    assert counter.frame_count == 1


@pytest.mark.slow
def test_inductor_compiles_it():
    visual, text = rows(40, 16), rows(5, 16)
    compiled = torch.compile(prune, fullgraph=True, dynamic=True)
    assert same(compiled(visual, text, 7), prune(visual, text, 7))


@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
def test_export_with_dynamic_rows_and_a_count_that_follows_them(strict):
    class Pruner(torch.nn.Module):
        def forward(self, visual, text):
            return prune(visual, text, visual.shape[0] // 4)

    text = rows(5, 16)
    n = torch.export.Dim("n", min=8, max=4096)
    program = torch.export.export(
        Pruner(), (rows(20, 16), text), dynamic_shapes=({0: n}, None), strict=strict
    )
    for count in (8, 20, 101):
        visual = rows(count, 16)
        assert same(program.module()(visual, text), Pruner()(visual, text))


# ---- gradients and autocast ----


@dtypes
def test_outputs_are_constants_to_autograd(dtype):
    for operator, arguments, keywords in calls(dtype, grad=True):
        results = tensors(operator(*arguments, **keywords))
        assert not any(result.requires_grad for result in results)
        for result in results:
            if result.dtype.is_floating_point:
                with pytest.raises(RuntimeError, match="does not require grad"):
                    result.sum().backward()


def test_gradients_flow_around_the_selection():
    visual, text = rows(20, 16, grad=True), rows(5, 16, grad=True)
    indices, scores = ops.select(visual, text, 4)
    (visual[indices].sum() + (visual.sum(1) * scores).sum()).backward()
    expected = scores[:, None].expand(20, 16).clone()
    expected[indices] += 1
    torch.testing.assert_close(visual.grad, expected)
    assert text.grad is None


def test_inference_mode_and_no_grad_change_nothing():
    visual, text = rows(20, 16), rows(5, 16)
    expected = ops.select(visual, text, 4)
    with torch.inference_mode():
        assert same(ops.select(visual, text, 4), expected)
    with torch.no_grad():
        assert same(ops.select(visual.requires_grad_(), text, 4), expected)


@pytest.mark.parametrize("to", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_changes_nothing(to):
    for operator, arguments, keywords in calls():
        expected = operator(*arguments, **keywords)
        with torch.autocast("cpu", dtype=to):
            result = operator(*arguments, **keywords)
        assert same(result, expected)
        assert [r.dtype for r in tensors(result)] == [e.dtype for e in tensors(expected)]


# ---- memory ----


def layouts(x):
    """The same values as x, laid out in every way that the door has to deal with."""
    *batch, n, d = x.shape
    wide = x.new_full((*batch, n, d + 3), float("nan"))
    wide[..., 1 : d + 1] = x
    apart = x.new_full((*batch, 2 * n, d), float("nan"))
    apart[..., ::2, :] = x
    return {
        "contiguous": x,
        "wider rows, offset": wide[..., 1 : d + 1],
        "every other row": apart[..., ::2, :],
        "column-major": x.mT.contiguous().mT,
        "every other column": x.repeat_interleave(2, -1)[..., ::2],
        "negative bits": (-x)._neg_view(),
    }


@dtypes
@pytest.mark.parametrize("batch", [(), (3,)], ids=["2d", "3d"])
def test_strides_change_no_bit(dtype, batch):
    visual, text = rows(*batch, 20, 16, dtype=dtype), rows(*batch, 5, 16, dtype=dtype)
    selected, unit = ops.select(visual, text, 4, redundancy=0.3), ops.normalize(visual)
    for name, laid_out in layouts(visual).items():
        assert same(ops.select(laid_out, text, 4, redundancy=0.3), selected), name
        assert same(ops.normalize(laid_out), unit), name
    for name, laid_out in layouts(text).items():
        assert same(ops.select(visual, laid_out, 4, redundancy=0.3), selected), name


def test_expanded_rows_are_read_as_they_are():
    visual, text = rows(3, 20, 16), rows(5, 16)
    each = ops.mutual_information(visual, text.expand(3, 5, 16))
    assert same(each, ops.mutual_information(visual, text.repeat(3, 1, 1)))
    alike = rows(1, 16).expand(20, 16)
    assert same(ops.mutual_information(alike, text), ops.mutual_information(alike.clone(), text))


def test_overlapping_rows_are_read_as_they_are():
    line = torch.randn(40)
    sliding = line.unfold(0, 16, 1)
    text = rows(5, 16)
    expected = ops.mutual_information(sliding.clone(), text)
    assert same(ops.mutual_information(sliding, text), expected)


def test_mask_and_score_strides():
    visual, text = rows(3, 20, 16), rows(3, 5, 16)
    wide = torch.rand(20, 6) > 0.4
    mask = wide[:, ::2].mT
    assert not mask.is_contiguous()
    expected = ops.select(visual, text, 4, visual_mask=mask.contiguous())
    assert same(ops.select(visual, text, 4, visual_mask=mask), expected)
    scores = torch.randn(20, 6)[:, ::2].mT
    assert same(ops.top_k(scores, 4), ops.top_k(scores.contiguous(), 4))


def test_inputs_are_not_written():
    for operator, arguments, keywords in calls():
        held = [a for a in (*arguments, *keywords.values()) if isinstance(a, torch.Tensor)]
        copies = [h.clone() for h in held]
        operator(*arguments, **keywords)
        assert all(torch.equal(h, c) for h, c in zip(held, copies, strict=True))


def test_results_do_not_share_memory():
    scores = torch.randn(4)
    values, _ = ops.top_k(scores, 4)
    values.zero_()
    assert scores.abs().sum() > 0
    x = rows(4, 3)
    assert ops.normalize(x).data_ptr() != x.data_ptr()


def test_the_number_of_torchs_threads_changes_no_bit():
    before = torch.get_num_threads()
    visual, text = rows(2, 300, 64), rows(2, 9, 64)
    try:
        torch.set_num_threads(1)
        expected = ops.select(visual, text, 40, redundancy=0.2)
        for threads in (2, 3, 8):
            torch.set_num_threads(threads)
            assert same(ops.select(visual, text, 40, redundancy=0.2), expected)
    finally:
        torch.set_num_threads(before)


@dtypes
def test_empty_batches_and_no_rows(dtype):
    indices, scores = ops.select(rows(0, 20, 16, dtype=dtype), rows(0, 5, 16, dtype=dtype), 4)
    assert indices.shape == (0, 4) and scores.shape == (0, 20)
    indices, scores = ops.select(rows(2, 0, 16, dtype=dtype), rows(2, 5, 16, dtype=dtype), 4)
    assert indices.shape == (2, 0) and scores.shape == (2, 0)
    assert ops.normalize(rows(0, 16, dtype=dtype)).shape == (0, 16)
    assert ops.normalize(rows(4, 0, dtype=dtype)).shape == (4, 0)
    assert ops.top_k(torch.empty(0), 3)[1].shape == (0,)


# ---- bad input: the functions ----


V, T = rows(20, 16), rows(5, 16)
M20 = torch.ones(20, dtype=torch.bool)
NAN, INF = float("nan"), float("inf")
# What is wrong: the arguments in place of good ones, the exception, and words of its message.
BAD_SELECT = {
    "visual is no tensor": ({"visual": [[1.0]]}, TypeError, "visual: got list, allowed is a t"),
    "text is no tensor": ({"text": None}, TypeError, "text: got NoneType"),
    "float64": ({"visual": V.double()}, TypeError, "visual: got dtype torch.float64, allowed are"),
    "integers": ({"text": T.long()}, TypeError, "text: got dtype torch.int64"),
    "mixed dtypes": ({"text": T.half()}, TypeError, "text: got torch.float16, .* torch.float32"),
    "one dimension": ({"visual": V[0]}, ValueError, r"visual: got 1 dimensions, shape \(16,\)"),
    "four dimensions": ({"visual": V[None, None]}, ValueError, "visual: got 4 dimensions"),
    "mixed ranks": ({"visual": V[None]}, ValueError, r"text: got shape \(5, 16\), .*1, 20, 16"),
    "mixed batches": (
        {"visual": V.expand(2, 20, 16), "text": T.expand(3, 5, 16)},
        ValueError,
        r"text: got shape \(3, 5, 16\)",
    ),
    "mixed widths": ({"text": T[:, :8]}, ValueError, "text: got row width 8, allowed is .* 16"),
    "no width": ({"visual": V[:, :0], "text": T[:, :0]}, ValueError, "visual: got row width 0"),
    "another device": ({"text": T.to("meta")}, ValueError, "text: got device meta, .* cpu"),
    "no text": ({"text": T[:0]}, ValueError, "redundancy: got 0 without text rows, .* > 0"),
    "k = 0": ({"k": 0}, ValueError, "k: got 0, allowed is an integer >= 1"),
    "k < 0": ({"k": -3}, ValueError, "k: got -3, allowed is an integer >= 1"),
    "k is a float": ({"k": 2.0}, TypeError, "k: got 2.0, allowed is an integer >= 1"),
    "k is a bool": ({"k": True}, TypeError, "k: got True"),
    "mask dtype": ({"visual_mask": M20.float()}, TypeError, "visual_mask: got dtype .*float32"),
    "mask shape": ({"visual_mask": M20[1:]}, ValueError, r"visual_mask: got shape \(19,\), .*20"),
    "mask rank": ({"visual_mask": M20[None]}, ValueError, r"visual_mask: got shape \(1, 20\)"),
    "mask device": ({"visual_mask": M20.to("meta")}, ValueError, "visual_mask: got device meta"),
    "text mask": ({"text_mask": M20}, ValueError, r"text_mask: got shape \(20,\), .* \(5,\)"),
    "temperature = 0": ({"temperature": 0.0}, ValueError, "temperature: got 0.0, .* > 0"),
    "temperature < 0": ({"temperature": -1}, ValueError, "temperature: got -1, .* > 0"),
    "temperature NaN": ({"temperature": NAN}, ValueError, "temperature: got nan"),
    "temperature Inf": ({"temperature": INF}, ValueError, "temperature: got inf"),
    "temperature 0 in float32": ({"temperature": 1e-60}, ValueError, "temperature: got 1e-60"),
    "temperature is text": ({"temperature": "hot"}, TypeError, "temperature: got 'hot'"),
    "redundancy < 0": ({"redundancy": -0.5}, ValueError, "redundancy: got -0.5, .* >= 0"),
    "redundancy NaN": ({"redundancy": NAN}, ValueError, "redundancy: got nan"),
    "coverage < 0": ({"coverage": -0.1}, ValueError, r"coverage: got -0.1, allowed is \[0, 1\]"),
    "coverage > 1": ({"coverage": 2}, ValueError, "coverage: got 2"),
    "coverage NaN": ({"coverage": NAN}, ValueError, "coverage: got nan"),
    "coverage is a bool": ({"coverage": True}, TypeError, "coverage: got True"),
    "coverage without text": ({"text": T[:0], "coverage": 1.0}, ValueError, "redundancy: got 0 wi"),
    "estimator": ({"estimator": "best"}, ValueError, "estimator: got 'best', allowed are specific"),
}


@pytest.mark.parametrize(("wrong", "kind", "message"), BAD_SELECT.values(), ids=list(BAD_SELECT))
def test_bad_input_to_the_functions(wrong, kind, message):
    with pytest.raises(kind, match=message):
        ops.select(**{"visual": V, "text": T, "k": 4, **wrong})


def test_bad_input_to_the_other_functions():
    with pytest.raises(ValueError, match="text: got 0 rows, allowed is at least 1"):
        ops.mutual_information(V, T[:0])
    with pytest.raises(ValueError, match="eps: got 0"):
        ops.normalize(V, eps=0)
    with pytest.raises(ValueError, match="x: got 1 dimensions"):
        ops.normalize(V[0])
    with pytest.raises(TypeError, match=r"scores: got dtype torch\.float16"):
        ops.top_k(V[0].half(), 3)
    with pytest.raises(ValueError, match=r"scores: got shape \(1, 20, 16\)"):
        ops.top_k(V[None], 3)
    with pytest.raises(ValueError, match="k: got 0"):
        ops.top_k(V[0], 0)


def test_numpy_numbers_are_numbers():
    import numpy as np

    expected = ops.select(V, T, 4, temperature=0.5)
    assert same(ops.select(V, T, np.int64(4), temperature=np.float32(0.5)), expected)


# ---- bad input: the operators themselves ----

BAD_OPERATOR = {
    "float64": ({"visual": V.double()}, "visual: got dtype Double, allowed are float32, float16"),
    "mixed dtypes": ({"text": T.half()}, "text: got float16, allowed is the dtype of visual, fl"),
    "rank": ({"visual": V[0]}, r"visual: got 1 dimensions, shape \[16\], allowed is \[N, D\] or"),
    "text rank": ({"text": T[0]}, r"text: got 1 dimensions, shape \[16\]"),
    "mixed ranks": ({"visual": V[None]}, r"text: got shape \[5, 16\], .* \[1, 20, 16\]"),
    "mixed batches": (
        {"visual": V.expand(2, 20, 16), "text": T.expand(3, 5, 16)},
        "text: got batch 3, allowed is that of visual, 2",
    ),
    "mixed widths": ({"text": T[:, :8]}, "text: got row width 8, allowed is that of visual, 16"),
    "no text": ({"text": T[:0]}, "redundancy: got 0 without text rows"),
    "k": ({"k": 0}, "k: got 0, allowed is an integer >= 1"),
    "mask dtype": ({"visual_mask": M20.long()}, "visual_mask: got dtype Long, allowed is bool"),
    "mask shape": ({"visual_mask": M20[1:]}, r"visual_mask: got shape \[19\], allowed is \[N\]"),
    "mask rank": ({"visual_mask": M20[None]}, r"visual_mask: got shape \[1, 20\]"),
    "text mask": ({"text_mask": M20}, r"text_mask: got shape \[20\], allowed is \[M\] or"),
    "temperature": ({"temperature": 0.0}, "temperature: got 0, allowed is a finite number > 0"),
    "redundancy": ({"redundancy": -1.0}, "redundancy: got -1, allowed is"),
    "coverage": ({"coverage": 1.5}, r"coverage: got 1.5, allowed is \[0, 1\]"),
    "coverage NaN": ({"coverage": NAN}, "coverage: got nan"),
    "estimator": ({"estimator": "best"}, 'estimator: got "best", allowed are specific, posterior'),
}


@pytest.mark.parametrize(("wrong", "message"), BAD_OPERATOR.values(), ids=list(BAD_OPERATOR))
def test_bad_input_to_the_operators(wrong, message):
    with pytest.raises(RuntimeError, match=message) as caught:
        torch.ops.mipruner.select(**{"visual": V, "text": T, "k": 4, **wrong})
    assert ".cpp" not in str(caught.value)  # a sentence for users, not a place in our source


def test_bad_input_to_the_other_operators():
    with pytest.raises(RuntimeError, match="text: got 0 rows, allowed is at least 1"):
        torch.ops.mipruner.mutual_information(V, T[:0])
    with pytest.raises(RuntimeError, match="eps: got"):
        torch.ops.mipruner.normalize(V, 0.0)
    with pytest.raises(RuntimeError, match="x: got 4 dimensions"):
        torch.ops.mipruner.normalize(V[None, None])
    with pytest.raises(RuntimeError, match="scores: got dtype Half, allowed is float32"):
        torch.ops.mipruner.top_k(V[0].half(), 3)
    with pytest.raises(RuntimeError, match="scores: got 3 dimensions"):
        torch.ops.mipruner.top_k(V[None], 3)
    with pytest.raises(RuntimeError, match="k: got -1"):
        torch.ops.mipruner.top_k(V[0], -1)


# ---- CUDA ----


@pytest.mark.skipif(
    mi_pruner_cuda.numpy._C.build_info()["has_cuda"],
    reason="this build has CUDA kernels; test_build.py runs this test on one without",
)
def test_cuda_tensors_meet_a_sentence():
    """The kernels registered for CUDA, called directly: no GPU is needed to read what they say."""
    cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    for operator, arguments, keywords in calls():
        with pytest.raises(RuntimeError, match=r"no CUDA kernels .*MIPRUNER_CUDA.*\.cpu\(\)"):
            operator.redispatch(cuda, *arguments, **keywords)


# ---- and that it is the right operator underneath ----


@dtypes
def test_the_functions_agree_with_the_reference(dtype):
    visual, text = rows(3, 20, 16, dtype=dtype), rows(3, 5, 16, dtype=dtype)
    masks = torch.rand(3, 20) > 0.2, torch.rand(3, 5) > 0.2
    scores = ops.mutual_information(visual, text, *masks)
    torch.testing.assert_close(scores, reference.mutual_information(visual, text, *masks))
    for options in ({}, {"coverage": 0.5}, {"redundancy": 0.5, "coverage": 0.5}):
        expected = reference.select(visual, text, 6, *masks, **options)[0]
        assert torch.equal(ops.select(visual, text, 6, *masks, **options)[0], expected)
