"""Global state of torch does not reach what this package makes: default dtype and device, grad
mode, deterministic mode, autocast, precision of products, threads, random numbers.
"""

import ast
import contextlib
from pathlib import Path

import pytest
import tiny_models
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from test_critic_fit import World
from tiny_models import SQUARE, Prompt, inputs_for

import mi_pruner_cuda
from mi_pruner_cuda import Mass, attach, calibrate, distributed, engine, ops, reference, select
from mi_pruner_cuda.critic import METHODS, Critic, fit
from mi_pruner_cuda.huggingface.choose import represent
from mi_pruner_cuda.huggingface.report import Part
from mi_pruner_cuda.huggingface.words import speaks_for

PACKAGE = Path(mi_pruner_cuda.__file__).parent
# Those that make a tensor from nothing, and what each must be told.
TOLD = {
    name: {"dtype", "device"}
    for name in (
        *("arange", "empty", "empty_strided", "eye", "full", "linspace", "logspace", "ones"),
        *("rand", "randint", "randn", "randperm", "range", "scalar_tensor", "tensor"),
        *("tril_indices", "triu_indices", "zeros"),
    )
}
TOLD["as_tensor"] = TOLD["asarray"] = {"device"}  # the dtype is that of the data
TOLD["Generator"] = {"device"}
for name in ("Tensor", "FloatTensor", "HalfTensor", "DoubleTensor", "LongTensor", "BoolTensor"):
    TOLD[name] = {"another call"}


def untold(source: str) -> list[tuple[int, str]]:
    """(line, call) of every factory of torch that leaves something to a global default."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner, name = node.func.value, node.func.attr
        if not isinstance(owner, ast.Name) or owner.id != "torch" or name not in TOLD:
            continue
        given = {word.arg for word in node.keywords}
        if TOLD[name] - given:
            found.append((node.lineno, ast.unparse(node)))
    return found


def test_no_tensor_is_made_without_its_dtype_and_device():
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 60
    calls = {
        f"{file.relative_to(PACKAGE)}:{line}": call
        for file in files
        for line, call in untold(file.read_text("utf-8"))
    }
    assert calls == {}


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("torch.zeros(3)", 1),
        ("torch.zeros(3, dtype=torch.int64)", 1),
        ("torch.tensor([1], device=x.device)", 1),
        ("torch.tensor([1], dtype=torch.int64, device=x.device)", 0),
        ("torch.as_tensor(x)", 1),
        ("torch.zeros_like(x); x.new_zeros(3); torch.cat([x])", 0),
        ("def f():\n    return g(torch.arange(n)[:, None], torch.Tensor(3))", 2),
    ],
)
def test_the_search_for_such_calls(source, count):
    assert len(untold(source)) == count


def test_nothing_takes_a_function_out_of_torch_past_that_search():
    """`from torch import zeros` would."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "torch":
                assert {alias.name for alias in node.names} <= {"nn"}, file
            if isinstance(node, ast.Import):
                renamed = [a.name for a in node.names if a.name == "torch" and a.asname]
                assert not renamed, file


# ---- under any combination ----

STATES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([None, torch.float16, torch.bfloat16, torch.float64]),
        "device": st.sampled_from([None, "default", "context"]),
        "grad": st.sampled_from([None, torch.no_grad, torch.enable_grad, torch.inference_mode]),
        "autocast": st.sampled_from([None, torch.bfloat16, torch.float16]),
        "deterministic": st.booleans(),
        "precision": st.sampled_from(["highest", "high", "medium"]),
        "flush": st.booleans(),
        "threads": st.integers(1, 2),
    }
)


