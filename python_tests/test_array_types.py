"""Arrays and tensors that say more than their numbers, handed to every entrance: what they say is
honoured or refused by a sentence that names the argument, never dropped."""

import ml_dtypes
import numpy as np
import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from inputs import related
from PIL import Image

import mi_pruner_cuda.numpy as mnp
from mi_pruner_cuda import (
    _C,
    Critic,
    Mass,
    Selection,
    distributed,
    engine,
    keep_count,
    ops,
    panels,
    select,
)

RANDOM = np.random.default_rng(0)
V = RANDOM.standard_normal((20, 16)).astype(np.float32)
T = RANDOM.standard_normal((5, 16)).astype(np.float32)
ONES = {20: np.ones(20, bool), 5: np.ones(5, bool)}


class Quantity(np.ndarray):
    """An array with a unit, as packages of physical quantities have it."""

    def __array_finalize__(self, other):
        self.unit = getattr(other, "unit", "nats")


def masked(x, *, element=None):
    """x as a masked array, one of whose elements is masked, or none."""
    array = np.ma.masked_array(x, mask=np.zeros(x.shape, bool))
    if element is not None:
        array[element] = np.ma.masked
    return array


def equal(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# ---- the NumPy door ----

# Every array argument of every function: how to call it with another array there, and the array.
ARRAYS = {
    "normalize x": ("x", V, lambda x: mnp.normalize(x)),
    "mutual_information visual": ("visual", V, lambda x: mnp.mutual_information(x, T)),
    "mutual_information text": ("text", T, lambda x: mnp.mutual_information(V, x)),
    "mutual_information visual_mask": (
        "visual_mask", ONES[20], lambda x: mnp.mutual_information(V, T, x),
    ),
    "mutual_information text_mask": (
        "text_mask", ONES[5], lambda x: mnp.mutual_information(V, T, None, x),
    ),
    "top_k scores": ("scores", V[0], lambda x: mnp.top_k(x, 3)[1]),
    "select visual": ("visual", V, lambda x: mnp.select(x, T, 4).indices),
    "select text": ("text", T, lambda x: mnp.select(V, x, 4).indices),
    "select visual_mask": ("visual_mask", ONES[20], lambda x: mnp.select(V, T, 4, x).indices),
    "select text_mask": (
        "text_mask", ONES[5], lambda x: mnp.select(V, T, 4, None, x, redundancy=0).indices,
    ),
}  # fmt: skip
every_array = pytest.mark.parametrize(("name", "good", "call"), ARRAYS.values(), ids=list(ARRAYS))


@every_array
def test_masked_elements_are_refused(name, good, call):
    for array in (masked(good, element=1), masked(good, element=(0,) * good.ndim)):
        with pytest.raises(ValueError, match=rf"^{name}: got a masked array with \d+ masked ele"):
            call(array)


@every_array
def test_a_masked_array_that_masks_nothing_is_its_data(name, good, call):
    expected = call(good)
    for array in (masked(good), np.ma.masked_array(good)):
        got = call(array)
        assert type(got) is np.ndarray and equal(got, expected)


@every_array
def test_subclasses_that_may_say_more_are_refused(name, good, call):
    for array in (good.view(Quantity), masked(good.view(Quantity))):
        with pytest.raises(TypeError, match=f"^{name}: got Quantity, a subclass .* numpy.asarray"):
            call(array)


@every_array
def test_subclasses_that_say_no_more_are_read(name, good, call, tmp_path):
    mapped = np.memmap(tmp_path / "rows", dtype=good.dtype, mode="w+", shape=good.shape)
    mapped[:] = good
    same = [mapped, good.view(np.recarray)]
    if good.ndim == 2:
        same.append(np.asmatrix(good))  # whose rows have two dimensions, too
    for array in same:
        got = call(array)
        assert type(got) is np.ndarray and equal(got, call(good)), type(array)


@every_array
def test_what_is_no_array_is_refused(name, good, call):
    values = [torch.from_numpy(good), memoryview(good), good.tolist(), pandas.Series([1.0])]
    for value in values:
        with pytest.raises(TypeError, match=f"^{name}: got {type(value).__name__}, allowed is a n"):
            call(value)


OTHER_DTYPES = [
    ">f4", ">f2", "f8", ">f8", "g", "c8", "c16", "i1", ">i4", "i8", "u2", "O", "M8[s]", "m8[s]",
    "S4", "U4", [("a", "f4")],
]  # fmt: skip


@every_array
@pytest.mark.parametrize("dtype", OTHER_DTYPES, ids=str)
def test_other_dtypes_are_refused(name, good, call, dtype):
    array = np.zeros(good.shape, dtype)
    if name == "x" and dtype == ">f2":
        assert not array.dtype.isnative
    with pytest.raises(TypeError, match=f"^{name}: got dtype "):
        call(array)


def test_swapped_bytes_of_bfloat16_are_refused():
    swapped = V.astype(ml_dtypes.bfloat16).view(np.uint16).astype(">u2")
    for array, dtype in ((swapped, "bfloat16"), (swapped.view(ml_dtypes.bfloat16), None)):
        if dtype is None:
            array = array.view(np.dtype(ml_dtypes.bfloat16).newbyteorder(">"))
        with pytest.raises(TypeError, match=r"^x: got dtype byte-swapped"):
            mnp.normalize(array, dtype=dtype)


def hold(draw, x):
    """x in some layout, byte order, dtype and class: the array, and whether it says more."""
    says_more = False
    layout = draw(st.sampled_from(["plain", "fortran", "backward", "unaligned", "wide", "frozen"]))
    if layout == "fortran":
        x = np.asfortranarray(x)
    elif layout == "backward":
        x = np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]
    elif layout == "unaligned":
        x = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape)
    elif layout == "wide":
        wide = np.full((2 * x.shape[0], x.shape[1] + 3), np.nan, x.dtype)
        wide[::2, 2:-1] = x
        x = wide[::2, 2:-1]
    elif layout == "frozen":
        x = x.copy()
        x.flags.writeable = False
    dtype = draw(st.sampled_from(["", "", "", ">f4", "f8", "O", "c8"]))
    if dtype:
        x, says_more = x.astype(dtype), True
    kind = draw(st.sampled_from(["ndarray", "matrix", "masked none", "masked", "unit", "rec"]))
    if kind == "matrix":
        x = np.asmatrix(x)
    elif kind == "rec" and not dtype:
        x = x.view(np.recarray)
    elif kind == "masked none":
        x = np.ma.masked_array(x)
    elif kind == "masked":
        x, says_more = masked(x, element=draw(st.integers(0, x.shape[0] - 1))), True
    elif kind == "unit":
        x, says_more = x.view(Quantity), True
    return x, says_more


