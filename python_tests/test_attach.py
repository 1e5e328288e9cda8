"""attach on both kinds of model: what it keeps, that it is exact, that it goes away."""

import copy

import pytest
import tiny_models
import tiny_oracle
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import IMAGE, PAD, SQUARE, Prompt, inputs_for

import mi_pruner_cuda
from mi_pruner_cuda import Mass, Selection, attach
from mi_pruner_cuda.huggingface.columns import kept_columns, renumber

torch.set_num_threads(1)  # these models are too small to share

MODELS = {"llava": tiny_models.llava, "qwen": tiny_models.qwen}
ONE = Prompt([20, 21, SQUARE, 30, 31, 32, 33])
TWO = Prompt([22, SQUARE, 40, 41, SQUARE, 42])
NONE = Prompt([50, 51, 52, 53, 54])
NEW = 6  # generated tokens


@pytest.fixture(scope="module", params=[(n, a) for n in MODELS for a in ("sdpa", "eager")])
def model(request):
    name, attention = request.param
    return MODELS[name](attention)


@pytest.fixture(scope="module", params=list(MODELS))
def any_model(request):
    """One attention implementation is enough where attention is not what is tested."""
    return MODELS[request.param]()


@torch.no_grad()
def logits(model, inputs, **options):
    return model(**inputs, **options).logits


def generate(model, inputs, **options):
    torch.manual_seed(3)
    output = model.generate(**inputs, max_new_tokens=NEW, **options)
    return output[:, inputs["input_ids"].shape[1] :]


def assert_rows_close(batch: torch.Tensor, rows: list[torch.Tensor]):
    """Each item of a left-padded (B, P, V) against its own (P_b, V)."""
    assert batch.shape[1] == max(map(len, rows))
    for got, expected in zip(batch, rows, strict=True):
        torch.testing.assert_close(got[-len(expected) :], expected, rtol=0, atol=1e-5)


def sizes_of(prompts):
    return [[h * w for h, w in prompt.images] for prompt in prompts]


def test_keep_1_is_bitwise_the_unhooked_model(model):
    inputs = inputs_for(model, [ONE, TWO])
    expected = logits(model, inputs)
    with attach(model, keep=1.0) as pruner:
        assert torch.equal(logits(model, inputs), expected)
    assert [r.reason for r in pruner.report] == ["kept all: keep = 1.0"] * 3
    assert [r.tokens_after for r in pruner.report] == [16] * 3
    assert all(r.scores.shape == (16,) and len(r.indices) == 16 for r in pruner.report)


@pytest.mark.parametrize(
    "prompts", [[ONE], [TWO], [ONE, TWO], [TWO, NONE, ONE]], ids=["one", "two", "batch", "mixed"]
)
def test_pruned_logits_equal_a_hand_gathered_run(model, prompts):
    inputs = inputs_for(model, prompts)
    kept = tiny_oracle.kept_columns(model, inputs, sizes_of(prompts), 0.25)
    with torch.no_grad():
        expected = tiny_oracle.pruned_logits(model, inputs, kept)
    with attach(model, keep=0.25) as pruner:
        for cache in (True, False):
            assert_rows_close(logits(model, inputs, use_cache=cache), expected)
    images = [r for r in pruner.report if r.image is not None]
    assert len(images) == sum(len(p.images) for p in prompts)
    assert all((r.tokens_before, r.tokens_after, r.reason) == (16, 4, "pruned") for r in images)
    assert all(r.grid[-2:] == SQUARE for r in images)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    batch=st.lists(
        st.lists(st.one_of(st.integers(7, 95), st.just(SQUARE)), min_size=0, max_size=6),
        min_size=1, max_size=3,
    ),
    ratio=st.floats(0.01, 1.0),
    pooled=st.booleans(),
    method=st.sampled_from(
        [{}, {"redundancy": 0.5}, {"estimator": "posterior", "temperature": 0.5}]
    ),
)  # fmt: skip
def test_any_batch_equals_its_hand_pruned_items(any_model, batch, ratio, pooled, method):
    prompts = [Prompt([*parts, 60, 61]) for parts in batch]  # every item asks something
    inputs = inputs_for(any_model, prompts)
    kept = tiny_oracle.kept_columns(
        any_model, inputs, sizes_of(prompts), ratio, pooled=pooled, **method
    )
    with torch.no_grad():
        expected = tiny_oracle.pruned_logits(any_model, inputs, kept)
    budget = "pooled" if pooled else "per-image"
    with attach(any_model, keep=ratio, budget=budget, **method) as pruner:
        result = logits(any_model, inputs)
    if pruner.report.tokens_before == pruner.report.tokens_after:
        assert result.shape[1] == inputs["input_ids"].shape[1]  # handed through, with its padding
        for got, row in zip(result, expected, strict=True):
            torch.testing.assert_close(got[-len(row) :], row, rtol=0, atol=1e-5)
    else:
        assert_rows_close(result, expected)