@contextlib.contextmanager
def state(dtype=None, device=None, grad=None, autocast=None, deterministic=False,
          precision="highest", flush=False, threads=1):  # fmt: skip
    """torch as a program around this package may have set it; all is restored."""
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_default_dtype, torch.float32)
        stack.callback(torch.set_default_device, None)
        stack.callback(torch.use_deterministic_algorithms, False)
        stack.callback(torch.set_float32_matmul_precision, "highest")
        stack.callback(torch.set_flush_denormal, False)
        stack.callback(torch.set_num_threads, 1)
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flush)
        torch.use_deterministic_algorithms(deterministic)
        torch.set_float32_matmul_precision(precision)
        if dtype is not None:
            torch.set_default_dtype(dtype)
        if grad is not None:
            stack.enter_context(grad())
        if autocast is not None:
            stack.enter_context(torch.autocast("cpu", autocast))
        if device == "default":
            torch.set_default_device("meta")
        elif device == "context":
            stack.enter_context(torch.device("meta"))
        yield


torch.set_num_threads(1)
_DRAW = torch.Generator().manual_seed(5)
VISUAL, TEXT = (torch.randn(n, 24, generator=_DRAW) for n in (60, 6))
MATRIX = torch.randn(24, 24, generator=_DRAW)
CRITIC = Critic(MATRIX)
MASK = torch.rand(60, generator=_DRAW) < 0.8
WORLD = World()
PAIRS = [WORLD.observation() for _ in range(15)]


def selections():
    """Everything that works on rows, its float32 products aside."""
    found = []
    for keep in (0.25, 7, Mass(0.5)):
        found.append(select(VISUAL, TEXT, keep))
    for estimator in ("specific", "posterior", "joint", "cosine"):
        found.append(select(VISUAL, TEXT, 9, estimator=estimator, redundancy=0, visual_mask=MASK))
    found.append(select(VISUAL, TEXT[:0], 9))
    found.append(select(VISUAL, TEXT, 9, always_keep=[3, 40]))
    found.append(select(VISUAL, TEXT, 9, always_keep=[]))
    found.append(select(VISUAL[None], TEXT[None], 0.3, visual_mask=MASK[None]))
    return [(s.indices, s.scores, s.n_kept, s.reason) for s in found]


def references():
    found = [reference.normalize(VISUAL), reference.redundancy_table(VISUAL)]
    for estimator in reference.ESTIMATORS:
        found.append(reference.mutual_information(VISUAL, TEXT, MASK, None, 0.1, estimator))
    found += reference.select(VISUAL, TEXT, 9, MASK, redundancy=1.0, coverage=0.25)
    found += reference.select(VISUAL[None], TEXT[None], 9)
    return [*found, reference.apply_critic(MATRIX, TEXT)]


def plans():
    images = list(VISUAL.split((20, 0, 40)))
    made = [
        engine.plan(images, TEXT, 0.25),
        engine.plan(images, None, 3),
        engine.plan(images, TEXT, 4, always_keep=[[1], None, []]),
        engine.plan([], None, 4),
    ]
    ids = [5, *[9] * 20, 6, *[9] * 40]
    pruned = made[0].prompt(ids, 9)
    where = pruned.positions(torch.arange(62, dtype=torch.int64, device="cpu"), "renumbered")
    flags = made[0].prompt([i == 9 for i in ids]).columns
    found = [(p.counts, p.indices, p.scores, p.mask, p.kept, p.hashes) for p in made]
    return [*found, pruned.columns, flags, where.values, where.delta]


