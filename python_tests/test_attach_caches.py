"""attach and key-value caches: direct calls, masks and positions of later turns, resets, renumbered
turns; and what must not outlive a call, a thread or a copy.
"""

import copy
import threading

import pytest
import tiny_models
import torch
import transformers
from class_oracle import QUERY
from test_attach_ways import turn_inputs, two_turns
from tiny_models import SQUARE, Prompt, inputs_for
from zoo import FAMILIES

from mi_pruner_cuda import Selection, attach

torch.set_num_threads(1)
ONE = Prompt([20, SQUARE, 30])
WORDS = torch.tensor([[1, *range(40, 60)]])


@pytest.fixture
def tiny():
    return tiny_models.llava()


@torch.no_grad()
def run(model, **inputs):
    return model(**inputs, use_cache=True)


@torch.no_grad()
def logits(model, inputs, **options):
    return model(**inputs, **options).logits


# ---- later calls ----


def test_a_direct_call_of_the_language_model_on_a_padded_cache(tiny):
    inputs = inputs_for(tiny, [ONE, Prompt([33])])
    ids = torch.tensor([[40], [41]])
    with attach(tiny, keep=0.25, query=QUERY):
        cache = run(tiny, **inputs).cache
        again = copy.deepcopy(cache)
        expected = run(tiny.model, input_ids=ids, cache=cache).last_hidden_state
        embeddings = tiny.get_input_embeddings()(ids)
        got = run(tiny.model.language_model, inputs_embeds=embeddings, cache=again)
    assert torch.equal(got.last_hidden_state, expected)


@pytest.mark.parametrize("extra", [0, 5])
def test_a_long_second_turn_with_a_mask_or_positions(tiny, extra):
    """As many words as were dropped, and more: they are new all the same."""
    first = inputs_for(tiny, [ONE])
    length = first["input_ids"].shape[1]
    with attach(tiny, keep=0.25, query=QUERY):
        cache = run(tiny, **first).cache
        dropped = length - cache.get_seq_length()
        ids = 30 + torch.arange(dropped + extra)[None] % 40
        masked, placed = copy.deepcopy(cache), copy.deepcopy(cache)
        expected = run(tiny, input_ids=ids, cache=cache).logits
        mask = torch.ones(1, length + ids.shape[1], dtype=torch.long)
        got = run(tiny, input_ids=ids, attention_mask=mask, cache=masked).logits
        assert torch.equal(got, expected)
        positions = length + torch.arange(ids.shape[1])[None]
        got = run(tiny, input_ids=ids, position_ids=positions, cache=placed).logits
        assert torch.equal(got, expected)


def test_a_padded_second_turn_with_positions(tiny):
    prompts = [ONE, Prompt([21, SQUARE, 31])]
    first = inputs_for(tiny, prompts)
    start = first["input_ids"].shape[1]
    more = {
        "input_ids": torch.tensor([[40, 41], [0, 42]]),
        "attention_mask": torch.cat([first["attention_mask"], torch.tensor([[1, 1], [0, 1]])], 1),
        "position_ids": torch.tensor([[start, start + 1], [1, start]]),
    }
    with attach(tiny, keep=0.25, query=QUERY):
        got = run(tiny, **more, cache=run(tiny, **first).cache).logits
        for row, prompt, words in zip(got, prompts, ([40, 41], [42]), strict=True):
            alone = run(tiny, **inputs_for(tiny, [prompt])).cache
            expected = run(tiny, input_ids=torch.tensor([words]), cache=alone).logits[0]
            torch.testing.assert_close(row[-len(words) :], expected, rtol=1e-5, atol=1e-5)


def test_a_cache_that_was_reset_forgets_what_was_pruned(tiny):
    def answer(cache):
        run(tiny, input_ids=WORDS, cache=cache)
        return run(tiny, input_ids=torch.tensor([[33]]), cache=cache).logits

    static = transformers.StaticCache(config=tiny.config, max_cache_len=40)
    expected = answer(static)
    with attach(tiny, keep=0.25, query=QUERY):
        static.reset()
        run(tiny, **inputs_for(tiny, [ONE]), cache=static)
        static.reset()
        assert torch.equal(answer(static), expected)