def test_padded_batch_equals_items_one_by_one(model):
    prompts = [ONE, NONE, TWO]
    with attach(model, keep=0.3):
        batch = logits(model, inputs_for(model, prompts))
        alone = [logits(model, inputs_for(model, [p]))[0] for p in prompts]
        assert_rows_close(batch, alone)
        tokens = generate(model, inputs_for(model, prompts))
        for item, prompt in enumerate(prompts):
            assert torch.equal(tokens[item], generate(model, inputs_for(model, [prompt]))[0])


@pytest.mark.parametrize("positions", ["original", "renumbered"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_sample": True, "temperature": 1.5},
        {"num_beams": 3},
        {"num_beams": 2, "do_sample": True, "num_return_sequences": 2},
    ],
    ids=["greedy", "sampling", "beams", "beam-sampling"],
)
def test_cached_generation_equals_recomputation(model, options, positions):
    inputs = inputs_for(model, [ONE, TWO, NONE])
    with attach(model, keep=0.25, positions=positions) as pruner:
        cached = generate(model, inputs, **options)
        report = str(pruner.report).split(" in ")[0]
        assert torch.equal(cached, generate(model, inputs, use_cache=False, **options))
        assert str(pruner.report).split(" in ")[0] == report
        assert torch.equal(cached, generate(model, inputs, **options))  # several calls in a row


def test_generation_equals_a_hand_run_token_by_token(any_model):
    """Greedy decoding with the cache against the hand-pruned prompt plus what came so far."""
    inputs = inputs_for(any_model, [ONE])
    kept = tiny_oracle.kept_columns(any_model, inputs, sizes_of([ONE]), 0.25)
    with attach(any_model, keep=0.25):
        tokens = generate(any_model, inputs)[0]
    row, length = kept[0], inputs["input_ids"].shape[1]
    for token in tokens:
        with torch.no_grad():
            expected = tiny_oracle.pruned_logits(any_model, inputs, [row])[0][-1]
        expected[: tiny_models.NUMBER_OF_MARKS] = -torch.inf  # suppressed
        assert int(token) == int(expected.argmax())
        row = [*row, length]
        length += 1
        for name, value in (
            ("input_ids", int(token)),
            ("attention_mask", 1),
            ("mm_token_type_ids", 0),
        ):
            if name in inputs:
                more = torch.full((1, 1), value, dtype=inputs[name].dtype)
                inputs[name] = torch.cat([inputs[name], more], 1)


def test_equal_prompts_that_keep_unequal_counts(model):
    """No mask comes with the prompt, nor with any step: the padding is pruning's own."""
    framed = model.config.model_type == "qwen2_5_vl"
    words = list(range(40, 56 + 2 * framed))  # as many as the second image and its marks
    inputs = inputs_for(model, [Prompt([SQUARE, 30, *words]), Prompt([SQUARE, 30, SQUARE])])
    assert inputs["attention_mask"].all()
    with attach(model, keep=0.25):
        cached = generate(model, inputs)
        assert torch.equal(cached, generate(model, inputs, use_cache=False))
        for item, row in enumerate(cached):
            prompt = [Prompt([SQUARE, 30, *words]), Prompt([SQUARE, 30, SQUARE])][item]
            assert torch.equal(row, generate(model, inputs_for(model, [prompt]))[0])


