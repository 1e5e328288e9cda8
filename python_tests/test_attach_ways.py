"""attach in the ways that models are run: later turns, padding on either side, half precision,
compiled, offloaded, spread over processes, with an assistant; and selection without text.
"""

import os
import subprocess
import sys
from pathlib import Path

import accelerate
import pytest
import tensor_parallel_worker
import tiny_models
import torch
import transformers
from class_oracle import QUERY, kept_columns, pruned_logits
from tiny_models import SQUARE, Prompt, inputs_for
from zoo import FAMILIES, language_model_call

import mi_pruner_cuda
from mi_pruner_cuda import Mass, attach

torch.set_num_threads(1)
HERE = Path(__file__).resolve().parent
_BUILT = {}


@pytest.fixture(params=list(FAMILIES))
def one(request):
    name = request.param
    return FAMILIES[name], _BUILT.setdefault(name, FAMILIES[name].build())


@torch.no_grad()
def logits(model, inputs, **options):
    return model(**inputs, **options).logits


def generate(model, inputs, **options):
    options = {"do_sample": False, "max_new_tokens": 5, **options}
    return model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]


def prompts_of(family) -> list[list]:
    return [[30, family.picture(0), 31, 32], [33, family.picture(1), 34]]


# ---- conversations ----


def turn_inputs(family, model, first: list, second: list) -> tuple[dict, dict, dict]:
    """Inputs of the whole conversation, of its first turn, and of what the second adds."""
    whole, begin = (family.inputs(model, [p]) for p in ([*first, *second], first))
    length = begin["input_ids"].shape[1]
    assert torch.equal(whole["input_ids"][:, :length], begin["input_ids"])
    more = {}
    for name, value in whole.items():
        if value.shape == whole["input_ids"].shape:
            if name != "attention_mask":
                more[name] = value[:, length:]
            continue
        # Pixels and what describes them: (images, ..), or (1, images, ..).
        axis = int(family.name in ("idefics3", "smolvlm"))
        count = begin[name].shape[axis]
        # The zoo draws pixels from all words of a prompt: both turns take those of the whole.
        begin[name] = value.narrow(axis, 0, count)
        if value.shape[axis] > count:
            more[name] = value.narrow(axis, count, value.shape[axis] - count)
    if "batch_num_images" in whole and "pixel_values" in more:
        more["batch_num_images"] = whole["batch_num_images"]  # one alone would be cut into tiles
    positions = language_model_call(model, whole).get("position_ids")
    if positions is not None and positions.dim() == 3:
        more["position_ids"] = positions[..., length:]
    return whole, begin, more


def two_turns(model, begin, more, mask=None):
    with torch.no_grad():
        cache = model(**begin, use_cache=True).cache
        return model(**more, cache=cache, attention_mask=mask).logits


# PaliGemma puts what begins a text behind its pictures: it has no second turn.
CHATS = [name for name in FAMILIES if not name.startswith("paligemma")]


# A later picture of Gemma 3: transformers' masks for it differ from those of one prompt.
TURNS = [(name, picture) for name in CHATS for picture in (False, True)]
TURNS.remove(("gemma3", True))


@pytest.mark.parametrize(("name", "picture"), TURNS)
def test_a_second_turn_on_a_pruned_cache(name, picture):
    """The pruned image stays pruned, a new one is pruned: as if both turns were one prompt."""
    family = FAMILIES[name]
    model = _BUILT.setdefault(name, family.build())
    a, b = family.picture(0), family.picture(1)
    # Two pictures to begin with: LLaVA-OneVision cuts one alone into tiles, and several not.
    second = [40, b, 41, 42] if picture else [40, 41, 42]
    whole, begin, more = turn_inputs(family, model, [30, a, 31, b, 32], second)
    assert ("pixel_values" in more) == picture
    unhooked = logits(model, whole, use_cache=False)[:, -3:]
    torch.testing.assert_close(two_turns(model, begin, more)[:, -3:], unhooked, rtol=0, atol=1e-4)
    with attach(model, keep=0.25, query=QUERY) as pruner:
        expected = logits(model, whole, use_cache=False)
        after = [r.tokens_after for r in pruner.report]
        got = two_turns(model, begin, more)
        assert [r.tokens_after for r in pruner.report] == (after[-1:] if picture else after)
    assert (got.shape[1] < more["input_ids"].shape[1]) == picture
    torch.testing.assert_close(got, expected[:, -got.shape[1] :], rtol=1e-5, atol=1e-5)


