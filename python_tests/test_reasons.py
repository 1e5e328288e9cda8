"""What a selection says of itself in every entrance: rows that hold NaN or Inf, words that count,
and which item of a batch it speaks of."""

import copy
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import tiny_models
import torch
from hypothesis import given
from inputs import problems, related
from tiny_models import SQUARE, Prompt, inputs_for
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import mi_pruner_cuda.numpy as mnp
from mi_pruner_cuda import Mass, Selection, attach, distributed, engine, select
from mi_pruner_cuda.reason import reason_for_batch

torch.set_num_threads(1)  # these models are too small to share

ONE = Prompt([20, 21, SQUARE, 30, 31, 32, 33])
TWO = Prompt([22, SQUARE, 40, 41, SQUARE, 42])


def spoilt(n, bad, m=4, d=8):
    """n rows, the first `bad` of which are not finite, and m words."""
    visual, text = related(n, m, d)
    visual[:bad:2, 0] = math.nan
    visual[1:bad:2, -1] = -math.inf
    return visual, text


def both(visual, text, keep, **options):
    """The reason, from select and from the NumPy door: the same words."""
    masks = {name: mask.numpy() for name, mask in options.items() if "mask" in name}
    ours = select(visual, text, keep, **options).reason
    theirs = mnp.select(visual.numpy(), text.numpy(), keep, **options | masks).reason
    assert ours == theirs
    return ours


# ---- rows that are not finite ----


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (0, "selected"),
        (6, "selected"),
        (7, "1 of 4 kept rows hold NaN or Inf"),
        (10, "4 of 4 kept rows hold NaN or Inf"),
    ],
)
@pytest.mark.parametrize("redundancy", [0.0, 1.0])
def test_kept_rows_that_are_not_finite_are_said(bad, said, redundancy):
    visual, text = spoilt(10, bad)
    assert both(visual, text, 4, redundancy=redundancy) == said
    assert both(visual[None], text[None], 4, redundancy=redundancy) == said


def test_they_are_said_with_whatever_else_there_is_to_say():
    visual, text = spoilt(10, 9)
    lost = "9 of 10 kept rows hold NaN or Inf"
    assert both(visual, text, 12) == f"kept all: 12 of 10 asked for; {lost}"
    assert both(visual, text[:0], 12).endswith(f"no text: selected by what rows share; {lost}")
    mask = torch.arange(10) > 4  # masked rows are not kept, whatever they hold
    assert both(visual, text, 5, visual_mask=mask).endswith("; 4 of 5 kept rows hold NaN or Inf")
    assert select(visual, text, Mass(0.5)).reason == "1 rows hold 0.5 of the relevance"
    assert select(*spoilt(10, 10), Mass(0.5)).reason.endswith("1 of 1 kept rows hold NaN or Inf")
    named = select(visual, text, 4, critic=torch.eye(8)).reason
    assert named == "3 of 4 kept rows hold NaN or Inf; compared by a critic"


@pytest.mark.parametrize("words", [4, 0])
def test_they_are_said_where_rows_are_always_kept(words):
    visual, text = spoilt(10, 2)
    selection = select(visual, text[:words], 4, always_keep=[1, 9])
    assert selection.reason.endswith("1 of 4 kept rows hold NaN or Inf")
    # Also without text such rows score -inf, and masked ones.
    mask = torch.arange(10) != 5
    scores = select(visual, text[:words], 4, always_keep=[1, 9], visual_mask=mask).scores
    assert (scores == -math.inf).nonzero()[:, 0].tolist() == [0, 1, 5]


def test_half_types_in_the_numpy_door():
    visual, text = spoilt(10, 9)
    text[1:, 0] = math.inf
    said = "one text token: scored by pointwise information; 3 of 4 kept rows hold NaN or Inf"
    for dtype, bits in ((torch.float16, np.float16), (torch.bfloat16, np.uint16)):
        rows, words = (x.to(dtype).view(torch.uint16).numpy().view(bits) for x in (visual, text))
        name = "bfloat16" if bits is np.uint16 else None
        assert mnp.select(rows, words, 4, dtype=name).reason == said
        assert select(visual.to(dtype), text.to(dtype), 4).reason == said


@given(problems(largest_n=20))
def test_they_are_counted(problem):
    visual, text, visual_mask, text_mask = problem
    selection = select(visual, text, 6, visual_mask=visual_mask, text_mask=text_mask)
    bad = int((~visual[selection.indices].isfinite().all(1)).sum())
    note = f"{bad} of {selection.n_kept} kept rows hold NaN or Inf"
    assert (note in selection.reason) == (bad > 0)
    words = text.isfinite().all(1)
    count = int((words if text_mask is None else words & text_mask).sum())
    some = selection.n_kept > 0
    assert ("no text" in selection.reason) == (count == 0 and some)
    assert ("one text token" in selection.reason) == (count == 1 and some)


# ---- words that count ----