@given(st.data())
def test_an_array_in_any_form_is_read_right_or_refused_by_name(data):
    n, m, d = (data.draw(st.integers(1, top)) for top in (30, 6, 40))
    seed = data.draw(st.integers(0, 2**32 - 1))
    visual, text = (x.numpy() for x in related(n, m, d, seed=seed))
    given_visual, visual_says_more = hold(data.draw, visual)
    given_text, text_says_more = hold(data.draw, text)
    if visual_says_more or text_says_more:
        name = "visual" if visual_says_more else "text"
        other = "" if not text_says_more else "|text"
        with pytest.raises((TypeError, ValueError), match=f"^({name}{other}): got"):
            mnp.select(given_visual, given_text, 4)
        return
    expected, got = mnp.select(visual, text, 4), mnp.select(given_visual, given_text, 4)
    assert equal(got.indices, expected.indices) and equal(got.scores, expected.scores)
    assert got.reason == expected.reason
    ours, _ = ops.select(
        torch.from_numpy(visual), torch.from_numpy(text), 4, redundancy=1.0, coverage=0.25
    )
    assert got.indices.tolist() == ours.tolist()


@pytest.mark.parametrize("value", [2, 128, 255])
def test_bools_of_any_true_byte_are_true(value):
    """A view of bytes, other than a comparison, holds other numbers than 1."""
    true = RANDOM.random(20) > 0.5
    odd = (true * np.uint8(value)).view(bool)
    expected, got = mnp.select(V, T, 6, true), mnp.select(V, T, 6, odd)
    assert equal(got.indices, expected.indices) and equal(got.scores, expected.scores)
    ours = select(torch.from_numpy(V), torch.from_numpy(T), 6, visual_mask=torch.from_numpy(odd))
    assert ours.indices.tolist() == expected.indices.tolist() and ours.n_kept == expected.n_kept


