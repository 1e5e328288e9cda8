"""Pickles and copies of a model with a pruner, and of what a pruner made."""

import copy
import io
import multiprocessing
import pickle

import joblib
import pytest
import tiny_models
import torch
import transformers
from tiny_models import SQUARE, Prompt, inputs_for
from zoo import FAMILIES

import mi_pruner_cuda
from mi_pruner_cuda import Mass, attach, engine, select
from mi_pruner_cuda.critic import Critic

torch.set_num_threads(1)
TWO = [Prompt([20, SQUARE, 30, 31]), Prompt([21, SQUARE, 32, SQUARE, 33])]


@torch.no_grad()
def logits(model, inputs, **options):
    return model(**inputs, **options).logits


def generate(model, inputs):
    return model.generate(**inputs, do_sample=False, max_new_tokens=5)


def through_torch(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


def through_joblib(thing):
    file = io.BytesIO()
    joblib.dump(thing, file)
    return joblib.load(io.BytesIO(file.getvalue()))


class OwnTable(pickle.Pickler):
    """A pickler with reducers of its own, as multiprocessing's and cloudpickle's."""

    def reducer_override(self, thing):
        return NotImplemented


def through_own_table(thing):
    file = io.BytesIO()
    OwnTable(file).dump(thing)
    return pickle.loads(file.getvalue())


WAYS = {
    "torch.save": through_torch,
    **{
        f"pickle {n}": lambda thing, n=n: pickle.loads(pickle.dumps(thing, n))
        for n in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
    "pure Python": lambda thing: pickle._loads(pickle._dumps(thing)),
    "reducers": through_own_table,
    "joblib": through_joblib,
    "deepcopy": copy.deepcopy,
}
MODELS = {"llava": tiny_models.llava, "qwen": tiny_models.qwen}


@pytest.fixture(scope="module", params=list(MODELS))
def model(request):
    return MODELS[request.param]()


def ours(module) -> list:
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    return [hook for hook in hooks if hasattr(hook, "mipruner_module")]


@pytest.mark.parametrize("way", WAYS)
def test_a_saved_model_is_the_plain_one(model, way):
    inputs = inputs_for(model, TWO)
    plain, said = logits(model, inputs), generate(model, inputs)
    with attach(model, keep=0.25) as pruner:
        pruned = logits(model, inputs)
        loaded = WAYS[way](model)
        assert torch.equal(logits(model, inputs), pruned)
        assert pruner.report.tokens_after == 12
        assert type(loaded) is type(model) and loaded is not model
        assert not any(ours(module) for module in loaded.modules())
        assert torch.equal(logits(loaded, inputs), plain)
        assert torch.equal(generate(loaded, inputs), said)
        with attach(loaded, keep=0.25):
            assert torch.equal(logits(loaded, inputs), pruned)
    assert torch.equal(logits(model, inputs), plain)
    for module, same in zip(model.modules(), loaded.modules(), strict=True):
        assert vars(module).keys() - {"_output_capturing_hooks_installed"} == vars(same).keys() - {
            "_output_capturing_hooks_installed"
        }


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(name):
    family = FAMILIES[name]
    model = family.build()
    inputs = family.inputs(model, [[30, family.picture(0), 31, 32]])
    plain = logits(model, inputs)
    with attach(model, keep=0.25) as pruner:
        pruned = logits(model, inputs)
        data = pickle.dumps(model)
        assert pruned.shape[1] < plain.shape[1] and pruner.report.tokens_after
        assert torch.equal(logits(model, inputs), pruned)
    # Nothing of this package is needed to load it.
    assert b"mi_pruner" not in data and b"mipruner" not in data
    loaded = pickle.loads(data)
    assert torch.equal(logits(loaded, inputs), plain)
    for mine, theirs in zip(
        model(**inputs, output_hidden_states=True).hidden_states,
        loaded(**inputs, output_hidden_states=True).hidden_states,
        strict=True,
    ):
        assert torch.equal(mine, theirs)


def test_a_module_within(model):
    inputs = inputs_for(model, TWO)
    rows = torch.randn(1, 5, tiny_models.HIDDEN)
    plain = model.model.language_model(inputs_embeds=rows).last_hidden_state
    with attach(model, keep=0.25) as pruner:
        logits(model, inputs)
        for module in (model.model, model.model.language_model, model.lm_head):
            assert not any(ours(m) for m in through_torch(module).modules())
        loaded = through_torch(model.model.language_model)
        assert torch.equal(loaded(inputs_embeds=rows).last_hidden_state, plain)
        assert pruner.report.tokens_after == 12


def test_a_fresh_model_is_pickled_as_if_it_had_no_pruner(model):
    fresh = type(model)(model.config).eval()
    expected = pickle.dumps(fresh)
    with attach(fresh, keep=0.25):
        assert pickle.dumps(fresh) == expected
    assert pickle.dumps(fresh) == expected


def test_a_shallow_copy_shares_its_modules(model):
    inputs = inputs_for(model, TWO)
    with attach(model, keep=0.25):
        pruned = logits(model, inputs)
        twin = copy.copy(model)
        assert twin.model is model.model and not ours(twin)
        assert torch.equal(logits(twin, inputs), pruned)


def test_detach_leaves_nothing(model):
    before = [vars(module).keys() | () for module in model.modules()]
    old = attach(model, keep=0.25)
    old.detach()
    assert [vars(module).keys() | () for module in model.modules()] == before
    with attach(model, keep=0.5):
        old.detach()  # once more, while another is there
        assert not any(ours(module) for module in through_torch(model).modules())
    assert [vars(module).keys() | () for module in model.modules()] == before


CALLED = []


def of_the_user(module, args, kwargs):
    CALLED.append("before")


def of_the_user_after(module, args, output):
    CALLED.append("after")


def test_other_hooks_are_saved(model):
    inputs = inputs_for(model, TWO)
    target = model.model.language_model
    handles = [target.register_forward_pre_hook(of_the_user, with_kwargs=True)]
    with attach(model, keep=0.25):
        handles.append(target.register_forward_hook(of_the_user_after, always_call=True))
        loaded = through_torch(model)
    for handle in handles:
        handle.remove()
    CALLED.clear()
    logits(loaded, inputs)
    assert CALLED == ["before", "after"]


class Counted(transformers.LlavaForConditionalGeneration):
    """A class that says itself what is saved of it."""

    def __getstate__(self):
        return {**vars(self), "saved": True}


def test_a_class_with_a_state_of_its_own():
    tiny = tiny_models.llava()
    tiny.__class__ = Counted
    with attach(tiny, keep=0.25):
        loaded = through_torch(tiny)
    assert loaded.saved and not ours(loaded) and "__getstate__" not in vars(loaded)
    assert not hasattr(tiny, "saved")


def test_a_compiled_model(model):
    inputs = inputs_for(model, TWO)
    plain = logits(model, inputs)
    run = torch.compile(model, backend="eager")
    with attach(run, keep=0.25):
        loaded = through_torch(run._orig_mod)
    assert torch.equal(logits(loaded, inputs), plain)


def answer(model, inputs, pipe):
    pipe.send(model(**inputs).logits.detach().numpy())


def test_a_spawned_process_gets_the_plain_model():
    # Not LLaVA: in a process that built none, transformers does not know its hidden states.
    model = tiny_models.qwen()
    inputs = inputs_for(model, TWO)
    plain = logits(model, inputs)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with attach(model, keep=0.25) as pruner:
        process = context.Process(target=answer, args=(model, inputs, sender))
        process.start()
        sender.close()
        got = receiver.recv()
        process.join()
        logits(model, inputs)
        assert pruner.report.tokens_after == 12
    assert process.exitcode == 0
    torch.testing.assert_close(torch.from_numpy(got), plain, rtol=0, atol=1e-5)


def test_weights_are_saved_as_ever(model, tmp_path):
    inputs = inputs_for(model, TWO)
    plain, weights = logits(model, inputs), model.state_dict()
    with attach(model, keep=0.25):
        assert model.state_dict().keys() == weights.keys()
        model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert torch.equal(logits(loaded, inputs), plain)


# ---- the pruner and what it made ----


@pytest.mark.parametrize("copying", [copy.copy, *WAYS.values()], ids=["copy", *WAYS])
def test_a_pruner_itself_is_refused(model, copying):
    with (
        attach(model, keep=0.25) as pruner,
        pytest.raises(TypeError, match=r"pruner: .*copy pruner\.report or the model"),
    ):
        copying(pruner)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_report(model, way, mode):
    with attach(model, keep=0.25, explain=True) as pruner, mode():
        model(**inputs_for(model, TWO))
    loaded = WAYS[way](pruner.report)
    assert type(loaded) is type(pruner.report) and str(loaded) == str(pruner.report)
    assert loaded.to_dict() == pruner.report.to_dict()
    assert loaded.to_table() == pruner.report.to_table()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("positions", ["original", "renumbered"])
def test_a_pruned_cache_goes_on(model, way, positions):
    more = torch.tensor([[40, 41], [42, 43]])
    with attach(model, keep=0.25, positions=positions), torch.no_grad():
        cache = model(**inputs_for(model, TWO), use_cache=True).cache
        loaded = WAYS[way](cache)
        expected = model(input_ids=more, cache=cache).logits
        assert torch.equal(model(input_ids=more, cache=loaded).logits, expected)


@pytest.mark.parametrize("way", WAYS)
def test_results_without_a_model(way):
    visual, text = torch.randn(20, 8), torch.randn(3, 8)
    critic = Critic(torch.randn(8, 8), method="given", pairs=3)
    mark = critic.fingerprint
    loaded = WAYS[way](critic)
    assert (str(loaded), loaded.fingerprint) == (str(critic), mark)
    assert torch.equal(loaded.apply(text), critic.apply(text))
    chosen = select(visual, text, 5)
    again = WAYS[way](chosen)
    assert torch.equal(again.indices, chosen.indices) and again.reason == chosen.reason
    assert WAYS[way](Mass(0.5)) == Mass(0.5)
    plan = engine.plan([visual], text, 5)
    hashes = plan.hashes
    assert WAYS[way](plan).hashes == hashes


# ---- programs made of a model ----


def test_a_pruner_is_not_exported():
    model = tiny_models.llava()
    inputs = inputs_for(model, TWO[:1])
    with attach(model, keep=0.25) as pruner:
        for make in (
            lambda: torch.export.export(model, (), dict(inputs), strict=False),
            lambda: torch.jit.trace(model, example_kwarg_inputs=dict(inputs), strict=False),
        ):
            with pytest.raises(RuntimeError, match=r"model: a pruner chooses .* detach\(\) it"):
                make()
        assert logits(model, inputs).shape[1] < inputs["input_ids"].shape[1]
        assert pruner.report.tokens_after == 4


def test_a_replica_is_refused(model):
    """What DataParallel makes of a model on each device: its hooks have no pruner."""
    with attach(model, keep=0.25), pytest.raises(RuntimeError, match="model: DataParallel runs"):
        logits(model._replicate_for_data_parallel(), inputs_for(model, TWO))


def test_the_package_is_named_in_no_model_that_was_detached():
    model = tiny_models.llava()
    attach(model, keep=0.25).detach()
    assert mi_pruner_cuda.__name__.encode() not in pickle.dumps(model)
