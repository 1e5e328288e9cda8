"""attach on LLaVA (1-D positions), models that it refuses, and which tokens are the question."""

import numpy as np
import pytest
import tiny_oracle
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_models import (
    CHATML_TEMPLATE,
    HIDDEN,
    IMAGE,
    LLAVA_TEMPLATE,
    PLAIN_TEMPLATE,
    SQUARE,
    Prompt,
    byte_tokenizer,
    inputs_for,
    llava,
    word_tokenizer,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mi_pruner_cuda import attach
from mi_pruner_cuda.huggingface.call import Call
from mi_pruner_cuda.huggingface.layout import Scene
from mi_pruner_cuda.huggingface.template import learn_template

torch.set_num_threads(1)

TOKENIZERS = {"words": word_tokenizer, "bytes": byte_tokenizer}


@pytest.fixture(scope="module")
def model():
    return llava()


@torch.no_grad()
def logits(model, inputs, **options):
    return model(**inputs, **options).logits


def test_original_positions_have_gaps_and_renumbered_have_none(model):
    """Against hand-gathered rows; padded rows start where their text does."""
    prompts = [Prompt([20, SQUARE, 30, 31]), Prompt([22, 23, SQUARE, 40, SQUARE, 42])]
    inputs = inputs_for(model, prompts)
    kept = tiny_oracle.kept_columns(model, inputs, [[16], [16, 16]], 0.25)
    for positions in ("original", "renumbered"):
        with attach(model, keep=0.25, positions=positions):
            got = logits(model, inputs)
        for b, row in enumerate(kept):
            own = torch.tensor([row])
            if positions == "renumbered":
                own = (torch.arange(len(row)) + row[0])[None]
            everywhere = torch.zeros(2, inputs["input_ids"].shape[1], dtype=torch.long)
            everywhere[b, row] = own
            with torch.no_grad():
                expected = tiny_oracle.pruned_logits(model, inputs, kept, everywhere)[b]
            torch.testing.assert_close(got[b, -len(row) :], expected, rtol=0, atol=1e-5)


def test_generation_counts_on_from_the_right_position(model):
    """What the language model is given, step by step."""
    inputs = inputs_for(model, [Prompt([20, SQUARE, 30, 31])])
    length = inputs["input_ids"].shape[1]
    seen = []

    def spy(module, args, kwargs):
        seen.append((kwargs["position_ids"][0].tolist(), kwargs["inputs_embeds"].shape[1]))

    for positions, start in (("original", length), ("renumbered", 8)):
        seen.clear()
        with attach(model, keep=0.25, positions=positions) as pruner:
            handle = model.model.language_model.register_forward_pre_hook(spy, with_kwargs=True)
            try:
                model.generate(**inputs, max_new_tokens=4, do_sample=False)
            finally:
                handle.remove()
        kept = [0, 1, *(2 + pruner.report[0].indices).tolist(), length - 2, length - 1]
        expected = kept if positions == "original" else list(range(8))
        assert seen == [(expected, 8), *[([start + i], 1) for i in range(3)]]


def test_pooled_images_compete(model):
    """One image may take the whole pool, and each image's indices are its own."""
    inputs = inputs_for(model, [Prompt([20, SQUARE, 30, SQUARE, 31])])
    kept = tiny_oracle.kept_columns(model, inputs, [[16, 16]], 0.1, pooled=True)
    with attach(model, keep=0.1, budget="pooled") as pruner:
        logits(model, inputs)
    columns = tiny_oracle.image_columns(inputs["input_ids"][0], [16, 16])
    for report, own in zip(pruner.report, columns, strict=True):
        assert [own[i] for i in report.indices] == [c for c in kept[0] if c in own]
        assert report.scores.shape == (16,)
    assert pruner.report.tokens_after == 3  # floor(0.1 * 32 + 0.5)
    assert pruner.report.tokens_before == 32


def test_a_custom_mask_is_refused(model):
    inputs = inputs_for(model, [Prompt([20, SQUARE, 30])])
    length = inputs["input_ids"].shape[1]
    inputs["attention_mask"] = torch.ones(1, 1, length, length).tril().bool()
    with attach(model, keep=0.25), pytest.raises(ValueError, match="attention_mask"):
        logits(model, inputs)
    inputs = inputs_for(
        model, [Prompt([20, 30])]
    )  # without images nothing is touched, nor looked at
    inputs["attention_mask"] = torch.ones(1, 1, 3, 3).tril().bool()
    expected = logits(model, inputs)
    with attach(model, keep=0.25):
        assert torch.equal(logits(model, inputs), expected)


def test_gaps_that_flash_attention_would_misread_are_refused(model, monkeypatch):
    """Only the check: FlashAttention itself needs a GPU."""

    class Reached(Exception):
        pass

    def stop(module, args, kwargs):
        raise Reached

    inputs = inputs_for(model, [Prompt([SQUARE, 30])])
    inputs = {**inputs, "input_ids": inputs["input_ids"][:, 1:], "attention_mask": None}
    monkeypatch.setattr(
        model.model.language_model.config, "_attn_implementation", "flash_attention_2"
    )
    for positions, outcome in (("original", ValueError), ("renumbered", Reached)):
        with attach(model, keep=1, positions=positions) as pruner:
            handle = model.model.language_model.register_forward_pre_hook(stop, with_kwargs=True)
            try:
                with pytest.raises(outcome):
                    logits(model, inputs)
            finally:
                handle.remove()
        assert pruner.report[0].indices.tolist() != [0]  # else there was nothing to refuse


def test_an_unknown_column_argument_is_refused(model):
    inputs = inputs_for(model, [Prompt([20, SQUARE, 30])])
    with attach(model, keep=0.25), pytest.raises(ValueError, match=r"extra_types.*missing"):
        logits(model, inputs, extra_types=torch.zeros_like(inputs["input_ids"]))


def test_counts_from_what_the_call_holds(model):
    def counts(**inputs):
        scene = Scene(Call(None, inputs), model.config, model.model, torch.zeros(0), None)
        return scene.counts("image", 32)

    pixels = torch.zeros(2, 3, 16, 16)
    assert counts(pixel_values=pixels) == [16, 16]
    assert counts(pixel_values=torch.zeros(3, 3, 16, 16)) is None  # 32 placeholders, 3 images
    assert counts(pixel_values_videos=pixels) is None
    features = BaseModelOutputWithPooling(pooler_output=[torch.zeros(16, 4), torch.zeros(9, 4)])
    assert counts(mm_encoder_outputs={"image": features}) == [16, 9]
    stacked = BaseModelOutputWithPooling(pooler_output=torch.zeros(2, 16, 4))
    assert counts(mm_encoder_outputs={"image": stacked}) == [16, 16]
    assert counts() is None


def test_models_that_cannot_be_pruned():
    text = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            vocab_size=32,
        )
    )  # fmt: skip
    with pytest.raises(TypeError, match=r"LlamaForCausalLM.*no vision_config"):
        attach(text, keep=0.25)
    for nothing in (None, torch.nn.Linear(2, 2), "llava-hf/llava-1.5-7b-hf"):
        with pytest.raises(TypeError, match="model"):
            attach(nothing, keep=0.25)
    headless = llava()
    headless.model.language_model = None
    with pytest.raises(ValueError, match=r"missing.*model\.language_model"):
        attach(headless, keep=0.25)
    nameless = llava()
    nameless.config.image_token_id = None
    with pytest.raises(ValueError, match=r"missing is config\.image_token_id"):
        attach(nameless, keep=0.25)