def test_static_cache_equals_dynamic(model):
    for prompts in ([ONE], [ONE, TWO, NONE]):
        inputs = inputs_for(model, prompts)
        with attach(model, keep=0.25):
            expected = generate(model, inputs)
            assert torch.equal(generate(model, inputs, cache_implementation="static"), expected)


def test_prompt_lookup_decoding_is_greedy(any_model):
    """Wherever its guesses begin, in the prefill too, and whether they come true or not."""
    for word in range(60, 70):
        inputs = inputs_for(any_model, [Prompt([20, SQUARE, 30, 31, 30, word])])
        with attach(any_model, keep=0.25) as pruner:
            expected = generate(any_model, inputs)
            asked = pruner.report[0].query
            lookup = {"prompt_lookup_num_tokens": 2, "max_matching_ngram_size": 1}
            assert torch.equal(generate(any_model, inputs, **lookup), expected)
            assert pruner.report[0].query == asked


def test_bfloat16_model():
    for make in MODELS.values():
        half = make().to(torch.bfloat16)
        inputs = inputs_for(half, [ONE, TWO])
        inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
        expected = logits(half, inputs)
        with attach(half, keep=1.0):
            assert torch.equal(logits(half, inputs), expected)
        kept = tiny_oracle.kept_columns(half, inputs, sizes_of([ONE, TWO]), 0.25)
        with torch.no_grad():
            rows = tiny_oracle.pruned_logits(half, inputs, kept)
        with attach(half, keep=0.25):
            pruned = logits(half, inputs)
            assert pruned.dtype == torch.bfloat16
            for got, row in zip(pruned, rows, strict=True):
                torch.testing.assert_close(got[-len(row) :], row, rtol=0.1, atol=0.1)
            cached = generate(half, inputs)
            assert cached.shape == (2, NEW)


def test_logits_to_keep(any_model):
    inputs = inputs_for(any_model, [ONE, TWO])
    with attach(any_model, keep=0.25):
        whole = logits(any_model, inputs)
        torch.testing.assert_close(logits(any_model, inputs, logits_to_keep=3), whole[:, -3:])
        with pytest.raises(ValueError, match="logits_to_keep"):
            logits(any_model, inputs, logits_to_keep=torch.tensor([1, 2]))
        torch.testing.assert_close(
            logits(any_model, inputs), whole
        )  # the refusal left nothing behind


def test_inner_model_and_positional_arguments(any_model):
    inputs = inputs_for(any_model, [ONE])
    ids = inputs.pop("input_ids")
    with attach(any_model, keep=0.25), torch.no_grad():
        outer = any_model(input_ids=ids, **inputs).logits
        inner = any_model.model(input_ids=ids, **inputs).last_hidden_state
        assert torch.equal(any_model.lm_head(inner), outer)
        if any_model.config.model_type == "llava":
            pixels = inputs.pop("pixel_values")
            assert torch.equal(any_model(ids, pixels, **inputs).logits, outer)


def test_a_direct_call_of_the_language_model_is_untouched(any_model):
    """It brings no images; those of the call before, or of one that failed, are not its own."""
    inputs = inputs_for(any_model, [ONE])
    with torch.no_grad():
        embeddings = tiny_oracle.merged_embeddings(any_model, inputs)
        expected = any_model.model.language_model(inputs_embeds=embeddings)[0]
        with attach(any_model, keep=0.25):
            any_model(**inputs)
            assert torch.equal(
                any_model.model.language_model(inputs_embeds=embeddings)[0], expected
            )
            with pytest.raises(ValueError, match="logits_to_keep"):
                any_model(**inputs, logits_to_keep=torch.tensor([1]))
            assert torch.equal(
                any_model.model.language_model(inputs_embeds=embeddings)[0], expected
            )