def test_a_second_generate_with_a_new_picture(tiny):
    """The user's own way: the whole conversation's ids, the new picture's pixels, the cache."""
    whole = inputs_for(tiny, [Prompt([20, SQUARE, 30, 31, 40, SQUARE, 41, 42])])
    first = {name: value[:, :20] for name, value in whole.items() if name != "pixel_values"}
    with attach(tiny, keep=0.25, query=[60, 61]) as pruner:
        begun = tiny.generate(
            **first, pixel_values=whole["pixel_values"][:1], max_new_tokens=2, do_sample=False,
            return_dict_in_generate=True,
        )  # fmt: skip
        ids = torch.cat([begun.sequences, whole["input_ids"][:, 20:]], 1)
        both = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        expected = generate(tiny, {**both, "pixel_values": whole["pixel_values"]})
        kept = [r.indices.tolist() for r in pruner.report]
        new = {**both, "pixel_values": whole["pixel_values"][1:]}
        assert torch.equal(generate(tiny, new, cache=begun.cache), expected)
        assert [r.indices.tolist() for r in pruner.report] == kept[1:]


def test_a_later_picture_of_gemma_3_is_the_models_own():
    """With all tokens kept it is bitwise what the class does; with fewer it is pruned too."""
    family = FAMILIES["gemma3"]
    model = family.build()
    a = family.picture(0)
    _, begin, more = turn_inputs(family, model, [30, a, 31], [40, a, 41])
    expected = two_turns(model, begin, more)
    with attach(model, keep=1.0, query=QUERY):
        assert torch.equal(two_turns(model, begin, more), expected)
    with attach(model, keep=0.25, query=QUERY) as pruner:
        got = two_turns(model, begin, more)
    dropped = pruner.report.tokens_before - pruner.report.tokens_after
    assert got.shape[1] == expected.shape[1] - dropped < expected.shape[1]
    assert got.isfinite().all()


def test_right_padding_equals_left_padding(one):
    """The same rows of logits, wherever the padding is."""
    family, model = one
    prompts = [[30, family.picture(0), 31, 32, 33, 34], [35, family.picture(0), 36]]
    left = family.inputs(model, prompts)
    right = dict(left)
    for name, value in left.items():
        if value.shape == left["input_ids"].shape:
            right[name] = torch.stack(
                [
                    row.roll(-int((mask == 0).sum()))
                    for row, mask in zip(value, left["attention_mask"], strict=True)
                ]
            )
    assert not right["attention_mask"].bool().all()
    with attach(model, keep=0.25, query=QUERY) as pruner:
        expected = logits(model, left)
        kept = [r.indices.tolist() for r in pruner.report]
        got = logits(model, right)
        assert [r.indices.tolist() for r in pruner.report] == kept
        alone = [logits(model, family.inputs(model, [p]))[0] for p in prompts]
    for row, moved, own in zip(expected, got, alone, strict=True):
        torch.testing.assert_close(row[-len(own) :], own, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(moved[: len(own)], own, rtol=1e-5, atol=1e-5)


# ---- precision ----


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(one, dtype):
    family = one[0]
    half = family.build().to(dtype)
    inputs = family.inputs(half, prompts_of(family))
    inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    expected = logits(half, inputs)
    assert expected.isfinite().all()  # else nothing is compared
    with attach(half, keep=1.0, query=QUERY):
        assert torch.equal(logits(half, inputs), expected)
    kept = kept_columns(half, inputs, family.visuals(prompts_of(family), inputs), 0.25)
    rows = pruned_logits(half, inputs, kept)
    with attach(half, keep=0.25, query=QUERY):
        got = logits(half, inputs)
        assert got.dtype == dtype
        generate(half, inputs)
    scale = max(float(row.abs().max()) for row in rows)
    for item, row in zip(got, rows, strict=True):
        torch.testing.assert_close(item[-len(row) :], row, rtol=0.05, atol=0.05 * scale)


# ---- compiled, offloaded, spread ----


@pytest.fixture
def tiny():
    return tiny_models.llava()


TWO = [Prompt([20, SQUARE, 30, 31]), Prompt([21, SQUARE, 32, SQUARE, 33])]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["attached before", "attached to it", "in place", "forward"])
def test_a_compiled_model(tiny, way):
    """Compiled code must notice that hooks came, and that they went."""
    inputs = inputs_for(tiny, TWO)
    whole = logits(tiny, inputs)
    with attach(tiny, keep=0.25):
        expected = logits(tiny, inputs)
        tokens = generate(tiny, inputs)
    run = tiny
    if way == "in place":
        tiny.compile(backend="eager")
    elif way == "forward":
        tiny.forward = torch.compile(tiny.forward, backend="eager")
    else:
        run = torch.compile(tiny, backend="eager")
    torch.testing.assert_close(logits(run, inputs), whole)
    with attach(run if way == "attached to it" else tiny, keep=0.25) as pruner:
        torch.testing.assert_close(logits(run, inputs), expected)
        assert pruner.report.tokens_after == 12
        if way == "in place":
            assert torch.equal(generate(tiny, inputs), tokens)
    torch.testing.assert_close(logits(run, inputs), whole)
    torch._dynamo.reset()


