"""Prompts in progress, in any order: each must go on as if it were alone.

A random walk through what a host can do with one attached model: several conversations, with a
cache and without one, whose steps alternate; caches that are reordered, selected from, repeated,
cropped, copied, pickled and built again from their tensors; steps in other threads; forwards of
something else in between. After each step the logits of every row are compared with a plain run of
that row: alone, by another copy of the model, from its first token to its last without a break.
"""

import copy
import pickle
import threading
from dataclasses import dataclass, field

import pytest
import torch
import transformers
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tiny_models import SQUARE, VOCABULARY, Prompt, inputs_for, llava, qwen

import mi_pruner_cuda

WORDS = range(10, VOCABULARY)
CLOSE = 2e-4  # of logits of about 10: batched, padded and split runs round differently


@dataclass
class Row:
    """One prompt and the tokens that came after it."""

    prompt: Prompt
    tokens: list[int] = field(default_factory=list)

    def copy(self) -> "Row":
        return Row(self.prompt, list(self.tokens))


@dataclass
class Conversation:
    """Rows that go on together. cache: None repeats everything at each step."""

    rows: list[Row]
    inputs: dict
    cache: object = None

    @property
    def made(self) -> int:
        return len(self.rows[0].tokens)

    def logits(self, model) -> torch.Tensor:
        """(B, V) after the last tokens, by the next forward of the model."""
        mask = self.inputs["attention_mask"]
        tokens = torch.tensor([row.tokens for row in self.rows])
        if self.cache is None:
            more = dict(self.inputs, use_cache=False)
            more["input_ids"] = torch.cat([more["input_ids"], tokens.long()], 1)
            more["attention_mask"] = with_ones(mask, self.made)
            if "mm_token_type_ids" in more:
                zeros = torch.zeros(len(self.rows), self.made, dtype=torch.int)
                more["mm_token_type_ids"] = torch.cat([more["mm_token_type_ids"], zeros], 1)
            return model(**more).logits[:, -1]
        if self.made == 0:
            return model(**self.inputs, past_key_values=self.cache, use_cache=True).logits[:, -1]
        held = self.held
        return model(
            input_ids=tokens[:, held:], attention_mask=with_ones(mask, self.made),
            past_key_values=self.cache, use_cache=True,
        ).logits[:, -1]  # fmt: skip

    held: int = 0  # tokens after the prompt that the cache has

    def take(self, places: list[int]) -> None:
        """Its rows become these."""
        self.rows = [self.rows[place].copy() for place in places]
        self.inputs = {"attention_mask": self.inputs["attention_mask"][places]}


def with_ones(mask, width):
    return torch.cat([mask, mask.new_ones(len(mask), width)], 1)


def rebuilt(cache):
    """Another cache, of the same keys and values."""
    fresh = transformers.DynamicCache()
    for number, layer in enumerate(cache.layers):
        fresh.update(layer.keys.clone(), layer.values.clone(), number)
    return fresh


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda cache: pickle.loads(pickle.dumps(cache)),
    "rebuilt": rebuilt,
}