def test_the_plane_that_counts_tokens_has_no_gaps():
    family = FAMILIES["qwen2_5_vl"]
    model = family.build()
    inputs = family.inputs(model, [[30, family.picture(0), 31, 32]])
    seen = []

    def see(module, args, kwargs):
        seen.append(kwargs["position_ids"])

    with attach(model, keep=0.25, query=QUERY):
        handle = model.model.language_model.register_forward_pre_hook(see, with_kwargs=True)
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
        handle.remove()
    assert seen[0].shape[0] == 4
    assert seen[0][0, 0].tolist() == list(range(seen[0].shape[-1]))
    assert (seen[0][1:].diff(dim=-1) > 1).any()


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "llava_next"])
def test_a_later_picture_with_renumbered_positions(name):
    family = FAMILIES[name]
    model = family.build()
    a, b = family.picture(0), family.picture(1)
    whole, begin, more = turn_inputs(family, model, [30, a, 31, b, 32], [40, b, 41, 42])
    longer = {
        name: torch.cat([value, value.new_full((1, 1), int(name == "attention_mask"))], 1)
        if value.shape == whole["input_ids"].shape
        else value
        for name, value in whole.items()
    }
    longer["input_ids"][0, -1] = 50
    with attach(model, keep=0.25, query=QUERY, positions="renumbered"):
        expected = logits(model, whole, use_cache=False)
        last = logits(model, longer, use_cache=False)[:, -1:]
        cache = run(model, **begin).cache
        got = run(model, **more, cache=cache).logits
        one = run(model, input_ids=torch.tensor([[50]]), cache=cache).logits
    torch.testing.assert_close(got, expected[:, -got.shape[1] :], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one, last, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_a_turn_after_a_prompt_that_ends_with_its_picture(name):
    """Its last column is dropped: the position after it is still the next one."""
    family = FAMILIES[name]
    model = family.build()
    whole, begin, more = turn_inputs(family, model, [30, family.picture(0)], [40, 41])
    cut = begin["input_ids"].shape[1] - (name == "qwen2_5_vl")  # without the mark of its end
    shape = begin["input_ids"].shape
    begin = {k: v[:, :cut] if v.shape == shape else v for k, v in begin.items()}
    more = {"input_ids": whole["input_ids"][:, cut:]}

    def first_row(visual, text, keep):
        return Selection(torch.tensor([0]), torch.zeros(len(visual)), 1, "first")

    with attach(model, keep=0.25, query=QUERY, selector=first_row):
        expected = logits(model, whole, use_cache=False)
        got = two_turns(model, begin, more)
    torch.testing.assert_close(got, expected[:, -got.shape[1] :], rtol=1e-5, atol=1e-5)


# ---- what must not outlive its call ----


def test_other_images_behind_the_same_words_are_looked_at_anew(tiny):
    """Without a cache a prompt with one more word may be the next step, or another prompt."""
    inputs = inputs_for(tiny, [Prompt([20, SQUARE, 30, 31])])
    longer = {
        "input_ids": torch.cat([inputs["input_ids"], torch.tensor([[40]])], 1),
        "pixel_values": torch.randn(1, 3, 16, 16),
    }
    with attach(tiny, keep=0.25, query=QUERY) as pruner:
        expected = logits(tiny, longer, use_cache=False)
        kept = pruner.report[0].indices.tolist()
        logits(tiny, inputs, use_cache=False)
        assert pruner.report[0].indices.tolist() != kept
        assert torch.equal(logits(tiny, longer, use_cache=False), expected)
        assert pruner.report[0].indices.tolist() == kept


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_forward_that_breaks_off_leaves_nothing_behind(tiny, error):
    """An interrupt runs none of the hooks after a module."""

    def answer():
        cache = run(tiny, input_ids=WORDS).cache
        return run(tiny, input_ids=torch.tensor([[33]]), cache=cache).logits

    def break_off(*_):
        raise error

    expected = answer()
    inputs = inputs_for(tiny, [ONE])
    with attach(tiny, keep=0.25, query=QUERY):
        pruned = logits(tiny, inputs)
        handle = tiny.model.language_model.layers[0].register_forward_pre_hook(break_off)
        with pytest.raises(error):
            run(tiny, **inputs)
        handle.remove()
        assert torch.equal(answer(), expected)
        handle = tiny.model.register_forward_pre_hook(break_off, prepend=True)
        with pytest.raises(error):
            run(tiny, **inputs, labels=inputs["input_ids"])
        handle.remove()
        assert torch.equal(logits(tiny, inputs), pruned)


def test_threads_do_not_meet(tiny):
    """Two prompts at a time on one attached model."""
    prompts = [Prompt([20, SQUARE, 30, 31]), Prompt([21, 22, SQUARE, SQUARE, 33])]
    wrong = []
    with attach(tiny, keep=0.25):
        expected = [logits(tiny, inputs_for(tiny, [p])) for p in prompts]

        def work(n):
            inputs = inputs_for(tiny, [prompts[n]])
            for _ in range(60):
                try:
                    if not torch.equal(logits(tiny, inputs), expected[n]):
                        wrong.append(n)
                except Exception as error:  # whatever it is, it is not to happen
                    wrong.append(error)

        threads = [threading.Thread(target=work, args=(n % 2,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_copy_of_an_attached_model_has_no_pruner(tiny):
    inputs = inputs_for(tiny, [ONE])
    whole = logits(tiny, inputs)
    with attach(tiny, keep=0.25, query=QUERY) as pruner:
        pruned = logits(tiny, inputs)
        report = str(pruner.report)
        twin = copy.deepcopy(tiny)
        assert torch.equal(logits(twin, inputs), whole)
        assert str(pruner.report) == report
        with attach(twin, keep=0.25, query=QUERY):
            assert torch.equal(logits(twin, inputs), pruned)


@pytest.mark.parametrize("name", ["llava", "llava_next", "llava_onevision", "qwen3_vl"])
def test_autocast(name):
    """Learned row breaks are rounded on their way; they are found all the same."""
    family = FAMILIES[name]
    model = family.build()
    inputs = family.inputs(model, [[30, family.picture(0), 31], [32, family.picture(1), 33]])
    with torch.autocast("cpu", torch.bfloat16):
        whole = logits(model, inputs)
        with attach(model, keep=1.0, query=QUERY):
            assert torch.equal(logits(model, inputs), whole)
        with attach(model, keep=0.25, query=QUERY, explain=True) as pruner:
            assert logits(model, inputs).shape[1] < whole.shape[1]
    breaks = [v.breaks for own in family.visuals([[30, family.picture(0), 31],
              [32, family.picture(1), 33]], inputs) for v in own]  # fmt: skip
    assert [r.scores.isnan().nonzero()[:, 0].tolist() for r in pruner.report] == breaks


# ---- what is refused ----


@pytest.mark.parametrize("shape", [(1, 18, 4), (3, 1, 18)])
def test_an_unknown_argument_of_either_shape(tiny, shape):
    inputs = inputs_for(tiny, [Prompt([SQUARE, 30])])
    assert inputs["input_ids"].shape == (1, 18)

    def add(module, args, kwargs):
        return args, {**kwargs, "per_token": torch.zeros(shape)}

    handle = tiny.model.language_model.register_forward_pre_hook(add, with_kwargs=True)
    try:
        with attach(tiny, keep=0.25, query=QUERY), pytest.raises(ValueError, match="per_token"):
            logits(tiny, inputs)
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("chosen", "error", "said"),
    [
        ((torch.tensor([0.0, 1.0]), torch.zeros(16)), TypeError, "int64"),
        (([0, 1], torch.zeros(16)), TypeError, "int64"),
        ((torch.tensor([[0, 1]]), torch.zeros(16)), TypeError, "int64"),
        ((torch.tensor([0, 1]), torch.zeros(15)), ValueError, r"scores \(15,\).*\(16,\)"),
        ((torch.tensor([0, 1]), None), ValueError, "scores NoneType"),
    ],
)
def test_a_selector_that_returns_something_else(tiny, chosen, error, said):
    def selector(visual, text, keep):
        return Selection(*chosen, 2, "other")

    with attach(tiny, keep=0.25, selector=selector), pytest.raises(error, match=said):
        logits(tiny, inputs_for(tiny, [ONE]))


def test_an_encoder_decoder_is_refused(tiny):
    tiny.config.is_encoder_decoder = True
    with pytest.raises(ValueError, match=r"encoder-decoder"):
        attach(tiny, keep=0.25)