def test_generate_compiles_by_itself(tiny):
    """With a static cache it does so on a GPU; here it is told to."""
    inputs = inputs_for(tiny, TWO)
    config = transformers.CompileConfig(backend="eager", fullgraph=False)
    config._compile_all_devices = True
    static = {"cache_implementation": "static", "compile_config": config}
    whole = generate(tiny, inputs, **static)
    assert "_compiled_call" in vars(tiny)
    assert torch.equal(whole, generate(tiny, inputs))
    with attach(tiny, keep=0.25) as pruner:
        assert torch.equal(generate(tiny, inputs, **static), generate(tiny, inputs))
        assert pruner.report.tokens_after == 12
    assert torch.equal(generate(tiny, inputs, **static), whole)
    torch._dynamo.reset()


@pytest.mark.parametrize("how", ["auto", "offload"])
def test_accelerate(tiny, tmp_path, how):
    """device_map="auto", and weights that are only there while a module runs."""
    inputs = inputs_for(tiny, TWO)
    with attach(tiny, keep=0.25):
        expected, tokens = logits(tiny, inputs), generate(tiny, inputs)
    if how == "auto":
        tiny.save_pretrained(tmp_path)
        moved = transformers.AutoModelForImageTextToText.from_pretrained(
            tmp_path, device_map="auto"
        )
    else:
        moved = accelerate.cpu_offload(tiny, execution_device="cpu")
        assert moved.model.language_model.layers[0].mlp.up_proj.weight.device.type == "meta"
    with attach(moved, keep=0.25) as pruner:
        assert torch.equal(logits(moved, inputs), expected)
        assert torch.equal(generate(moved, inputs), tokens)
    assert pruner.report.tokens_after == 12


