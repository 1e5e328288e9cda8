"""attach on the oldest transformers that is supported: a short script for an environment of its
own.

    python python_tests/smoke_transformers_4_57.py [FAMILY ...]

Goes through every class of the zoo, or those named. Runs on any version; the tests beside it, which
cover much more, run on the newest. Exits with 1 and says what differs if something is wrong.
"""

import sys
import traceback
import warnings

import torch
import transformers
from class_oracle import QUERY, kept_columns, pools_of, pruned_logits
from zoo import FAMILIES, FIRST_WORD, language_model_call, language_model_of, logits_of
from zoo.text import before_transformers_5

from mi_pruner_cuda import attach, keep_count

KEEP = 0.25
NEW = 5  # generated tokens
GREEDY = {"do_sample": False}
EVERYTHING = {"return_dict_in_generate": True, "output_logits": True}
OTHER_WAYS = {
    "sampling": {"do_sample": True},
    "beams": {"num_beams": 3, "do_sample": False},
    "static cache": {"cache_implementation": "static", "do_sample": False},
}
OTHER_WAYS_OF = ("llava", "qwen2_5_vl")  # positions on one axis, and on three


def batches(family) -> list[list[list]]:
    """Prompts of different lengths: one picture, two, none; films."""
    a, b, c = (family.picture(i) for i in range(3))
    found = [[[30, a, 31, 32], [33, b, 34, c, 35], [36, 37]]]
    if family.videos:
        found.append([[40, family.film(0), 41], [42, family.film(1), 43, 44]])
    return found


@torch.no_grad()
def logits(model, inputs, **options):
    return model(**inputs, **options).logits


def generate(model, inputs, **options):
    torch.manual_seed(3)
    return model.generate(**inputs, max_new_tokens=NEW, **options)


def check_logits(family, model, prompts):
    """keep = 1.0 changes no bit; keep = 0.25 is what gathering by hand gives; detach restores."""
    inputs = family.inputs(model, prompts)
    untouched = logits(model, inputs)
    with attach(model, keep=1.0, query=QUERY):
        assert torch.equal(logits(model, inputs), untouched), "keep = 1.0 changed the logits"
    visuals = family.visuals(prompts, inputs)
    expected = pruned_logits(model, inputs, kept_columns(model, inputs, visuals, KEEP))
    with attach(model, keep=KEEP, query=QUERY) as pruner:
        for cache in (True, False):
            pruned = logits(model, inputs, use_cache=cache)
            assert pruned.shape[1] == max(map(len, expected)), "another number of columns"
            for got, row in zip(pruned, expected, strict=True):
                torch.testing.assert_close(got[-len(row) :], row, rtol=1e-5, atol=1e-5)
    tokens = sum(tokens_left(visual) for own in visuals for visual in own)
    assert pruner.report.tokens_after == tokens, pruner.report
    assert torch.equal(logits(model, inputs), untouched), "detach left something behind"


def tokens_left(visual) -> int:
    """Row breaks, and a share of each pool."""
    return len(visual.breaks) + sum(keep_count(len(pool), KEEP) for pool in pools_of(visual))


def check_generate(family, model, prompts, positions):
    """The cache makes no difference, to logits either: tokens alone forgive a wrong mask."""
    inputs = family.inputs(model, prompts)
    with attach(model, keep=KEEP, query=QUERY, positions=positions):
        cached, again = (
            generate(model, inputs, use_cache=cache, **GREEDY, **EVERYTHING)
            for cache in (True, False)
        )
    assert torch.equal(cached.sequences, again.sequences), f"{positions}: other tokens"
    assert_steps_close(cached.logits, again.logits)


def assert_steps_close(got, expected):
    """Logits (B, V) of each generated token."""
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def check_other_ways(family, model):
    """Nor does it there; the static cache gives what the other cache gives.

    Each item has one picture: with different numbers transformers 4.57 repeats them for beams in
    the wrong order, attached or not.
    """
    a, b = family.picture(0), family.picture(1)
    inputs = family.inputs(model, [[38, a, 39], [45, b, 46, 47]])
    with attach(model, keep=KEEP, query=QUERY):
        for name, options in OTHER_WAYS.items():
            got = generate(model, inputs, **options)
            if name == "static cache":
                expected = generate(model, inputs, **GREEDY)
            else:
                expected = generate(model, inputs, use_cache=False, **options)
            assert torch.equal(got, expected), f"{name}: not what another cache gives"


@torch.no_grad()
def hand_generated(model, inputs, row: list[int]) -> list[torch.Tensor]:
    """NEW times logits (1, V): of one item's gathered columns and their greedy continuation.

    For classes whose prompt is seen in both directions and whose positions are 1-D.
    """
    call, decoder = language_model_call(model, inputs), language_model_of(model)
    embeddings, place = call["inputs_embeds"][:, row], call["position_ids"][:, row]
    mask = call["attention_mask"][:, :, row][..., row]
    cache, steps = None, []
    for _ in range(NEW):
        output = decoder(
            inputs_embeds=embeddings, position_ids=place, attention_mask=mask,
            past_key_values=cache, use_cache=True,
        )  # fmt: skip
        steps.append(logits_of(model, output.last_hidden_state[:, -1]))
        token = steps[-1][:, FIRST_WORD:].argmax(-1, keepdim=True) + FIRST_WORD
        cache, mask = output.past_key_values, None
        embeddings, place = model.get_input_embeddings()(token), place[:, -1:] + 1
    return steps


def check_generate_by_hand(family, model, prompts):
    """Decoding goes on from the gathered prompt.

    For PaliGemma, which transformers 4.57 gets wrong in two ways, attached or not: without a cache
    the prompt sees what was generated after it, and in a batch layers with a window mask the
    padding in the wrong columns.
    """
    for prompt in prompts:
        inputs = family.inputs(model, [prompt])
        (row,) = kept_columns(model, inputs, family.visuals([prompt], inputs), KEEP)
        expected = hand_generated(model, inputs, row)
        with attach(model, keep=KEEP, query=QUERY):
            generated = generate(model, inputs, **GREEDY, **EVERYTHING)
        assert_steps_close(generated.logits, expected)


def check(family, attention):
    """Everything with the first implementation of attention, logits with the others."""
    model = family.build(attention)
    for prompts in batches(family):
        check_logits(family, model, prompts)
        if attention != family.attentions[0]:
            continue
        if family.model_type == "paligemma" and before_transformers_5():
            check_generate_by_hand(family, model, prompts)
        else:
            for positions in ("original", "renumbered"):
                check_generate(family, model, prompts, positions)
    if family.name in OTHER_WAYS_OF:
        check_other_ways(family, model)


def main(names: list[str]) -> int:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    failed = 0
    for name in names or FAMILIES:
        family = FAMILIES[name]
        for attention in family.attentions:
            try:
                check(family, attention)
            except Exception:  # one class must not hide the others
                failed += 1
                print(f"FAILED  {name}, {attention}\n{traceback.format_exc()}")
            else:
                print(f"ok      {name}, {attention}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