def test_no_mask_means_no_padding(any_model):
    """Without mask and cache transformers reads gaps between positions as packed sequences."""
    inputs = inputs_for(any_model, [ONE])
    with attach(any_model, keep=0.25):
        expected = logits(any_model, inputs)
        inputs["attention_mask"] = None
        for cache in (True, False):
            got = logits(any_model, inputs, use_cache=cache)
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def snapshot(model):
    """Everything that hooks or patches could leave behind."""
    return {
        name: (set(vars(module)), {k: str(v) for k, v in vars(module).items() if "hook" in k})
        for name, module in model.named_modules()
    }


def test_detach_restores_the_model(any_model):
    inputs = inputs_for(any_model, [ONE, TWO])
    expected, tokens = logits(any_model, inputs), generate(any_model, inputs)
    before = snapshot(any_model)
    pruner = attach(any_model, keep=0.25)
    assert snapshot(any_model) != before
    assert logits(any_model, inputs).shape != expected.shape
    pruner.detach()
    pruner.detach()
    assert snapshot(any_model) == before
    assert torch.equal(logits(any_model, inputs), expected)
    assert torch.equal(generate(any_model, inputs), tokens)


def test_detach_after_an_exception(any_model):
    before = snapshot(any_model)
    inputs = inputs_for(any_model, [ONE])
    broken = {**inputs, "pixel_values": inputs["pixel_values"][..., :-1]}
    with pytest.raises(ZeroDivisionError), attach(any_model, keep=0.25):
        raise ZeroDivisionError
    assert snapshot(any_model) == before
    with attach(any_model, keep=0.25):
        expected = logits(any_model, inputs)
        with pytest.raises(Exception):  # noqa: B017 - whatever the model says to broken pixels
            logits(any_model, broken)
        assert torch.equal(logits(any_model, inputs), expected)
    assert snapshot(any_model) == before


def test_attaching_twice(any_model):
    with attach(any_model, keep=0.25):
        with pytest.raises(RuntimeError, match="already has a pruner"):
            attach(any_model, keep=0.5)
        with pytest.raises(RuntimeError, match="already has a pruner"):
            attach(any_model.model, keep=0.5)  # a part of it
    attach(any_model, keep=0.5).detach()


def test_attaching_the_model_without_its_head(any_model):
    inputs = inputs_for(any_model, [ONE])
    with attach(any_model, keep=0.25), torch.no_grad():
        expected = any_model.model(**inputs).last_hidden_state
    with attach(any_model.model, keep=0.25), torch.no_grad():
        assert torch.equal(any_model.model(**inputs).last_hidden_state, expected)


def test_a_prompt_without_images_is_untouched(any_model):
    inputs = inputs_for(any_model, [NONE, Prompt([7, 8])])
    expected, tokens = logits(any_model, inputs), generate(any_model, inputs)
    with attach(any_model, keep=0.25) as pruner:
        assert torch.equal(logits(any_model, inputs), expected)
        assert torch.equal(generate(any_model, inputs), tokens)
    assert [r.reason for r in pruner.report] == ["no image in the prompt"] * 2
    assert "no image in the prompt" in str(pruner.report)


@pytest.mark.parametrize("keep", [0, 0.0, 1.5, -1, -0.5, float("nan"), float("inf")])
def test_keep_out_of_range(any_model, keep):
    with pytest.raises(ValueError, match="keep"):
        attach(any_model, keep=keep)


@pytest.mark.parametrize("keep", [True, None, "0.25", torch.tensor(0.25), [0.25]])
def test_keep_of_a_wrong_type(any_model, keep):
    with pytest.raises(TypeError, match="keep"):
        attach(any_model, keep=keep)


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (ValueError, "positions", {"positions": "new"}),
        (ValueError, "budget", {"budget": "shared"}),
        (ValueError, "min_tokens", {"min_tokens": -1}),
        (TypeError, "min_tokens", {"min_tokens": 1.5}),
        (ValueError, "temperature", {"temperature": 0.0}),
        (ValueError, "redundancy", {"redundancy": -1.0}),
        (ValueError, "estimator", {"estimator": "guess"}),
        (ValueError, "tokenizer", {"query": "what colour?"}),
        (TypeError, "tokenizer", {"tokenizer": 3}),
        (ValueError, "empty", {"query": []}),
        (ValueError, "96", {"query": [96]}),
        (TypeError, "query", {"query": [1.5]}),
        (TypeError, "query", {"query": 7}),
    ],
)
def test_bad_arguments(any_model, error, match, arguments):
    before = snapshot(any_model)
    with pytest.raises(error, match=match):
        attach(any_model, keep=0.25, **arguments)
    assert snapshot(any_model) == before


