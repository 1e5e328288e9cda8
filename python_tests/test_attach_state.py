"""What is remembered of a prompt between forwards: whose choice lasts, whose report is shown, and
how the note on a cache follows the cache. test_attach_interleaved.py does it in random order.
"""

import copy
import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers
from class_oracle import QUERY
from tiny_models import NUMBER_OF_MARKS, SQUARE, Prompt, inputs_for, llava, qwen

from mi_pruner_cuda import attach, select
from mi_pruner_cuda.huggingface import fingerprint, repeated
from mi_pruner_cuda.huggingface.generating import running_generates

torch.set_num_threads(1)
ONE = Prompt([30, SQUARE, 31, 32])
OTHER = Prompt([40, SQUARE, 41])
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def tiny():
    return llava()


@torch.no_grad()
def scores(model, inputs, extra=None, **options):
    """(steps, B, V): the logits of a generation, with another forward at each of its steps."""
    processors = transformers.LogitsProcessorList([] if extra is None else [Extra(extra)])
    said = model.generate(
        **inputs, max_new_tokens=5, do_sample=False, logits_processor=processors,
        output_logits=True, return_dict_in_generate=True, **options,
    )  # fmt: skip
    return torch.stack(said.logits)


class Extra(transformers.LogitsProcessor):
    """Leaves the scores alone; run(ids) is what else is called at each step."""

    def __init__(self, run):
        self.run = run

    def __call__(self, input_ids, scores):
        with torch.no_grad():
            self.run(input_ids)
        return scores