class InAnyOrder(RuleBasedStateMachine):
    """Subclasses have make(), which returns a model, and options of attach."""

    @initialize()
    def begin_all(self):
        self.model, self.alone = self.make(), self.make()
        self.pruner = mi_pruner_cuda.attach(self.model, keep=0.25, **self.options)
        self.other = mi_pruner_cuda.attach(self.alone, keep=0.25, **self.options)
        self.known = {}
        self.conversations = []

    def teardown(self):
        for pruner in ("pruner", "other"):
            if hasattr(self, pruner):
                getattr(self, pruner).detach()

    @torch.no_grad()
    def expected(self, row: Row) -> torch.Tensor:
        key = (tuple(row.prompt.parts), tuple(row.tokens))
        if key not in self.known:
            cache = transformers.DynamicCache()
            logits = self.alone(
                **inputs_for(self.alone, [row.prompt]), past_key_values=cache, use_cache=True
            ).logits
            if row.tokens:
                logits = self.alone(
                    input_ids=torch.tensor([row.tokens]), past_key_values=cache, use_cache=True
                ).logits
            self.known[key] = logits[0, -1]
        return self.known[key]

    @torch.no_grad()
    def check(self, conversation: Conversation, threaded: bool) -> None:
        found = []

        @torch.no_grad()
        def run():
            found.append(conversation.logits(self.model))

        if threaded:
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
        else:
            run()
        conversation.held = conversation.made
        want = torch.stack([self.expected(row) for row in conversation.rows])
        torch.testing.assert_close(found[0], want, atol=CLOSE, rtol=CLOSE)

    prompts = st.lists(
        st.builds(
            lambda before, images, after: Prompt([*before, *[SQUARE] * images, *after]),
            st.lists(st.sampled_from(WORDS), max_size=2),
            st.integers(1, 2),
            st.lists(st.sampled_from(WORDS), min_size=1, max_size=4),
        ),
        min_size=1,
        max_size=3,
    )

    @precondition(lambda self: len(self.conversations) < 4)
    @rule(prompts=prompts, cached=st.booleans(), threaded=st.booleans())
    def begin(self, prompts, cached, threaded):
        cache = transformers.DynamicCache() if cached else None
        rows = [Row(prompt) for prompt in prompts]
        conversation = Conversation(rows, inputs_for(self.model, prompts), cache)
        self.check(conversation, threaded)
        self.conversations.append(conversation)

    def pick(self, data, cached=False) -> Conversation | None:
        some = [c for c in self.conversations if c.cache is not None or not cached]
        return data.draw(st.sampled_from(some)) if some else None

    @precondition(lambda self: self.conversations)
    @rule(data=st.data(), threaded=st.booleans())
    def step(self, data, threaded):
        conversation = self.pick(data)
        most = 1 if conversation.cache is None else 3
        for _ in range(data.draw(st.integers(1, most))):
            for row in conversation.rows:
                row.tokens.append(data.draw(st.sampled_from(WORDS)))
        self.check(conversation, threaded)

    @precondition(lambda self: any(c.cache is not None for c in self.conversations))
    @rule(data=st.data(), way=st.sampled_from(["reorder", "select", "repeat"]))
    def change_rows(self, data, way):
        conversation = self.pick(data, cached=True)
        n, cache = len(conversation.rows), conversation.cache
        if way == "reorder":
            places = data.draw(st.permutations(range(n)))
            cache.reorder_cache(torch.tensor(places))
        elif way == "select":
            places = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=4))
            cache.batch_select_indices(torch.tensor(places))
        elif n <= 2:
            places = [place for place in range(n) for _ in range(2)]
            cache.batch_repeat_interleave(2)
        else:
            return
        conversation.take(places)

    @precondition(lambda self: any(c.cache is not None for c in self.conversations))
    @rule(data=st.data(), way=st.sampled_from(sorted(COPIES)), fork=st.booleans())
    def copy_cache(self, data, way, fork):
        conversation = self.pick(data, cached=True)
        cache = COPIES[way](conversation.cache)
        if fork and len(self.conversations) < 4:
            rows = [row.copy() for row in conversation.rows]
            mask = {"attention_mask": conversation.inputs["attention_mask"]}
            self.conversations.append(Conversation(rows, mask, cache, conversation.held))
        else:
            conversation.cache = cache

    @precondition(lambda self: any(c.cache is not None and c.made for c in self.conversations))
    @rule(data=st.data())
    def crop(self, data):
        some = [c for c in self.conversations if c.cache is not None and c.made]
        conversation = data.draw(st.sampled_from(some))
        gone = data.draw(st.integers(1, conversation.made))
        crop(conversation.cache, gone)
        for row in conversation.rows:
            del row.tokens[len(row.tokens) - gone :]
        conversation.held -= gone

    @precondition(lambda self: self.conversations)
    @rule(data=st.data(), what=st.sampled_from(["text", "picture", "again", "generate"]))
    @torch.no_grad()
    def something_else(self, data, what):
        words = data.draw(st.lists(st.sampled_from(WORDS), min_size=2, max_size=5))
        if what == "again":  # what a verifier sees: the same tokens, and a copy of the pictures
            conversation = self.pick(data)
            if conversation.cache is None:
                twin = copy.deepcopy(conversation)
                self.check(twin, False)
            return
        pictures = [SQUARE] if what != "text" else []
        inputs = inputs_for(self.model, [Prompt([*words[:1], *pictures, *words[1:]])], seed=9)
        if what == "generate":
            self.model.generate(**inputs, max_new_tokens=2, do_sample=False)
        else:
            self.model(**inputs, use_cache=data.draw(st.booleans()))

    @precondition(lambda self: len(self.conversations) > 2)
    @rule(data=st.data())
    def end(self, data):
        self.conversations.remove(self.pick(data))


def crop(cache, gone: int) -> None:
    """Takes the last columns away: transformers 5 counts them, transformers 4 what is left."""
    if int(transformers.__version__.split(".")[0]) >= 5:
        cache.crop(-gone)
    else:
        cache.crop(cache.get_seq_length() - gone)


CASES = {
    "llava": (llava, {}),
    "llava, renumbered": (llava, {"positions": "renumbered"}),
    "qwen": (qwen, {}),
    "llava, eager, text-free": (lambda: llava("eager"), {"query": None}),
}


@pytest.mark.parametrize("case", CASES)
def test_each_prompt_goes_on_as_if_it_were_alone(case):
    made, chosen = CASES[case]

    class Machine(InAnyOrder):
        make = staticmethod(made)
        options = chosen

    run = Machine.TestCase
    run.settings = settings(
        max_examples=20, stateful_step_count=25, deadline=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],  # to make a failure shorter takes minutes
    )  # fmt: skip
    run().runTest()