def test_two_tensor_parallel_ranks_keep_the_same_tokens(tmp_path):
    model = tiny_models.llava()
    model.save_pretrained(tmp_path / "model")
    expected = tensor_parallel_worker.answer(model)
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
            "--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0",
            str(HERE / "tensor_parallel_worker.py"), str(tmp_path / "model"), str(tmp_path / "out"),
        ],
        env={**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for rank in range(2):
        got = torch.load(tmp_path / f"out.{rank}.pt")
        assert got["spread"]
        assert got["kept"] == expected["kept"]
        assert torch.equal(got["ids"], expected["ids"])
        torch.testing.assert_close(got["logits"], expected["logits"], rtol=1e-4, atol=1e-4)


# ---- names of transformers' arguments ----


def test_masks_are_made_by_the_names_that_the_class_has(monkeypatch):
    """transformers 5.0 to 5.23 say past_key_values where later ones say cache."""
    family = FAMILIES["gemma3"]
    model = family.build()
    inputs = family.inputs(model, prompts_of(family))
    with attach(model, keep=0.25, query=QUERY):
        expected = logits(model, inputs)
    make, calls = type(model).create_masks_for_generate, []

    def older(config, inputs_embeds, attention_mask, past_key_values, position_ids, **types):
        calls.append(types)
        return make(config, inputs_embeds, attention_mask, past_key_values, position_ids, **types)

    monkeypatch.setattr(type(model), "create_masks_for_generate", staticmethod(older))
    with attach(model, keep=0.25, query=QUERY):
        assert torch.equal(logits(model, inputs), expected)
    assert calls


# ---- an assistant ----


def lengths_of_calls(model, call) -> list[int]:
    """How many tokens each forward within call() gets."""
    lengths = []

    def note(module, args, kwargs):
        lengths.append((args[0] if args else kwargs["input_ids"]).shape[1])

    handle = model.model.register_forward_pre_hook(note, with_kwargs=True)
    call()
    handle.remove()
    return lengths


@pytest.mark.parametrize("seed", [None, 5], ids=["the model itself", "another"])
@pytest.mark.parametrize("positions", ["original", "renumbered"])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "qwen3_vl", "gemma3", "llava_next"])
def test_assisted_decoding_is_greedy(name, positions, seed):
    """Guesses begin in the prefill. The model itself, unpruned, guesses right at times; another is
    wrong, and its guesses are taken back from the cache.
    """
    family = FAMILIES[name]
    model = family.build()
    assistant = family.build(seed=0 if seed is None else seed)
    assistant.generation_config.num_assistant_tokens = 3
    assistant.generation_config.num_assistant_tokens_schedule = "constant"
    assistant.generation_config.assistant_confidence_threshold = 0.0  # all three, sure or not
    calls = []
    for word in range(60, 64):
        inputs = family.inputs(model, [[30, family.picture(0), 31, word]])
        with attach(model, keep=0.9, positions=positions) as pruner:
            expected = generate(model, inputs, max_new_tokens=8)
            asked = pruner.report[0].query

            def guess(inputs=inputs, expected=expected):
                got = generate(model, inputs, max_new_tokens=8, assistant_model=assistant)
                assert torch.equal(got, expected)

            calls.append(lengths_of_calls(model, guess))
            assert pruner.report[0].query == asked
        assert calls[-1][0] > inputs["input_ids"].shape[1]  # the first came with the prompt
        assert calls[-1][1] > 1  # and so it goes on
    if seed is None:
        assert min(map(len, calls)) < 8  # fewer calls than tokens: guesses came true


def test_a_turn_after_assisted_decoding(tiny):
    """The cache still knows how many tokens it stands for."""
    inputs = inputs_for(tiny, TWO[:1])
    assistant = tiny_models.llava(seed=5)
    assistant.generation_config.assistant_confidence_threshold = 0.0
    options = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True}
    with attach(tiny, keep=0.25, query=[60, 61]):
        begun = tiny.generate(**inputs, **options, assistant_model=assistant)
        ids = torch.cat([begun.sequences, torch.tensor([[*range(40, 70)]])], 1)
        later = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        expected = generate(tiny, {**later, "pixel_values": inputs["pixel_values"]})
        assert torch.equal(generate(tiny, later, cache=begun.cache), expected)


def test_a_cache_cropped_into_the_prompt_is_refused(tiny):
    inputs = inputs_for(tiny, TWO[:1])
    with attach(tiny, keep=0.25), torch.no_grad():
        cache = tiny(**inputs, use_cache=True, logits_to_keep=3).cache
        cache.crop(-1)
        with pytest.raises(ValueError, match="cropped to 7 columns, into the pruned prompt"):
            tiny(input_ids=torch.tensor([[40]]), cache=cache)


def test_logits_to_keep_of_a_users_own_call_says_nothing_about_the_question(tiny):
    inputs = inputs_for(tiny, TWO[:1])
    with attach(tiny, keep=0.25) as pruner:
        logits(tiny, inputs, logits_to_keep=3)
    assert pruner.report[0].query == [20, 30, 31]