def test_words_that_are_not_finite_do_not_count():
    visual, text = related(10, 3, 8)
    text[0, 0], text[1, 3] = math.nan, math.inf
    assert both(visual, text, 4) == "one text token: scored by pointwise information"
    assert both(visual, text[:2], 4) == "no text: selected by what rows share"
    mask = torch.tensor([True, True, False])
    assert both(visual, text, 4, text_mask=mask) == "no text: selected by what rows share"
    assert both(visual, text, 4, estimator="joint") == "selected"


# ---- batches ----


def test_items_that_differ_are_named():
    visual, text = related(10, 3, 8, batch=(3,))
    visual[1, :8, 0] = math.nan
    lost = "2 of 4 kept rows hold NaN or Inf"
    assert both(visual, text, 4) == f"items 0, 2: selected; item 1: {lost}"
    mask = torch.tensor([[True, True, True], [True, True, True], [False, True, False]])
    said = both(visual, text, 4, text_mask=mask)
    one = "one text token: scored by pointwise information"
    assert said == f"item 0: selected; item 1: {lost}; item 2: {one}"
    few = torch.arange(10) < torch.tensor([[10], [10], [2]])
    said = both(visual, text, 4, visual_mask=few)
    assert said == f"item 0: selected; item 1: {lost}; item 2: kept all: 4 of 2 asked for"
    said = select(visual, text, 0.4, visual_mask=few, critic=torch.eye(8)).reason
    assert said == f"items 0, 2: selected; item 1: {lost}; compared by a critic"
    assert both(visual[:0], text[:0], 4) == "the batch is empty" == reason_for_batch([])


def test_items_without_words_are_named():
    visual, text = related(20, 3, 8, batch=(3,))
    mask = torch.tensor([[True, False, True], [False] * 3, [False] * 3])
    with pytest.raises(ValueError, match=r"redundancy: got 0 with a text_mask .* of items 1, 2,"):
        select(visual, text, 5, text_mask=mask, redundancy=0)
    with pytest.raises(ValueError, match=r"redundancy: got 0 with a text_mask .* of items 1, 2,"):
        mnp.select(visual.numpy(), text.numpy(), 5, text_mask=mask.numpy(), redundancy=0)
    with pytest.raises(ValueError, match=r"redundancy: got 0 with a text_mask .* no rows, allowed"):
        select(visual[1], text[1], 5, text_mask=mask[1], redundancy=0)


# ---- when it is put into words ----