def test_training_is_refused(any_model):
    inputs = inputs_for(any_model, [ONE])
    with attach(any_model, keep=0.25):
        any_model.train()
        try:
            with pytest.raises(RuntimeError, match="training"):
                any_model(**inputs)
        finally:
            any_model.eval()
        with pytest.raises(ValueError, match="labels"):
            any_model(**inputs, labels=inputs["input_ids"])


def test_labels_that_ask_for_nothing_hide_no_other_argument(any_model):
    inputs = inputs_for(any_model, [ONE])
    nothing = torch.full_like(inputs["input_ids"], -100)
    with attach(any_model, keep=0.25):
        logits(any_model, {**inputs, "labels": nothing})
        with pytest.raises(ValueError, match="logits_to_keep: got a tensor"):
            any_model(**inputs, labels=nothing, logits_to_keep=torch.tensor([0]))


def test_an_empty_question(any_model):
    inputs = inputs_for(any_model, [Prompt([SQUARE])])
    with attach(any_model, keep=0.25), pytest.raises(ValueError, match="question is empty"):
        logits(any_model, inputs)
    with attach(any_model, keep=0.25, query=[40, 41]) as pruner:
        logits(any_model, inputs)
    assert pruner.report[0].query == [40, 41]


def test_embeddings_without_ids_are_refused(any_model):
    inputs = inputs_for(any_model, [ONE])
    embeddings = any_model.get_input_embeddings()(inputs.pop("input_ids"))
    inputs.pop("mm_token_type_ids", None)
    with attach(any_model, keep=0.25), pytest.raises(ValueError, match="inputs_embeds"):
        logits(any_model, {**inputs, "inputs_embeds": embeddings})


def test_placeholders_without_pixels_are_refused(any_model):
    inputs = {k: v for k, v in inputs_for(any_model, [ONE]).items() if "pixel" not in k}
    inputs.pop("image_grid_thw", None)
    said = "16 image placeholders and no pixels"
    with attach(any_model, keep=0.25), pytest.raises(ValueError, match=said):
        logits(any_model, inputs)


def test_query_changes_what_is_kept_and_is_reported(any_model):
    inputs = inputs_for(any_model, [ONE])
    for query, expected in (("question", [20, 21, 30, 31, 32, 33]), ([70, 71, 72], [70, 71, 72])):
        kept = tiny_oracle.kept_columns(any_model, inputs, [[16]], 0.25, query=expected)
        with attach(any_model, keep=0.25, query=query) as pruner:
            logits(any_model, inputs)
        (report,) = pruner.report
        columns = (inputs["input_ids"][0] == IMAGE).nonzero()[:, 0]
        assert report.query == expected
        assert set(columns[report.indices].tolist()) == set(kept[0]) & set(columns.tolist())
    with attach(any_model, keep=0.25, query="all") as pruner:
        logits(any_model, inputs)
    assert pruner.report[0].query == [i for i in inputs["input_ids"][0].tolist() if i != IMAGE]