# ---- numbers ----

NO_NUMBERS = {
    "span": np.timedelta64(4, "s"),
    "bool": np.bool_(True),
    "masked": np.ma.masked,
    "array": np.array(4),
    "masked array": np.ma.masked_array(4),
    "tensor": torch.tensor(4),
    "text": "4",
}


@pytest.mark.parametrize("value", NO_NUMBERS.values(), ids=list(NO_NUMBERS))
def test_what_is_no_number_is_refused(value):
    visual, text = torch.from_numpy(V), torch.from_numpy(T)
    calls = {
        "k": [
            lambda: mnp.select(V, T, value), lambda: mnp.top_k(V[0], value),
            lambda: ops.select(visual, text, value),
        ],
        "threads": [lambda: mnp.normalize(V, threads=value)],
        "temperature": [
            lambda: mnp.select(V, T, 4, temperature=value),
            lambda: select(visual, text, 4, temperature=value),
        ],
        "redundancy": [lambda: mnp.select(V, T, 4, redundancy=value)],
        "coverage": [lambda: engine.plan([visual], text, 4, coverage=value)],
        "eps": [lambda: mnp.normalize(V, value)],
        "keep": [lambda: select(visual, text, value), lambda: engine.keep_counts([5], value)],
        "n": [lambda: keep_count(value, 0.5)],
        "ratio": [lambda: keep_count(5, value)],
        r"Mass\(share\)": [lambda: Mass(value)],
        r"sizes\[0\]": [lambda: engine.keep_counts([value], 0.5)],
    }  # fmt: skip
    for name, of_name in calls.items():
        for call in of_name:
            with pytest.raises(TypeError, match=f"^{name}: got"):
                call()


@pytest.mark.parametrize("value", [np.int64(4), np.uint8(4), np.int16(4), torch.tensor(4).item()])
def test_integers_of_any_width_are_counts(value):
    assert mnp.select(V, T, value).n_kept == 4
    assert select(torch.from_numpy(V), torch.from_numpy(T), value).n_kept == 4


def test_choices_are_text():
    for wrong in (np.array(["specific"]), np.array("specific"), ["specific"]):
        with pytest.raises(ValueError, match=r"^estimator: got"):
            mnp.select(V, T, 4, estimator=wrong)
    for wrong in (np.dtype("float32"), np.array(["float32"]), np.float32):
        with pytest.raises(ValueError, match=r"^dtype: got"):
            mnp.normalize(V, dtype=wrong)


# ---- indices ----

KEEP_ALWAYS = {
    "masked": (masked(np.array([1, 2]), element=1), ValueError),
    "unit": (np.array([1, 2]).view(Quantity), TypeError),
    "bools": (np.array([False, True, True]), TypeError),
    "floats": (np.array([1.0, 2.5]), TypeError),
    "complex": (torch.tensor([1 + 2j]), TypeError),
    "bools among numbers": ([2, True], TypeError),
    "None": ([2, None], TypeError),
    "masked constant": ([2, np.ma.masked], TypeError),
    "a set": ({1, 2}, TypeError),
    "text": ("12", TypeError),
    "texts": (np.array(["1"]), TypeError),
    "spans": (np.array([1, 2], "m8[s]"), TypeError),
    "dates": (np.array([1, 2], "M8[s]"), TypeError),
    "objects": (np.array([1, None]), TypeError),
    "a series with a hole": (pandas.Series([1, None], dtype="Int64"), TypeError),
    "beyond int64": (np.array([2**64 - 1], np.uint64), ValueError),
    "ragged": ([[1], [1, 2]], TypeError),
    "sparse": (torch.tensor([1, 2]).to_sparse(), TypeError),
    "nested": (torch.nested.nested_tensor([torch.tensor([1])]), TypeError),
    "nothing": (torch.tensor([1], device="meta"), ValueError),
}