class Count(TorchDispatchMode):
    """Names what torch is asked to do."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("batch", [(), (3,)])
def test_an_accelerator_is_neither_waited_for_nor_given_more_to_do(batch):
    with FakeTensorMode():  # where looking at a number raises
        visual, text = (torch.empty(*batch, n, 8, device="cuda") for n in (20, 4))
        with Count() as count:
            select(visual, text, 5)
            select(visual, text, 0.3, redundancy=0)
    work = [name for name in count.names if name != "prim.device.default"]  # a question to torch
    assert work == ["mipruner.select.default"] * 2


def test_the_rows_may_change_before_the_reason_is_read():
    visual, text = spoilt(10, 9)
    selection = select(visual, text, 4)
    visual.zero_()
    text.fill_(math.nan)
    assert selection.reason == "3 of 4 kept rows hold NaN or Inf"


def test_a_selection_is_a_plain_value_before_and_after():
    visual, text = spoilt(10, 9)
    said = "3 of 4 kept rows hold NaN or Inf"
    for made in (pickle.loads, copy.deepcopy, copy.copy, replace):
        selection = select(visual, text, 4)
        other = made(pickle.dumps(selection) if made is pickle.loads else selection)
        assert type(other) is Selection and other.reason == said == selection.reason
        assert torch.equal(other.indices, selection.indices) and said in repr(other)
    assert replace(select(visual, text, 4), reason="mine").reason == "mine"
    assert Selection([0], [0.0], 1, "mine").reason == "mine"
    with pytest.raises(AttributeError, match="'Selection' object has no attribute 'reasons'"):
        _ = select(visual, text, 4).reasons
    with pytest.raises(AttributeError):
        select(visual, text, 4).reason = "other"


def test_compiled_and_without_data():
    visual, text = spoilt(10, 9)
    torch._dynamo.reset()
    compiled = torch.compile(lambda v, t: select(v, t, 4), fullgraph=True, backend="eager")
    assert compiled(visual, text).reason == select(visual, text, 4).reason
    nothing = select(visual.to("meta"), text.to("meta"), 4)
    assert nothing.reason == "selected" and nothing.indices.shape == (4,)
    nothing = select(visual[None].to("meta"), text[None].to("meta"), 12)
    assert nothing.reason == "kept all: 12 of 10 asked for"


# ---- engines, groups of processes ----


@pytest.mark.parametrize("always_keep", [None, [None, [1], None, None]])
def test_plans_say_it_for_each_image(always_keep):
    images = [related(6, 3, 8)[0], *(spoilt(8, n)[0] for n in (7, 8)), torch.empty(0, 8)]
    text = related(6, 3, 8)[1]
    plan = engine.plan(images, text, 0.5, always_keep=always_keep)
    lost = "{} of 4 kept rows hold NaN or Inf"
    assert plan.counts == (3, 4, 4, 0)
    empty = "there are no rows to keep"
    assert plan.reasons == ("selected", lost.format(3), lost.format(4), empty)
    all_kept = engine.plan(images, text[:1], 8, always_keep=always_keep).reasons
    one = "one text token: scored by pointwise information"
    assert all_kept[0] == f"kept all: 6 of 6 asked for; {one}"
    assert all_kept[1] == f"kept all: 8 of 8 asked for; {one}; 7 of 8 kept rows hold NaN or Inf"
    free = engine.plan(images, None, 0.5, always_keep=always_keep).reasons
    assert free[2] == f"no text: selected by what rows share; {lost.format(4)}"
    text[1:, 0] = math.nan
    assert engine.plan(images, text, 0.5).reasons[0] == one
    assert engine.plan([], text, 0.5).reasons == ()


def test_shards_say_it(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
    )
    try:
        for bad in (0, 7, 10):
            visual, text = spoilt(10, bad)
            text[0, 0] = math.nan
            for words in (text, text[:2], text[:1]):
                for critic in (None, torch.eye(8)):
                    ours = distributed.select(visual, words, 4, critic=critic, coverage=0)
                    one = select(visual, words, 4, critic=critic, redundancy=0, coverage=0)
                    assert ours.reason == one.reason
    finally:
        torch.distributed.destroy_process_group()


# ---- attach ----


@pytest.fixture(scope="module", params=["llava", "qwen"])
def model(request):
    return getattr(tiny_models, request.param)()


def reasons(model, inputs, **options):
    with attach(model, **{"keep": 0.25} | options) as pruner, torch.no_grad():
        model(**inputs)
        return [entry.reason for entry in pruner.report]


def nan_inputs(model, prompts):
    inputs = inputs_for(model, prompts)
    inputs["pixel_values"] = torch.full_like(inputs["pixel_values"], math.nan)
    return inputs


def test_attach_says_that_a_picture_is_nan(model):
    inputs = nan_inputs(model, [ONE])
    lost = "{0} of {0} kept rows hold NaN or Inf"
    assert reasons(model, inputs) == [f"pruned; {lost.format(4)}"]
    assert reasons(model, inputs, keep=1.0) == [f"kept all: keep = 1.0; {lost.format(16)}"]
    assert reasons(model, inputs, keep=Mass(0.5))[0].endswith("1 of 1 kept rows hold NaN or Inf")
    few = "kept all: 16 tokens <= min_tokens = 16"
    assert reasons(model, inputs, min_tokens=16) == [f"{few}; {lost.format(16)}"]
    free = reasons(model, inputs, query=None)
    assert free == [f"pruned; no text: selected by what rows share; {lost.format(4)}"]


@pytest.mark.parametrize("budget", ["per-image", "pooled"])
def test_attach_counts_for_each_picture(model, budget):
    """A row of the first picture, which stays, as too few others are finite, and one that goes."""
    inputs = inputs_for(model, [TWO])

    def spoil(module, args, kwargs):
        rows = kwargs["inputs_embeds"] = kwargs["inputs_embeds"].clone()
        first = (inputs["input_ids"][0] == tiny_models.IMAGE).nonzero()[0, 0]
        rows[0, first : first + 15] = math.nan
        return args, kwargs

    handle = model.model.language_model.register_forward_pre_hook(spoil, with_kwargs=True)
    try:
        said = reasons(model, inputs, budget=budget, coverage=0)
        # A selector's own scores say nothing of its rows.
        chosen = reasons(model, inputs, budget=budget, selector=first_rows)
    finally:
        handle.remove()
    alone = budget == "per-image"
    assert said == ["pruned" + "; 3 of 4 kept rows hold NaN or Inf" * alone, "pruned"]
    if alone:
        assert chosen == ["pruned; first; 3 of 3 kept rows hold NaN or Inf", "pruned; first"]


def first_rows(visual, text, keep):
    return Selection(torch.arange(3), torch.full((len(visual),), -math.inf), 3, "first")


def test_an_empty_question_of_a_batch_is_named(model):
    silent = Prompt([SQUARE])
    for prompts, item in (([ONE, TWO, silent], 2), ([silent, ONE], 0)):
        with pytest.raises(ValueError, match=f"^item {item} of the batch: the question is empty"):
            reasons(model, inputs_for(model, prompts))
    with pytest.raises(ValueError, match=r"^the question is empty"):
        reasons(model, inputs_for(model, [silent]))


@pytest.mark.parametrize(
    "query", [np.array([31.5, 32.0]), np.array([31, 32], "m8[s]"), np.array(31), torch.tensor(31)]
)
def test_token_ids_are_whole_numbers(model, query):
    with pytest.raises(TypeError, match=r"^query: got"):
        attach(model, keep=0.25, query=query)


def test_token_ids_in_any_form(model):
    ids = np.ma.masked_array(np.array([31, 32], ">i4"))
    with attach(model, keep=0.25, query=ids) as pruner, torch.no_grad():
        model(**inputs_for(model, [ONE]))
        assert pruner.report[0].query == [31, 32]
    ids[0] = np.ma.masked
    with pytest.raises(ValueError, match=r"^query: got a masked array with 1 masked elements"):
        attach(model, keep=0.25, query=ids)