def test_counts_and_mass(any_model):
    inputs = inputs_for(any_model, [TWO])
    with attach(any_model, keep=5) as pruner:
        logits(any_model, inputs)
        assert [r.tokens_after for r in pruner.report] == [5, 5]
    with attach(any_model, keep=5, budget="pooled") as pruner:
        logits(any_model, inputs)
        assert pruner.report.tokens_after == 5
    with attach(any_model, keep=100) as pruner:
        assert logits(any_model, inputs).shape[1] == inputs["input_ids"].shape[1]
        assert all(r.reason.startswith("kept all") for r in pruner.report)
    with attach(any_model, keep=Mass(0.5)) as pruner:
        logits(any_model, inputs)
        for r in pruner.report:
            gains = r.scores.clamp_min(0)
            assert gains[r.indices].sum() >= 0.5 * gains.sum() * (1 - 1e-6)
            assert gains[r.indices].sum() - gains[r.indices].min() < 0.5 * gains.sum()
            assert 1 <= r.tokens_after < 16


def test_min_tokens(any_model):
    inputs = inputs_for(any_model, [ONE])
    with attach(any_model, keep=0.25, min_tokens=16) as pruner:
        logits(any_model, inputs)
        assert pruner.report[0].reason == "kept all: 16 tokens <= min_tokens = 16"
    with attach(any_model, keep=0.25, min_tokens=15) as pruner:
        logits(any_model, inputs)
        assert pruner.report[0].tokens_after == 4


def test_scores_are_those_of_select(any_model):
    inputs = inputs_for(any_model, [ONE])
    with attach(any_model, keep=0.25) as pruner:
        logits(any_model, inputs)
    with torch.no_grad():
        visual = tiny_oracle.merged_embeddings(any_model, inputs)[inputs["input_ids"] == IMAGE]
        words = any_model.get_input_embeddings().weight[[20, 21, 30, 31, 32, 33]]
        selection = mi_pruner_cuda.select(visual, words, 0.25)
    assert torch.equal(pruner.report[0].indices, selection.indices)
    assert torch.equal(pruner.report[0].scores, selection.scores)
    assert pruner.report[0].seconds > 0


def every_other(visual, text, keep):
    """A selector that ignores the question."""
    indices = torch.arange(0, visual.shape[0], 2)
    return Selection(indices, torch.zeros(visual.shape[0]), len(indices), "every other row")


def test_a_selector_replaces_the_method(any_model):
    inputs = inputs_for(any_model, [ONE])
    with attach(any_model, keep=0.5, selector=every_other) as pruner:
        generate(any_model, inputs)
        (entry,) = pruner.report
    assert entry.indices.tolist() == list(range(0, entry.tokens_before, 2))
    assert "every other row" in entry.reason


@pytest.mark.parametrize(
    "indices", [[], [1, 0], [0, 0], [-1, 2], [10**6]], ids=["none", "order", "twice", "low", "high"]
)
def test_a_selector_that_breaks_the_rules(any_model, indices):
    def selector(visual, text, keep):
        chosen = torch.tensor(indices, dtype=torch.int64)
        return Selection(chosen, torch.zeros(visual.shape[0]), len(indices), "broken")

    inputs = inputs_for(any_model, [ONE])
    with (
        attach(any_model, keep=0.5, selector=selector),
        pytest.raises(ValueError, match="selector: it returned indices"),
    ):
        logits(any_model, inputs)


def test_a_selector_of_a_wrong_type(any_model):
    with pytest.raises(TypeError, match="selector: got int"):
        attach(any_model, keep=0.5, selector=3)
    with (
        attach(any_model, keep=0.5, selector=lambda *_: [0, 1]),
        pytest.raises(TypeError, match="selector: it returned list"),
    ):
        logits(any_model, inputs_for(any_model, [ONE]))