@pytest.mark.parametrize(("always_keep", "kind"), KEEP_ALWAYS.values(), ids=list(KEEP_ALWAYS))
def test_indices_that_say_more_are_refused(always_keep, kind):
    visual, text = related(12, 3, 8)
    with pytest.raises(kind, match=r"^always_keep: got"):
        select(visual, text, 4, always_keep=always_keep)
    with pytest.raises(kind, match=r"^always_keep: got .* \(image 0\)$"):
        engine.plan([visual], text, 4, always_keep=[always_keep])


def test_indices_in_any_form():
    visual, text = related(12, 3, 8)
    expected = select(visual, text, 4, always_keep=[9, 10]).indices
    frozen = np.array([9, 10])
    frozen.flags.writeable = False
    forms = [
        (9, 10), range(9, 11), np.array([9, 10], ">i8"), np.array([9, 10], ">u2"),
        np.array([9, 10], np.int8), np.array([10, 0, 9])[::2], frozen, torch.tensor([9, 10]).int(),
        masked(np.array([9, 10])), pandas.Series([9, 10]), [np.int64(9), torch.tensor(10)],
        np.broadcast_to(np.array([9, 10]), (3, 2)),
    ]  # fmt: skip
    for form in forms:
        assert torch.equal(select(visual, text, 4, always_keep=form).indices, expected)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("visual_offsets", np.array([0.0, 5.7, 12.0])),
        ("visual_offsets", [0, 5.7, 12]),
        ("visual_offsets", np.array([0, 1, 1], bool)),
        ("visual_offsets", np.array([0, 5, 12], np.uint64)),
        ("visual_offsets", masked(np.array([0, 5, 12]), element=1)),
        ("text_ranges", np.array([[0, 4.9], [0, 5]])),
        ("text_ranges", np.array([[0, 4], [0, 5]], "m8[s]")),
        ("text_ranges", [["0", "4"], ["0", "5"]]),
    ],
)
def test_offsets_are_not_rounded(name, wrong):
    good = {"visual_offsets": np.array([0, 5, 12]), "text_ranges": np.array([[0, 4], [0, 5]])}
    with pytest.raises(TypeError, match=f"^{name}: got"):
        _C.select_varlen(V, T, **good | {name: wrong}, k=[2, 3])


def test_offsets_in_any_form():
    offsets, ranges = np.array([0, 5, 12]), np.array([[0, 4], [0, 5]])
    expected = _C.select_varlen(V, T, offsets, ranges, [2, 3])
    for form in ([0, 5, 12], offsets.astype(">i8"), offsets.astype("u1"), offsets.repeat(2)[::2]):
        got = _C.select_varlen(V, T, form, np.asfortranarray(ranges), [2, 3])
        assert all(equal(a, b) for a, b in zip(got, expected, strict=True))
    for k in (np.float32(2.7), 2.7):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            _C.select_varlen(V, T, offsets, ranges, [k, 3])
        with pytest.raises(TypeError, match="incompatible function arguments"):
            _C.select(V, T, k)


# ---- the door for tensors ----