def smaller_ones():
    """words, parts of reports, representation, operators."""
    chosen = VISUAL[:, 0] > 1
    represent(chosen, VISUAL[:, 1], [range(9), range(9, 60)])
    part = Part(2, (3, 4), 5)
    return [
        speaks_for(VISUAL, TEXT, 0.1), speaks_for(VISUAL * torch.nan, TEXT, 0.1), chosen,
        part.tokens, ops.normalize(VISUAL), ops.top_k(VISUAL[:, 0], 5),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def alone():
    """A process group of this process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def shards():
    found = [distributed.select(VISUAL, TEXT, 9, visual_mask=MASK)]
    found.append(distributed.select(VISUAL, TEXT, 0.2, estimator="joint", coverage=0.5))
    with pytest.raises(TypeError, match="temperature: got 'cold'") as told:
        distributed.select(VISUAL, TEXT, 9, temperature="cold")
    return [(s.indices, s.scores, s.n_kept, s.reason) for s in found], str(told.value)


def assert_same(got, expected):
    """Bit for bit, dtypes and devices too."""
    if isinstance(expected, torch.Tensor):
        assert (got.dtype, got.device, got.shape) == (
            expected.dtype, expected.device, expected.shape,
        )  # fmt: skip
        assert not got.requires_grad
        assert torch.equal(got.nan_to_num(nan=7e7), expected.nan_to_num(nan=7e7))
    elif isinstance(expected, (list, tuple)):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)
    else:
        assert got == expected


@pytest.mark.parametrize("make", [selections, references, plans, smaller_ones, shards])
def test_what_is_computed_from_rows(make, alone):
    expected = make()

    @settings(max_examples=25)
    @given(STATES)
    def under(around):
        with state(**around):
            got = make()
        assert_same(got, expected)

    under()


@pytest.mark.parametrize("method", METHODS)
def test_a_fit(method):
    """To the last bits: how many threads multiply is torch's own matter."""
    expected = fit(PAIRS, method)

    @settings(max_examples=10)
    @given(STATES)
    def under(around):
        with state(**around):
            got = fit([type(p)(p.visual, p.text, p.logits) for p in PAIRS], method)
        torch.testing.assert_close(got.matrix, expected.matrix, rtol=1e-5, atol=1e-6)
        assert got.strength == expected.strength
        assert got.held_out == pytest.approx(expected.held_out, rel=1e-6)

    under()


def test_a_fit_from_rows_with_gradients_keeps_none():
    pairs = [
        type(p)(p.visual.clone().requires_grad_(), p.text, p.logits.clone().requires_grad_())
        for p in PAIRS
    ]
    for method in METHODS:
        assert not fit(pairs, method).matrix.requires_grad


@given(around=STATES)
@settings(max_examples=25)
def test_a_critic(around):
    """Its product is a float32 one, whose precision torch is asked for; all else is fixed."""
    expected = CRITIC.apply(TEXT)
    with state(**around):
        got = Critic(MATRIX.clone()).apply(TEXT)
    if around["precision"] == "highest":
        assert_same(got, expected)
    else:
        torch.testing.assert_close(got, expected, rtol=0, atol=0.05)


# ---- models ----

PROMPTS = [Prompt([20, SQUARE, 30, 31]), Prompt([21, SQUARE, 32, SQUARE, 33])]
OPTIONS = [
    {"keep": 0.25, "explain": True},
    {"keep": 3, "query": [30, 31], "critic": torch.eye(32), "positions": "renumbered"},
    {"keep": Mass(0.4), "budget": "pooled", "explain": True},
    {"keep": 0.5, "query": None, "video_budget": "per-video"},
]
MODELS = {"llava": tiny_models.llava(), "qwen": tiny_models.qwen()}
INPUTS = {name: inputs_for(model, PROMPTS) for name, model in MODELS.items()}
OPTION_NAMES = ["explained", "by a critic", "by mass", "without text"]


def entries(report):
    return [(e.indices, e.scores, e.speaks_for, e.query, e.reason, e.keep_hash) for e in report]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("options", OPTIONS, ids=OPTION_NAMES)
def test_a_pruner_made_under_any_state_prunes_alike(name, options):
    model, inputs = MODELS[name], INPUTS[name]
    with attach(model, **options) as pruner, torch.no_grad():
        expected = model(**inputs).logits
    kept = entries(pruner.report)

    @settings(max_examples=10)
    @given(STATES)
    def under(around):
        with state(**around):
            pruner = attach(model, **options)
        with pruner, torch.no_grad():
            assert torch.equal(model(**inputs).logits, expected)
        assert_same(entries(pruner.report), kept)

    under()


# A model of transformers cannot run where tensors are made on meta, nor would it in other
# arithmetic: those states are left to what is compared with a plain run under the same state.
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("options", OPTIONS, ids=OPTION_NAMES)
def test_a_run_under_any_state_prunes_alike(name, options):
    model, inputs = MODELS[name], INPUTS[name]
    with attach(model, **options) as pruner, torch.no_grad():
        expected = model(**inputs).logits
    kept = entries(pruner.report)

    @settings(max_examples=10)
    @given(STATES)
    def under(around):
        around |= {"device": None, "autocast": None, "precision": "highest", "threads": 1}
        with state(**around), attach(model, **options) as pruner:
            got = model(**inputs).logits
        torch.testing.assert_close(got.detach(), expected, rtol=0, atol=1e-5)
        assert [e[0].tolist() for e in entries(pruner.report)] == [e[0].tolist() for e in kept]
        assert [e[3:] for e in entries(pruner.report)] == [e[3:] for e in kept]

    under()


@pytest.mark.parametrize("name", MODELS)
def test_keep_1_changes_no_bit_under_any_state(name):
    model, inputs = MODELS[name], INPUTS[name]

    @settings(max_examples=15)
    @given(STATES, st.booleans())
    def under(around, explain):
        around |= {"device": None, "threads": 1}
        with state(**around):
            expected = model(**inputs).logits
            with attach(model, keep=1.0, explain=explain) as pruner:
                got = model(**inputs).logits
        assert got.dtype == expected.dtype and torch.equal(got, expected)
        assert [e.tokens_after for e in pruner.report] == [16] * 3

    under()


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16], ids=str)
def test_rows_under_autocast_are_chosen_as_select_chooses_them(autocast):
    """The model's own rows are rounded; what is made of them is not rounded again."""
    model, inputs = MODELS["llava"], INPUTS["llava"]
    seen = {}

    def note(module, args, kwargs):
        seen["rows"] = kwargs["inputs_embeds"].detach()

    with torch.no_grad(), torch.autocast("cpu", autocast):
        handle = model.model.language_model.register_forward_pre_hook(note, with_kwargs=True)
        model(**inputs)
        handle.remove()
        with attach(model, keep=0.25, explain=True) as pruner:
            model(**inputs)
    places = (inputs["input_ids"] == tiny_models.IMAGE)[0].nonzero()[:, 0]
    rows = seen["rows"][0, places]
    words = model.get_input_embeddings().weight.detach()[pruner.report[0].query].to(rows.dtype)
    chosen = select(rows, words, 0.25)
    assert torch.equal(pruner.report[0].indices, chosen.indices)
    assert torch.equal(pruner.report[0].scores, chosen.scores)
    assert torch.equal(pruner.report[0].speaks_for, speaks_for(rows, words, 0.1))