def continue_by_hand(model, inputs, tokens, keep):
    """Logits of both turns in one pruned forward; the question is the first turn's."""
    whole = dict(inputs)
    whole["input_ids"] = torch.cat([inputs["input_ids"], tokens], 1)
    whole["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(tokens)], 1)
    if "mm_token_type_ids" in inputs:
        zeros = torch.zeros_like(tokens, dtype=torch.int)
        whole["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], zeros], 1)
    query = tiny_oracle.question(inputs["input_ids"][0])
    with attach(model, keep=keep, query=query):
        return logits(model, whole, use_cache=False)


def test_second_turn_on_a_pruned_cache(any_model):
    """A manual continuation, with a mask or without, equals one forward over both turns."""
    inputs = inputs_for(any_model, [ONE])
    more = torch.tensor([[44, 45, 46, 47]])
    expected = continue_by_hand(any_model, inputs, more, 0.25)
    for positions in ("original", "renumbered"):
        for mask in (None, torch.ones(1, inputs["input_ids"].shape[1] + 4, dtype=torch.long)):
            with attach(any_model, keep=0.25, positions=positions), torch.no_grad():
                cache = any_model(**inputs, use_cache=True).past_key_values
                if mask is not None and any_model.config.model_type == "qwen2_5_vl":
                    continue  # transformers itself cannot: it reads the mask as the new tokens'
                second = any_model(
                    input_ids=more, attention_mask=mask, past_key_values=copy.deepcopy(cache)
                ).logits
            if positions == "original":
                torch.testing.assert_close(second, expected[:, -4:], rtol=0, atol=1e-5)
            else:
                assert second.isfinite().all()


@pytest.mark.parametrize("prompts", [[ONE], [ONE, TWO, NONE]], ids=["one", "batch"])
@pytest.mark.parametrize("positions", ["original", "renumbered"])
def test_second_generate_on_a_pruned_cache(any_model, prompts, positions):
    """generate cuts the prompt by the cache's length, which pruning made shorter."""
    inputs = inputs_for(any_model, prompts)
    query = list(range(60, 66))  # the same in both runs
    batch = len(prompts)
    with attach(any_model, keep=0.25, positions=positions, query=query):
        options = {"max_new_tokens": 3, "return_dict_in_generate": True, "do_sample": False}
        first = any_model.generate(**inputs, **options)
        turn = torch.tensor([[44, 45, 46]]).expand(batch, -1)
        ids = torch.cat([first.sequences, turn], 1)
        more = ids.shape[1] - inputs["input_ids"].shape[1]
        mask = torch.cat([inputs["attention_mask"], torch.ones(batch, more).long()], 1)
        whole = {**inputs, "input_ids": ids, "attention_mask": mask}
        if "mm_token_type_ids" in inputs:
            whole["mm_token_type_ids"] = (ids == IMAGE).int()
        expected = generate(any_model, whole)
        cached = {
            "input_ids": ids,
            "attention_mask": mask,
            "past_key_values": first.past_key_values,
        }
        assert torch.equal(generate(any_model, cached), expected)


def test_a_generated_placeholder_is_text(any_model):
    inputs = inputs_for(any_model, [ONE])
    with attach(any_model, keep=0.25) as pruner, torch.no_grad():
        cache = any_model(**inputs, use_cache=True).past_key_values
        before = str(pruner.report)
        more = any_model(input_ids=torch.tensor([[IMAGE]]), past_key_values=cache).logits
        assert more.shape[1] == 1 and more.isfinite().all()
        assert str(pruner.report) == before


def test_positions_that_do_not_follow_the_cache_are_refused(any_model):
    inputs = inputs_for(any_model, [ONE])
    more = torch.tensor([[44, 45]])
    with attach(any_model, keep=0.25), torch.no_grad():
        cache = any_model(**inputs, use_cache=True).past_key_values
        with pytest.raises(ValueError, match="position_ids"):
            any_model(input_ids=more, position_ids=torch.tensor([[3, 4]]), past_key_values=cache)
        with pytest.raises(ValueError, match="attention_mask"):
            mask = torch.ones(1, 5, dtype=torch.long)
            any_model(input_ids=more, attention_mask=mask, past_key_values=cache)
        with pytest.raises(ValueError, match="batch of 1"):
            any_model(input_ids=more.expand(2, -1), past_key_values=cache)


def test_chunked_prefill_is_refused(any_model):
    inputs = inputs_for(any_model, [ONE])
    for size in (8, 64):
        with attach(any_model, keep=0.25), pytest.raises(ValueError, match="prefill_chunk_size"):
            generate(any_model, inputs, prefill_chunk_size=size)


@given(data=st.data())
def test_kept_columns_by_hand(data):
    batch, length = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    flags = st.lists(st.booleans(), min_size=length, max_size=length)
    keep = torch.tensor([data.draw(flags) for _ in range(batch)])
    real = torch.tensor([data.draw(flags) for _ in range(batch)])
    columns = kept_columns(keep, real)
    expected = []
    for k, r in zip(keep.tolist(), real.tolist(), strict=True):
        first = r.index(True) if True in r else length
        expected.append([c for c in range(first, length) if k[c]])
    width = max(map(len, expected))
    assert columns.index.shape == (batch, width)
    marks = torch.arange(batch * length).view(batch, length)
    for b, row in enumerate(expected):
        assert columns.kept[b].tolist() == [False] * (width - len(row)) + [True] * len(row)
        assert columns.index[b][columns.kept[b]].tolist() == row
        got = columns.values(marks)[b][columns.kept[b]]
        assert got.tolist() == [b * length + c for c in row]
        planes = columns.values(torch.stack([marks, -marks]))[:, b, columns.kept[b]]
        assert torch.equal(planes, torch.stack([got, -got]))
        rows = columns.rows(marks[..., None].expand(-1, -1, 3).float())[b, columns.kept[b]]
        assert torch.equal(rows, got[:, None].expand(-1, 3).float())


def test_renumber_closes_gaps():
    kept = torch.tensor([[False, True, True, True, True]])
    line = torch.tensor([[9, 2, 5, 6, 11]])
    assert renumber(line, kept).tolist() == [[0, 2, 3, 4, 5]]
    # Text at 1, image rows 2 and 4 and columns 2 and 3 of a grid, text at 9.
    grid = torch.tensor([[[0, 1, 2, 2, 9]], [[0, 1, 2, 4, 9]], [[0, 1, 2, 3, 9]]])
    expected = [[[0, 1, 2, 2, 5]], [[0, 1, 2, 4, 5]], [[0, 1, 2, 3, 5]]]
    assert renumber(grid, kept).tolist() == expected


def test_dropped_rows_with_nan_do_not_spread(any_model):
    """A padded column must not be filled from a dropped row: 0 * NaN is NaN."""
    inputs = inputs_for(any_model, [ONE, TWO])
    with attach(any_model, keep=0.25):
        expected = logits(any_model, inputs)

    def spoil(module, args, kwargs):
        kwargs["inputs_embeds"] = kwargs["inputs_embeds"].clone()
        columns = (inputs["input_ids"][0] == IMAGE).nonzero()[:, 0]
        kwargs["inputs_embeds"][0, columns[8:]] = torch.nan
        return args, kwargs

    handle = any_model.model.language_model.register_forward_pre_hook(spoil, with_kwargs=True)
    try:
        with attach(any_model, keep=0.25) as pruner:
            got = logits(any_model, inputs)
    finally:
        handle.remove()
    assert got.isfinite().all() and got.shape == expected.shape
    assert (pruner.report[0].indices < 8).all()
    torch.testing.assert_close(got[1], expected[1])


def test_pad_id_is_not_a_question(any_model):
    """Without a mask, padding ids are still left out of the question."""
    inputs = inputs_for(any_model, [ONE, Prompt([20, SQUARE, 31])])
    assert (inputs["input_ids"] == PAD).any()
    inputs["attention_mask"] = None
    with attach(any_model, keep=0.25) as pruner:
        logits(any_model, inputs)
    assert [r.query for r in pruner.report] == [[20, 21, 30, 31, 32, 33], [20, 31]]


def test_masked_words_are_not_a_question(any_model):
    """Padding is what the mask says, whatever its id."""
    inputs = inputs_for(any_model, [ONE, Prompt([20, SQUARE, 31])])
    inputs["input_ids"][inputs["attention_mask"] == 0] = 77
    with attach(any_model, keep=0.25) as pruner:
        logits(any_model, inputs)
    assert [r.query for r in pruner.report] == [[20, 21, 30, 31, 32, 33], [20, 31]]