def tensor(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


SAY_MORE = {
    "sparse": (lambda x: x.to_sparse(), "layout torch.sparse_coo"),
    "compressed": (lambda x: x.to_sparse_csr(), "layout torch.sparse_csr"),
    "nested": (lambda x: torch.nested.nested_tensor([x, x]), "a nested tensor"),
    "jagged": (
        lambda x: torch.nested.nested_tensor([x, x], layout=torch.jagged), "a nested tensor",
    ),
    "masked": (lambda x: torch.masked.masked_tensor(x, x == x), "a MaskedTensor"),
    "quantised": (lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), "dtype torch.qint8"),
    "complex": (lambda x: torch.complex(x, x).conj(), "dtype torch.complex64"),
    "numpy": (lambda x: x.numpy(), "ndarray, allowed is a torch.Tensor"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch: prototypes
@pytest.mark.parametrize(("form", "said"), SAY_MORE.values(), ids=list(SAY_MORE))
def test_tensors_that_say_more_are_refused(form, said):
    visual, text, critic = tensor(12, 8), tensor(3, 8), tensor(8, 8)
    calls = {
        "visual": [
            lambda: select(form(visual), text, 4),
            lambda: ops.mutual_information(form(visual), text),
        ],
        "text": [
            lambda: select(visual, form(text), 4), lambda: select(form(visual)[:0], text, 4)
            if said.startswith("numpy") else select(visual, form(text), Mass(0.5)),
            lambda: engine.plan([visual], form(text), 4),
        ],
        r"images\[1\]": [lambda: engine.plan([visual, form(visual)], text, 4)],
        "x": [lambda: ops.normalize(form(visual))],
        "scores": [lambda: ops.top_k(form(visual), 4)],
        "critic": [lambda: select(visual, text, 4, critic=form(critic))],
        "matrix": [lambda: Critic(form(critic))],
    }  # fmt: skip
    for name, of_name in calls.items():
        for call in of_name:
            with pytest.raises(TypeError, match=f"^{name}: got {said.split(',')[0]}"):
                call()


def test_masks_and_indices_that_say_more_are_refused():
    visual, text, mask = tensor(12, 8), tensor(3, 8), torch.ones(12, dtype=torch.bool)
    for wrong in (mask.to_sparse(), mask.numpy(), mask.byte(), mask.float() * torch.nan):
        with pytest.raises(TypeError, match=r"^visual_mask: got"):
            select(visual, text, 4, visual_mask=wrong)
    index = torch.tensor([1, 2])
    for wrong in (index.to_sparse(), index.numpy(), index.int(), index.bool()):
        with pytest.raises(TypeError, match=r"^indices: got"):
            ops.gather_rows(visual, wrong)
    with pytest.raises(TypeError, match=r"^rows: got layout"):
        ops.gather_rows(visual.to_sparse(), index)


class Named(torch.Tensor):
    """A subclass that leaves everything to torch."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return super().__torch_function__(function, types, args, kwargs or {})


@given(st.data())
def test_views_and_modes_of_tensors_are_honoured(data):
    """A negative or conjugate bit is read as the numbers that it stands for."""
    visual, text = related(20, 4, 8, seed=data.draw(st.integers(0, 99)))
    forms = {
        "negative": lambda x: torch.complex(x, -x).conj().imag,
        "strided": lambda x: x.repeat_interleave(2, 1)[:, ::2],
        "transposed": lambda x: x.T.contiguous().T,
        "gradient": lambda x: x.clone().requires_grad_(),
        "parameter": lambda x: torch.nn.Parameter(x.clone()),
        "subclass": lambda x: x.as_subclass(Named),
        "inference": lambda x: torch.inference_mode()(torch.clone)(x),
    }
    keep = data.draw(st.sampled_from([5, 0.3, Mass(0.6)]))
    expected = select(visual, text, keep, critic=torch.eye(8))
    form = data.draw(st.sampled_from(sorted(forms)))
    got = select(forms[form](visual), forms[form](text), keep, critic=forms[form](torch.eye(8)))
    assert torch.equal(got.indices, expected.indices) and got.reason == expected.reason
    assert torch.equal(got.scores, expected.scores)
    rows = forms[form](visual)
    assert torch.equal(ops.gather_rows(rows, expected.indices), visual[expected.indices])
    assert Critic(forms[form](torch.eye(8))).fingerprint == Critic(torch.eye(8)).fingerprint


def test_conjugates_are_gathered():
    rows, index = torch.complex(tensor(5, 3), tensor(5, 3)).conj(), torch.tensor([3, 1])
    assert rows.is_conj() and torch.equal(ops.gather_rows(rows, index), rows[index])


def test_batched_by_vmap():
    visual, text = related(20, 4, 8, batch=(3,))
    got = torch.vmap(lambda v, t: select(v, t, 5).indices)(visual, text)
    assert torch.equal(got, select(visual, text, 5).indices)


def test_a_shard_with_a_negative_bit(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
    )
    try:
        visual, text = related(20, 4, 8)
        expected = distributed.select(visual, text, 5)
        negative = torch.complex(text, -text).conj().imag
        assert negative.is_neg()
        assert torch.equal(distributed.select(visual, negative, 5).indices, expected.indices)
        with pytest.raises(TypeError, match=r"^visual_shard: got layout torch.sparse_coo"):
            distributed.select(visual.to_sparse(), text, 5)
    finally:
        torch.distributed.destroy_process_group()


# ---- plots and pages ----

PICTURE = Image.new("RGB", (40, 30))


def drawn(indices, scores, grid=(3, 4)):
    return panels.drawings(PICTURE, Selection(indices, scores, 2, "selected"), grid=grid)[0]


SCORES = np.linspace(0, 1, 12)
NOT_DRAWN = {
    "masked scores": ([1, 2], masked(SCORES, element=3), ValueError, "scores"),
    "scores with a unit": ([1, 2], SCORES.view(Quantity), TypeError, "scores"),
    "complex scores": ([1, 2], SCORES + 1j, TypeError, "scores"),
    "complex tensor": ([1, 2], torch.from_numpy(SCORES + 1j), TypeError, "scores"),
    "texts": ([1, 2], SCORES.astype(str), TypeError, "scores"),
    "spans": ([1, 2], np.arange(12).astype("m8[s]"), TypeError, "scores"),
    "bool scores": ([1, 2], SCORES > 0.5, TypeError, "scores"),
    "sparse scores": ([1, 2], torch.from_numpy(SCORES).to_sparse(), TypeError, "scores"),
    "one score": ([1, 2], np.float32(1), TypeError, "scores"),
    "masked indices": (masked(np.array([1, 2]), element=0), SCORES, ValueError, "indices"),
    "indices with a unit": (np.array([1, 2]).view(Quantity), SCORES, TypeError, "indices"),
    "a mask": (SCORES > 0.5, SCORES, TypeError, "indices"),
    "a mask as a tensor": (torch.from_numpy(SCORES > 0.5), SCORES, TypeError, "indices"),
    "a mask as a list": ([True, False] * 6, SCORES, TypeError, "indices"),
    "fractions": (np.array([1.5, 2]), SCORES, TypeError, "indices"),
    "a list of fractions": ([1.5, 2], SCORES, TypeError, "indices"),
}


@pytest.mark.parametrize(
    ("indices", "scores", "kind", "name"), NOT_DRAWN.values(), ids=list(NOT_DRAWN)
)
def test_selections_that_say_more_are_not_drawn(indices, scores, kind, name):
    with pytest.raises(kind, match=f"^report: its {name}"):
        drawn(indices, scores)


def test_selections_in_any_form_are_drawn():
    expected = drawn(np.array([1, 2]), SCORES)
    negative = torch.complex(torch.zeros(12).double(), torch.from_numpy(-SCORES)).conj().imag
    for scores in (SCORES.astype(">f8"), SCORES[::-1].copy()[::-1], SCORES.tolist(), negative,
                   masked(SCORES), pandas.Series(SCORES), np.asfortranarray(SCORES)):  # fmt: skip
        for indices in (np.array([1, 2], ">i4"), [1, 2], torch.tensor([1, 2]), np.array([1.0, 2.0]),
                        masked(np.array([1, 2])), np.array([1, 2], "u1")):  # fmt: skip
            got = drawn(indices, scores)
            assert np.array_equal(got.kept, expected.kept)
            assert np.array_equal(got.scores, expected.scores)
    half = drawn([1, 2], SCORES.astype(ml_dtypes.bfloat16))
    np.testing.assert_allclose(half.scores, SCORES, rtol=1e-2)
    assert np.isnan(drawn([1, 2], [None, *SCORES[1:]]).scores[0])


@pytest.mark.parametrize("grid", [(3.0, 4), (3.9, 4), ("3", "4"), np.array([3.5, 4.0])])
def test_a_grid_is_not_rounded(grid):
    with pytest.raises(TypeError, match=r"^grid: got .*, allowed is \(h, w\) in tokens"):
        drawn([1, 2], SCORES, grid=grid)
    assert drawn([1, 2], SCORES, grid=np.array([3, 4])).kept.sum() == 2