def conversation(words: list[str], image: bool) -> list[dict]:
    messages = []
    for i, text in enumerate(words):
        content = [{"type": "text", "text": text}]
        if image and i == 0:
            content.insert(0, {"type": "image"})
        messages.append({"role": "assistant" if i % 2 else "user", "content": content})
    return messages


def outside_template(tokenizer, text: str) -> list[int]:
    """The question's ids in a rendered prompt, as Query finds them."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    special = set(tokenizer.all_special_ids)
    template = learn_template(tokenizer, tokenizer, special)
    found, segment = [], []
    for token in (*ids, None):
        if token is not None and token not in special:
            segment.append(token)
            continue
        flags = template.strip(segment)
        found += [t for t, own in zip(segment, flags, strict=True) if own]
        segment = []
    return found


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("template", [LLAVA_TEMPLATE, CHATML_TEMPLATE], ids=["llava", "chatml"])
@pytest.mark.parametrize("image", [True, False])
def test_only_the_users_words_are_the_question(kind, template, image):
    tokenizer = TOKENIZERS[kind](template)
    for question in ("what colour is the 7?", "is it red?", "what is a user"):
        prompt = tokenizer.apply_chat_template(
            conversation([question], image), tokenize=False, add_generation_prompt=True
        )
        found = outside_template(tokenizer, prompt)
        assert (
            tokenizer.decode(found).split()
            == tokenizer.decode(tokenizer(question, add_special_tokens=False)["input_ids"]).split()
        ), prompt
    empty = tokenizer.apply_chat_template(
        conversation([""], image), tokenize=False, add_generation_prompt=True
    )
    assert outside_template(tokenizer, empty) == []


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("template", [LLAVA_TEMPLATE, CHATML_TEMPLATE], ids=["llava", "chatml"])
def test_earlier_turns_count_but_not_their_frame(kind, template):
    tokenizer = TOKENIZERS[kind](template)
    prompt = tokenizer.apply_chat_template(
        conversation(["what colour is the 7?", "it is red", "which digit is green?"], True),
        tokenize=False,
        add_generation_prompt=True,
    )
    found = tokenizer.decode(outside_template(tokenizer, prompt))
    assert "".join(found.split()) == "whatcolouristhe7?itisredwhichdigitisgreen?"


def test_a_template_for_plain_text():
    tokenizer = word_tokenizer(PLAIN_TEMPLATE)
    prompt = "[user] what colour is it? [assistant]"
    found = tokenizer.decode(outside_template(tokenizer, prompt))
    assert found.split() == ["what", "colour", "is", "it", "?"]


@settings(deadline=None)
@given(st.text(alphabet="abc 7?\n.:é", max_size=20), st.booleans())
def test_a_question_of_any_characters(question, image):
    """Whatever is asked, nothing of the frame remains, and at most the edges of the question go."""
    tokenizer = _bytes_chatml()
    prompt = tokenizer.apply_chat_template(
        conversation([question], image), tokenize=False, add_generation_prompt=True
    )
    found = tokenizer.decode(outside_template(tokenizer, prompt))
    assert found.strip() in question or question.strip() in found
    assert "assistant" not in found and "helpful" not in found


_CACHE = {}


def _bytes_chatml():
    return _CACHE.setdefault("chatml", byte_tokenizer(CHATML_TEMPLATE))


def test_a_broken_template_is_reported_not_raised(model):
    tokenizer = word_tokenizer("{{ raise_exception('never') }}")
    with attach(model, keep=0.25, tokenizer=tokenizer) as pruner:
        logits(model, inputs_for(model, [Prompt([20, SQUARE, 30])]))
    assert pruner.report[0].query == [20, 30]
    assert "no usable chat template" in pruner.report[0].query_source


def prompt_inputs(model, tokenizer, question: str) -> dict:
    """A question in the LLaVA template with one image, expanded as the processor does."""
    text = tokenizer.apply_chat_template(
        conversation([question], True), tokenize=False, add_generation_prompt=True
    ).replace("<image>", "<image>" * 16)
    ids = torch.tensor([tokenizer("<s>" + text, add_special_tokens=False)["input_ids"]])
    assert int((ids == IMAGE).sum()) == 16
    pixels = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


def test_the_tokenizer_end_to_end(model):
    tokenizer = word_tokenizer(LLAVA_TEMPLATE)
    inputs = prompt_inputs(model, tokenizer, "what colour is the 7?")
    words = tokenizer("what colour is the 7?", add_special_tokens=False)["input_ids"]
    assert max(words) < 96 and HIDDEN
    kept = tiny_oracle.kept_columns(model, inputs, [[16]], 0.25, query=words)
    with attach(model, keep=0.25, tokenizer=tokenizer) as pruner:
        got = logits(model, inputs)
    assert pruner.report[0].query == words
    assert pruner.report[0].query_source == "prompt without special and template tokens"
    with torch.no_grad():
        expected = tiny_oracle.pruned_logits(model, inputs, kept)[0]
    torch.testing.assert_close(got[0], expected, rtol=0, atol=1e-5)
    with attach(model, keep=0.25, tokenizer=tokenizer, query="which digit is green?") as pruner:
        logits(model, inputs)
    assert tokenizer.decode(pruner.report[0].query) == "which digit is green ?"
    with pytest.raises(ValueError, match="question is empty"):
        attach(model, keep=0.25, tokenizer=tokenizer, query="")
    empty = prompt_inputs(model, tokenizer, "")
    with attach(model, keep=0.25, tokenizer=tokenizer), pytest.raises(ValueError, match="is empty"):
        logits(model, empty)


def test_the_tokenizers_special_tokens_are_no_question(model):
    """Ids 5 and 6 are special to the tokenizer only; without it they are words."""
    inputs = inputs_for(model, [Prompt([5, 20, SQUARE, 6, 30])])
    for tokenizer, expected in ((None, [5, 20, 6, 30]), (word_tokenizer(None), [20, 30])):
        with attach(model, keep=0.25, tokenizer=tokenizer) as pruner:
            logits(model, inputs)
        assert pruner.report[0].query == expected


def test_a_processor_from_pixels_to_tokens(model):
    """The user's whole path: processor, chat template, generate, report."""
    processor = transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
        tokenizer=word_tokenizer(LLAVA_TEMPLATE),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )
    text = processor.apply_chat_template(
        conversation(["is it red?"], True), add_generation_prompt=True
    )
    picture = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    inputs = processor(images=Image.fromarray(picture), text=text, return_tensors="pt")
    with attach(model, keep=0.25, tokenizer=processor) as pruner:
        tokens = model.generate(**inputs, max_new_tokens=2)
    assert tokens.shape[1] == inputs["input_ids"].shape[1] + 2
    assert processor.decode(pruner.report[0].query) == "is it red ?"
    assert (pruner.report[0].grid, pruner.report[0].tokens_after) == (SQUARE, 4)


def test_one_question_token_is_said(model):
    inputs = inputs_for(model, [Prompt([SQUARE, 30])])
    with attach(model, keep=0.25) as pruner:
        logits(model, inputs)
    assert pruner.report[0].reason == "pruned; one text token: scored by pointwise information"


def test_the_report_reads_well(model):
    inputs = inputs_for(model, [Prompt([20, SQUARE, 30]), Prompt([20, 21])])
    with attach(model, keep=0.25) as pruner:
        assert str(pruner.report) == "no prefill yet"
        logits(model, inputs)
    first, second = str(pruner.report).splitlines()
    assert first.startswith("item 0, image 0: 16 (4 x 4) -> 4 tokens in ")
    assert "pruned, query: 2 tokens" in first
    assert second == "item 1: no image in the prompt"