def test_gradient_checkpointing_is_left_alone(tiny):
    inputs = inputs_for(tiny, TWO)
    with attach(tiny, keep=0.25):
        expected = logits(tiny, inputs)
    tiny.gradient_checkpointing_enable()
    with attach(tiny, keep=0.25):
        assert torch.equal(logits(tiny, inputs), expected)
    assert tiny.is_gradient_checkpointing


# ---- without text; words ----


def test_selection_without_text_depends_on_the_image_alone(one):
    family, model = one
    picture = family.picture(0)
    hashes, kept = set(), []
    with attach(model, keep=0.25, query=None, redundancy=0.5) as pruner:
        for words in ([31, 32], [50, 51, 52, 53]):
            inputs = family.inputs(model, [[30, picture, *words]])
            # The zoo draws pixels from the words: here the picture is the same, the words are not.
            pixels = family.inputs(model, [[30, picture, 31, 32]])
            same = {k: pixels[k] if "pixel" in k or "grid" in k else v for k, v in inputs.items()}
            logits(model, same)
            (entry,) = pruner.report
            hashes.add(entry.keep_hash)
            kept.append(entry)
    assert len(hashes) == 1
    assert kept[0].query == [] and "no text" in kept[0].query_source
    assert "selected by what rows share" in kept[0].reason
    rows = language_model_call(model, pixels)["inputs_embeds"][0]
    (visual,) = family.visuals([[30, picture, 31, 32]], pixels)[0]
    content = [i for i in range(len(visual.columns)) if i not in visual.breaks]
    content_rows = rows[[visual.columns[i] for i in content]]
    chosen = mi_pruner_cuda.select(content_rows, content_rows[:0], 0.25, redundancy=0.5)
    expected = sorted(visual.breaks + [content[i] for i in chosen.indices.tolist()])
    assert kept[0].indices.tolist() == expected


def test_without_text_and_redundancy(tiny):
    with pytest.raises(ValueError, match=r"redundancy: got 0 with query=None"):
        attach(tiny, keep=0.25, query=None, redundancy=0)
    with pytest.raises(ValueError, match=r"keep: got Mass with query=None"):
        attach(tiny, keep=Mass(0.5), query=None)


def test_explain_says_for_which_word_each_row_speaks(tiny):
    inputs = inputs_for(tiny, TWO)
    with attach(tiny, keep=0.25, temperature=0.2) as pruner:
        logits(tiny, inputs)
        assert pruner.report[0].speaks_for is None
    tokenizer = tiny_models.word_tokenizer(None)
    with attach(tiny, keep=0.25, temperature=0.2, explain=True, tokenizer=tokenizer) as pruner:
        logits(tiny, inputs)
    embeddings = language_model_call(tiny, inputs)["inputs_embeds"]
    table = tiny.get_input_embeddings().weight
    for entry, (item, first) in zip(pruner.report, [(0, 2), (1, 2), (1, 19)], strict=True):
        pad = int((inputs["attention_mask"][item] == 0).sum())
        rows = embeddings[item, pad + first : pad + first + 16].double()
        words = table[entry.query].double()
        assert entry.words == [tokenizer.decode([i]) for i in entry.query]
        rows, words = (x / x.norm(dim=1, keepdim=True) for x in (rows, words))
        given = (rows @ words.T / 0.2).softmax(1)
        shares = given * (given / given.mean(0)).log()
        assert entry.speaks_for.tolist() == shares.argmax(1).tolist()
        assert len(set(entry.speaks_for.tolist())) > 1


def test_explain_leaves_rows_out_that_are_not_finite(tiny):
    inputs = inputs_for(tiny, TWO[:1])

    def spoil(module, args, kwargs):
        kwargs["inputs_embeds"] = kwargs["inputs_embeds"].clone()
        kwargs["inputs_embeds"][0, 3] = torch.nan
        return args, kwargs

    handle = tiny.model.language_model.register_forward_pre_hook(spoil, with_kwargs=True)
    try:
        with attach(tiny, keep=0.25, explain=True) as pruner:
            logits(tiny, inputs)
    finally:
        handle.remove()
    said = pruner.report[0].speaks_for.tolist()
    assert said[1] == -1 and min(said[:1] + said[2:]) >= 0