def others(model, inputs):
    """What hosts do between two steps of a prompt, by name: each takes the ids so far."""
    noise = inputs_for(model, [ONE], seed=50)
    own = {k: v for k, v in inputs.items() if k != "mm_token_type_ids"}

    def with_ids(base, ids):
        more = {**base, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if "mm_token_type_ids" in inputs:
            more["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
        return more

    def fresh(ids):
        again = {**noise, "pixel_values": torch.randn_like(noise["pixel_values"])}
        return model(**with_ids(again, ids), use_cache=False)

    def verify(ids):
        copied = {**own, "pixel_values": own["pixel_values"].clone()}
        return model(**with_ids(copied, ids), use_cache=False)

    def restart(ids):
        return model(**inputs, use_cache=False)

    def nested(ids):
        given = inputs_for(model, [OTHER])
        return model.generate(**given, max_new_tokens=2, do_sample=False, use_cache=False)

    return {
        "another picture": lambda ids: model(**with_ids(noise, ids), use_cache=False),
        "a new picture each time": fresh,
        "text": lambda ids: model(input_ids=ids[:, -2:], use_cache=False),
        "cached text": lambda ids: model(input_ids=torch.tensor([[1, 20, 21]]), use_cache=True),
        "the same again, copied": verify,
        "the prompt again": restart,
        "another generate": nested,
    }


MODELS = {"llava": llava, "qwen": qwen}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("what", others(llava(), inputs_for(llava(), [ONE])))
@pytest.mark.parametrize("use_cache", [False, True])
def test_a_choice_lasts_whatever_else_the_model_is_called_for(name, what, use_cache):
    model = MODELS[name]()
    for seed in range(2):
        inputs = inputs_for(model, [ONE], seed=seed)
        with attach(model, keep=0.25, query="all") as pruner:
            expected = scores(model, inputs)
            kept = [entry.to_dict() | {"seconds": 0} for entry in pruner.report]
            got = scores(model, inputs, others(model, inputs)[what], use_cache=use_cache)
            shown = [entry.to_dict() | {"seconds": 0} for entry in pruner.report]
            torch.testing.assert_close(got, expected, **CLOSE)
            assert shown == kept
            assert len(pruner.other_reports) > 0


@pytest.mark.parametrize("use_cache", [False, True])
def test_guidance(tiny, use_cache):
    """generate's own forwards of text in between: with a cache and without, the same answers."""
    inputs = inputs_for(tiny, [ONE])
    with attach(tiny, keep=0.25) as pruner:
        expected = scores(tiny, inputs)
        got = scores(tiny, inputs, guidance_scale=1.5, use_cache=use_cache)
        torch.testing.assert_close(got[0], expected[0], **CLOSE)
        assert pruner.report.tokens_before == 16
        assert [str(r[0]) for r in pruner.other_reports] == ["item 0: no image in the prompt"]
        # The raw logits are of the prompt alone; the guided tokens may differ from greedy ones.
        cached = scores(tiny, inputs, guidance_scale=1.5)
        torch.testing.assert_close(got, cached, **CLOSE)


@pytest.mark.parametrize("way", ["the same tensors", "copies", "other threads"])
def test_steps_by_hand_of_two_prompts_in_turn(tiny, way):
    """Each repeats its prompt with one more token, as loops without generate do."""
    prompts = [inputs_for(tiny, [p], seed=s) for p, s in ((ONE, 0), (ONE, 1), (OTHER, 0))]

    def one_step(inputs, ids):
        pixels = inputs["pixel_values"]
        pixels = pixels.clone() if way == "copies" else pixels
        with torch.no_grad():
            return tiny(
                input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels
            ).logits[:, -1]  # fmt: skip

    def steps(inputs):
        """Yields the logits of each step."""
        ids = inputs["input_ids"]
        for _ in range(4):
            if way == "other threads":
                with ThreadPoolExecutor(1) as pool:
                    logits = pool.submit(one_step, inputs, ids).result()
            else:
                logits = one_step(inputs, ids)
            yield logits
            word = logits[:, NUMBER_OF_MARKS:].argmax(-1, keepdim=True) + NUMBER_OF_MARKS
            ids = torch.cat([ids, word], 1)

    with attach(tiny, keep=0.25):
        expected = [scores(tiny, inputs)[:4] for inputs in prompts]
        in_turn = list(zip(*map(steps, prompts), strict=True))
    for got, want in zip(zip(*in_turn, strict=True), expected, strict=True):
        torch.testing.assert_close(torch.stack(got), want, **CLOSE)


def test_branches_of_one_prompt(tiny):
    """A search that goes back: every row without its last token has been seen before."""
    inputs = inputs_for(tiny, [ONE])

    def asked(pruner, *tokens):
        ids = torch.cat([inputs["input_ids"], torch.tensor([tokens], dtype=torch.long)], 1)
        before = pruner.report
        with torch.no_grad():
            tiny(input_ids=ids, pixel_values=inputs["pixel_values"], use_cache=False,
                 attention_mask=torch.ones_like(ids))  # fmt: skip
        return pruner.report is not before

    with attach(tiny, keep=0.25) as pruner:
        assert asked(pruner)
        assert not asked(pruner, 50)
        assert not asked(pruner, 50, 51)
        assert not asked(pruner, 60)
        assert not asked(pruner, 50, 61)
        assert not asked(pruner, 60, 62)
        # Nobody has asked this before: a longer question, to be looked at anew.
        assert asked(pruner, 70, 71, 72)
        assert pruner.report[0].query[-1] == 72


def test_a_new_mask_over_the_same_tokens_is_a_new_prompt(tiny):
    inputs = inputs_for(tiny, [ONE])
    ids = torch.cat([inputs["input_ids"], torch.tensor([[50]])], 1)
    mask = torch.ones_like(ids)
    mask[0, 0] = 0
    with attach(tiny, keep=0.25, query="all") as pruner, torch.no_grad():
        tiny(**inputs, use_cache=False)
        first = pruner.report
        tiny(input_ids=ids, attention_mask=mask, pixel_values=inputs["pixel_values"],
             use_cache=False)  # fmt: skip
    assert pruner.report is not first


def test_the_report_of_a_generate_that_goes_on_with_a_cache(tiny):
    """It is that of the cache, whatever was looked at since."""
    inputs = inputs_for(tiny, [ONE])
    with attach(tiny, keep=0.25) as pruner, torch.no_grad():
        cache = transformers.DynamicCache()
        tiny(**inputs, past_key_values=cache, use_cache=True)
        kept = pruner.report
        tiny(**inputs_for(tiny, [OTHER]))
        assert pruner.report is not kept
        ids = torch.cat([inputs["input_ids"], torch.tensor([[50]])], 1)
        tiny.generate(ids, past_key_values=cache, max_new_tokens=2, do_sample=False)
        assert pruner.report is kept


def test_reports_of_two_generates_in_two_threads_do_not_mix(tiny):
    """What a processor of the first one calls later is beside the first one."""
    first, second = inputs_for(tiny, [ONE]), inputs_for(tiny, [OTHER])
    started, go_on = threading.Event(), threading.Event()
    seen = []

    def wait(ids):
        started.set()
        assert go_on.wait(60)
        tiny(**inputs_for(tiny, [ONE, ONE], seed=3), use_cache=False)

    with attach(tiny, keep=0.25) as pruner:
        thread = threading.Thread(target=lambda: seen.append(scores(tiny, first, wait)))
        thread.start()
        assert started.wait(60)
        expected = scores(tiny, second)
        own = pruner.report
        go_on.set()
        thread.join()
        assert pruner.report is own and len(pruner.other_reports) == 0
    assert own[0].query == [40, 41]
    with attach(tiny, keep=0.25):
        torch.testing.assert_close(seen[0], scores(tiny, first), **CLOSE)
        torch.testing.assert_close(expected, scores(tiny, second), **CLOSE)


def test_outside_of_generate_there_is_none(tiny):
    assert running_generates(tiny) == []

    class Other:
        def generate(self, model):
            prepared_stopping_criteria = transformers.StoppingCriteriaList()
            return running_generates(model), prepared_stopping_criteria

    assert Other().generate(tiny)[0] == []  # somebody else's


def test_generate_of_transformers_has_what_tells_it_apart(tiny):
    """If a release renames its variables, generate would look like forwards by hand."""
    found = []
    scores(tiny, inputs_for(tiny, [ONE]), lambda ids: found.append(running_generates(tiny)))
    assert [len(markers) for markers in found] == [1] * 5
    assert all(markers[0] is found[0][0] for markers in found)


def test_a_class_whose_generate_calls_that_of_its_base(tiny):
    class Mine(type(tiny)):
        def generate(self, *args, **kwargs):
            return super().generate(*args, **kwargs)

    inputs = inputs_for(tiny, [ONE])
    with attach(tiny, keep=0.25) as pruner:
        scores(tiny, inputs)
        kept = pruner.report[0].indices
        tiny.__class__ = Mine
        scores(tiny, inputs, others(tiny, inputs)["another picture"])
        assert torch.equal(pruner.report[0].indices, kept) and len(pruner.other_reports) == 1


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("use_cache", [False, True])
def test_a_question_one_word_longer_is_asked_anew_in_generate(name, use_cache):
    """On the same picture, which an earlier generate without a cache has left among the prompts."""
    model = MODELS[name]()
    inputs = inputs_for(model, [ONE])
    ids = torch.cat([inputs["input_ids"], torch.tensor([[77]])], 1)
    longer = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "mm_token_type_ids" in inputs:
        longer["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
    with attach(model, keep=0.25):
        expected = scores(model, longer)
    with attach(model, keep=0.25) as pruner:
        scores(model, inputs, use_cache=False)
        with torch.no_grad():
            model(**inputs_for(model, [OTHER]))
        got = scores(model, longer, use_cache=use_cache)
        assert pruner.report[0].query == [30, 31, 32, 77]
    torch.testing.assert_close(got, expected, **CLOSE)


@pytest.mark.parametrize("name", MODELS)
def test_a_generate_within_generate_has_its_own_question(name):
    """A verifier's: prompt, what was generated, and a question about it."""
    model = MODELS[name]()
    inputs, asked = inputs_for(model, [ONE]), []

    def verify(ids):
        longer = torch.cat([ids, torch.tensor([[70, 71]])], 1)
        given = {**inputs, "input_ids": longer, "attention_mask": torch.ones_like(longer)}
        if "mm_token_type_ids" in inputs:
            given["mm_token_type_ids"] = (longer == model.config.image_token_id).int()
        asked.append(given)
        model.generate(**given, max_new_tokens=2, do_sample=False)

    with attach(model, keep=0.25) as pruner:
        scores(model, inputs, verify)
        queries = [report[0].query for report in pruner.other_reports]
    for given, query in zip(asked, queries, strict=True):
        assert query == [t for t in given["input_ids"][0].tolist() if t >= NUMBER_OF_MARKS]


def test_beams_without_a_cache(tiny):
    """Rows of one prompt trade places; nothing is chosen anew."""
    inputs = inputs_for(tiny, [ONE, Prompt([33, 40, SQUARE, 35, 36])])
    how = {"num_beams": 3, "max_new_tokens": 8, "do_sample": False}
    with attach(tiny, keep=0.25) as pruner, torch.no_grad():
        expected = tiny.generate(**inputs, **how)
        assert torch.equal(tiny.generate(**inputs, **how, use_cache=False), expected)
        assert len(pruner.other_reports) == 0
        twice = {k: v[:1].repeat(2, *[1] * (v.dim() - 1)) for k, v in inputs.items()}
        ids = twice["input_ids"]
        for order, tokens in (([0, 1], [60, 61]), ([1, 0], [70, 71]), ([1, 1], [72, 73])):
            tiny(
                **{**twice, "input_ids": ids, "attention_mask": (ids != 0).long()}, use_cache=False
            )
            ids = torch.cat([ids[order], torch.tensor(tokens)[:, None]], 1)
        tiny(**{**twice, "input_ids": ids, "attention_mask": (ids != 0).long()}, use_cache=False)
        assert pruner.report[0].query == [30, 31, 32]


def test_a_prompt_in_use_is_not_forgotten_for_many_others(tiny, monkeypatch):
    """A loop by hand that looks at a fresh picture at every step."""
    monkeypatch.setattr(repeated, "_MOST", 4)
    inputs = inputs_for(tiny, [ONE])
    ids = inputs["input_ids"]
    with attach(tiny, keep=0.25) as pruner, torch.no_grad():
        for step in range(8):
            whole = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
            before = pruner.report
            tiny(**whole, use_cache=False)
            assert (pruner.report is before) == (step > 0)
            tiny(**{**whole, "pixel_values": torch.randn(1, 3, 16, 16)}, use_cache=False)
            ids = torch.cat([ids, torch.tensor([[60 + step]])], 1)


def test_a_picture_written_over_another_one_is_seen(tiny):
    inputs = inputs_for(tiny, [ONE])
    ids = torch.cat([inputs["input_ids"], torch.tensor([[77]])], 1)
    with attach(tiny, keep=0.25) as pruner, torch.no_grad():
        tiny(**inputs, use_cache=False)
        first = pruner.report
        inputs["pixel_values"].copy_(torch.randn(1, 3, 16, 16))
        tiny(**{**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)},
             use_cache=False)  # fmt: skip
        assert pruner.report is not first


def test_a_selector_that_calls_the_model(tiny):
    text = torch.tensor([[1, 20, 21]])

    def chosen(visual, words, keep):
        tiny(input_ids=text)
        return select(visual, words, keep)

    inputs = inputs_for(tiny, [ONE])
    with attach(tiny, keep=0.25) as pruner:
        expected = scores(tiny, inputs)
    with attach(tiny, keep=0.25, selector=chosen) as pruner:
        got = scores(tiny, inputs)
        assert pruner.report.tokens_after == 4
        with pytest.raises(ValueError, match="labels"), torch.no_grad():
            tiny(**inputs, labels=inputs["input_ids"])
    torch.testing.assert_close(got, expected, **CLOSE)


# ---- notes on caches ----


TWO = [Prompt([30, SQUARE, 31]), Prompt([33, SQUARE, SQUARE, 34, 35])]


def filled(model, prompts, cache=None):
    """(cache, mask) after the prefill."""
    inputs = inputs_for(model, prompts)
    cache = transformers.DynamicCache() if cache is None else cache
    with torch.no_grad():
        model(**inputs, past_key_values=cache, use_cache=True)
    return cache, inputs["attention_mask"]


def go_on(model, cache, mask, tokens):
    ids = torch.tensor([[token] for token in tokens])
    whole = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=whole, past_key_values=cache).logits[:, -1]


def from_tensors(cache, change=lambda x: x):
    again = transformers.DynamicCache()
    for number, layer in enumerate(cache.layers):
        again.update(change(layer.keys), change(layer.values), number)
    return again


def pickled(cache):
    file = io.BytesIO()
    torch.save(cache, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def in_place(change):
    def run(cache):
        change(cache)
        return cache

    return run


# What is done to a cache of two rows, and which rows it holds afterwards.
CHANGES = {
    "reorder_cache": (in_place(lambda c: c.reorder_cache(torch.tensor([1, 0]))), [1, 0]),
    "reorder_cache twice": (
        in_place(lambda c: [c.reorder_cache(torch.tensor([1, 0])) for _ in range(2)]), [0, 1],
    ),
    "reorder_cache of beams": (in_place(lambda c: c.reorder_cache(torch.tensor([1, 1]))), [1, 1]),
    "batch_select_indices": (in_place(lambda c: c.batch_select_indices(torch.tensor([1]))), [1]),
    "batch_select_indices, a mask": (
        in_place(lambda c: c.batch_select_indices(torch.tensor([False, True]))), [1],
    ),
    "batch_repeat_interleave": (
        in_place(lambda c: c.batch_repeat_interleave(2)), [0, 0, 1, 1],
    ),
    "a deep copy, reordered": (
        lambda c: in_place(lambda d: d.reorder_cache(torch.tensor([1, 0])))(copy.deepcopy(c)),
        [1, 0],
    ),
    "pickle": (lambda c: pickle.loads(pickle.dumps(c)), [0, 1]),
    "torch.save": (pickled, [0, 1]),
    "built again": (from_tensors, [0, 1]),
    "built again of a row": (lambda c: from_tensors(c, lambda x: x[1:]), [1]),
    "built again, turned": (lambda c: from_tensors(c, lambda x: x.flip(0)), [1, 0]),
    "its tensors assigned": (
        in_place(
            lambda c: [
                (setattr(x, "keys", x.keys.flip(0)), setattr(x, "values", x.values.flip(0)))
                for x in c.layers
            ]
        ),
        [1, 0],
    ),
    "offloaded and back": (
        in_place(lambda c: [(x.offload(), x.prefetch()) for x in c.layers]), [0, 1],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("later", [0, 2])
@pytest.mark.parametrize("change", CHANGES)
def test_a_note_follows_its_cache(name, later, change):
    """later: steps between the prefill and the change."""
    model = MODELS[name]()
    make, places = CHANGES[change]
    tokens = [40, 41]
    with attach(model, keep=0.25, query=QUERY):
        cache, mask = filled(model, TWO)
        for _ in range(later):
            go_on(model, cache, mask, tokens)
            mask = torch.cat([mask, mask.new_ones(2, 1)], 1)
        plain = copy.deepcopy(cache)
        filled(model, [OTHER])  # whatever the model was last called for
        cache = make(cache)
        expected = go_on(model, plain, mask, tokens)[places]
        got = go_on(model, cache, mask[places], [tokens[place] for place in places])
        torch.testing.assert_close(got, expected, **CLOSE)


@pytest.mark.parametrize("change", ["reorder_cache", "reorder_cache of beams"])
def test_a_static_cache_that_is_reordered(tiny, change):
    make, places = CHANGES[change]
    with attach(tiny, keep=0.25, query=QUERY):
        cache, mask = filled(tiny, TWO)
        expected = go_on(tiny, cache, mask, [40, 41])[places]
        static = transformers.StaticCache(config=tiny.config.text_config, max_cache_len=64)
        static, mask = filled(tiny, TWO, static)
        make(static)
        got = go_on(tiny, static, mask[places], [[40, 41][place] for place in places])
    torch.testing.assert_close(got, expected, **CLOSE)


def test_rows_that_nobody_knows_are_refused(tiny):
    with attach(tiny, keep=0.25, query=QUERY):
        cache, mask = filled(tiny, TWO)
        for layer in cache.layers:
            layer.keys = layer.keys + 1
        with pytest.raises(ValueError, match="past_key_values: the cache holds other keys than"):
            go_on(tiny, cache, mask, [40, 41])


def test_rows_of_a_pruned_and_of_an_unknown_prompt_are_refused(tiny):
    inputs = inputs_for(tiny, [Prompt([30, SQUARE, 31])])
    strange = transformers.DynamicCache()
    with torch.no_grad():
        tiny(**inputs, past_key_values=strange, use_cache=True)
    with attach(tiny, keep=0.25, query=QUERY):
        cache, _ = filled(tiny, [Prompt([30, SQUARE, 31])])
        length = cache.get_seq_length()
        mixed = transformers.DynamicCache()
        for number, (a, b) in enumerate(zip(cache.layers, strange.layers, strict=True)):
            rows = [torch.cat([x, y[:, :, :length]]) for x, y in ((a.keys, b.keys),
                                                                 (a.values, b.values))]  # fmt: skip
            mixed.update(*rows, number)
        with pytest.raises(ValueError, match="some rows of the cache are of a pruned prompt"):
            tiny(input_ids=torch.tensor([[40], [41]]), past_key_values=mixed)


def test_a_cache_from_before_the_pruner_is_not_pruned(tiny):
    """Its columns are whole, and an earlier prefill of the pruner's does not change that."""
    inputs = inputs_for(tiny, [ONE])
    with torch.no_grad():
        cache = tiny(**inputs, use_cache=True).past_key_values
        again = copy.deepcopy(cache)
        ids = torch.tensor([[40]])
        expected = tiny(input_ids=ids, past_key_values=again).logits
        with attach(tiny, keep=0.25):
            filled(tiny, [ONE])
            assert torch.equal(tiny(input_ids=ids, past_key_values=cache).logits, expected)


def test_a_cache_refilled_while_nobody_looked_is_refused(tiny):
    """A static cache keeps its tensors: the note on it is then of other columns."""
    static = transformers.StaticCache(config=tiny.config.text_config, max_cache_len=64)
    with attach(tiny, keep=0.25, query=QUERY):
        filled(tiny, TWO, static)
    static.reset()
    with torch.no_grad():
        tiny(**inputs_for(tiny, TWO), past_key_values=static, use_cache=True)
    with attach(tiny, keep=0.25, query=QUERY), pytest.raises(ValueError, match="past_key_values"):
        go_on(tiny, static, inputs_for(tiny, TWO)["attention_mask"], [40, 41])


@pytest.mark.parametrize("window", [5, 12, 16])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_layers_that_all_have_a_window(window, cache):
    """Beams reorder a cache whose pruned columns leave the window, and masks show no more of it."""
    model = llava(text=transformers.MistralConfig, sliding_window=window)
    inputs = inputs_for(model, [ONE, Prompt([40, 41, 42, SQUARE, SQUARE, 45])])
    how = {"max_new_tokens": 12, "do_sample": False}
    kind = {"cache_implementation": "static"} if cache == "static" else {}
    with attach(model, keep=0.25) as pruner, torch.no_grad():
        for beams in (1, 2):
            expected = model.generate(**inputs, **how, num_beams=beams, use_cache=False)
            query = pruner.report[0].query
            got = model.generate(**inputs, **how, num_beams=beams, **kind)
            assert torch.equal(got, expected)
            assert pruner.report[0].query == query


def test_a_cache_whose_tensors_are_changed_in_place(tiny):
    with attach(tiny, keep=0.25, query=QUERY):
        cache, mask = filled(tiny, TWO)
        expected = go_on(tiny, copy.deepcopy(cache), mask, [40, 41])[[1, 0]]
        for layer in cache.layers:
            layer.keys.copy_(layer.keys.flip(0).clone())
            layer.values.copy_(layer.values.flip(0).clone())
        got = go_on(tiny, cache, mask.flip(0), [41, 40])
    torch.testing.assert_close(got, expected, **CLOSE)


def test_a_later_prefill_of_one_row_does_not_hide_the_earlier_one(tiny):
    with attach(tiny, keep=0.25, query=QUERY):
        prompts = [Prompt([30, SQUARE, 31]), Prompt([33, SQUARE, 35])]
        cache, mask = filled(tiny, prompts)
        filled(tiny, prompts[1:])
        again = from_tensors(cache)
        expected = go_on(tiny, cache, mask, [40, 41])
        torch.testing.assert_close(go_on(tiny, again, mask, [40, 41]), expected, **CLOSE)


def test_two_images_shared_by_questions_of_a_batch(tiny):
    """A prefix cache repeated for several questions, as its own single rows would go on."""
    head = inputs_for(tiny, [Prompt([30, SQUARE, SQUARE])])
    questions = [[31, 32], [40, 41], [50, 51]]
    with attach(tiny, keep=0.25, query=None), torch.no_grad():
        cache = tiny(**head, use_cache=True).past_key_values
        alone = [
            tiny(input_ids=torch.tensor([q]), past_key_values=copy.deepcopy(cache)).logits
            for q in questions
        ]
        cache.batch_repeat_interleave(3)
        together = tiny(input_ids=torch.tensor(questions), past_key_values=cache).logits
    torch.testing.assert_close(together, torch.cat(alone), **CLOSE)


# ---- numbers that tell tensors apart ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.uint8,
                                   torch.bool, torch.complex64, torch.int64])  # fmt: skip
def test_fingerprints(dtype):
    x = torch.randn(6, 5, 7) * 9
    x = x > 0 if dtype == torch.bool else x.to(dtype)
    x[3] = x[1]
    numbers = fingerprint.of_rows(x)
    assert numbers[3] == numbers[1] and len(set(numbers.tolist())) == 5
    assert torch.equal(fingerprint.of_rows(x.flip(0)), numbers.flip(0))
    # The same values elsewhere, or one bit of one element, are another row.
    assert not torch.equal(fingerprint.of_rows(x.flip(1))[[0]], numbers[[0]])
    changed = x.clone()
    changed[0, 0, 0] = not changed[0, 0, 0] if dtype == torch.bool else changed[0, 0, 0] + 1
    assert fingerprint.of_rows(changed)[0] != numbers[0]
    assert torch.equal(fingerprint.of_rows(changed)[1:], numbers[1:])


def test_fingerprints_of_large_rows_do_not_depend_on_how_they_are_read(monkeypatch):
    x = torch.randn(2, 1000)
    whole = fingerprint.of_rows(x)
    monkeypatch.setattr(fingerprint, "_CHUNK", 64)
    assert torch.equal(fingerprint.of_rows(x), whole)
    assert torch.equal(fingerprint.of_rows(x.T.contiguous().T), whole)  # strides are not content