def test_a_cache_filled_in_inference_mode_goes_on_outside():
    model, inputs = MODELS["llava"], INPUTS["llava"]
    more = torch.tensor([[40, 41], [42, 43]])
    for positions in ("original", "renumbered"):
        with attach(model, keep=0.25, positions=positions):
            results = []
            for mode in (torch.no_grad, torch.inference_mode):
                with mode():
                    cache = model(**inputs, use_cache=True).cache
                results.append(model(input_ids=more, cache=cache).logits.detach())
            assert torch.equal(*results)


# ---- random numbers ----


@pytest.mark.parametrize("name", MODELS)
def test_no_random_number_is_drawn_and_no_seed_set(name):
    model, inputs = MODELS[name], INPUTS[name]
    before = torch.get_rng_state()
    with attach(model, keep=0.25, explain=True, critic=torch.eye(32)), torch.no_grad():
        model(**inputs)
    calibrate(model, None, [inputs_for(model, [p]) for p in PROMPTS[:1] * 10], "ridge")
    for make in (selections, references, plans, smaller_ones):
        make()
    fit(PAIRS, "whitening")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", MODELS)
def test_sampling_draws_the_same_tokens_with_a_pruner_that_keeps_all(name):
    model, inputs = MODELS[name], INPUTS[name]
    options = {"do_sample": True, "max_new_tokens": 8, "top_k": 0, "num_return_sequences": 2}
    drawn = []
    for keep in (None, 1.0):
        torch.manual_seed(11)
        with contextlib.nullcontext() if keep is None else attach(model, keep=keep):
            drawn.append(model.generate(**inputs, **options))
        drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[2]) and torch.equal(drawn[1], drawn[3])
