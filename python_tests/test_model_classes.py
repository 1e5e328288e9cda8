"""attach on every class of the table, with random weights: exact, complete, and gone afterwards."""

import pytest
import torch
from class_oracle import QUERY, kept_columns, pools_of, pruned_logits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zoo import FAMILIES, Visual, language_model_of

from mi_pruner_cuda import Selection, attach, keep_count
from mi_pruner_cuda.huggingface import MODELS

torch.set_num_threads(1)  # these models are too small to share

NEW = 5  # generated tokens
_BUILT = {}


def built(name: str, attention: str | None = None):
    attention = attention or FAMILIES[name].attentions[0]
    return _BUILT.setdefault((name, attention), FAMILIES[name].build(attention))


def batches(family) -> list[list[list]]:
    """Unequal prompts: pictures, none, several; films; and both in either order."""
    a, b, c = (family.picture(i) for i in range(3))
    found = [[[30, a, 31, 32], [33, b, 34, c, 35], [36, 37]], [[38, b, 39]]]
    if family.videos:
        f, g = family.film(0), family.film(1)
        found.append([[40, f, 41], [42, g, 43, 44, f, 45]])
        if family.mixes:
            found.append([[46, a, 47, f, 48], [49, g, 50, b, 51], [52, 53]])
    return found


def visuals_of(family, prompts, inputs):
    """The zoo's ground truth; films of classes that take each frame for an image, as images."""
    found = family.visuals(prompts, inputs)
    if MODELS[family.model_type].videos is not None:
        return found
    return [[image for v in own for image in as_images(v)] for own in found]


def as_images(visual):
    if visual.kind == "image":
        return [visual]
    return [
        Visual("image", visual.columns[first : first + h * w], [], [(0, h, w)], (h, w))
        for first, h, w in visual.blocks
    ]


CASES = [(n, a) for n, family in FAMILIES.items() for a in family.attentions]


@pytest.fixture(params=CASES, ids=["-".join(case) for case in CASES])
def case(request):
    """A family and a model of it."""
    name, attention = request.param
    return FAMILIES[name], built(name, attention)


@pytest.fixture(params=list(FAMILIES))
def one(request):
    """One attention implementation is enough where attention is not what is tested."""
    return FAMILIES[request.param], built(request.param)


@torch.no_grad()
def logits(model, inputs, **options):
    return model(**inputs, **options).logits


def generate(model, inputs, **options):
    torch.manual_seed(3)
    options = {"do_sample": False, "max_new_tokens": NEW, **options}
    return model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]


def steps(model, inputs, **options):
    """Logits (B, NEW, V) of greedy generation: equal tokens alone would hide small faults."""
    options = {"do_sample": False, "max_new_tokens": NEW, **options}
    output = model.generate(**inputs, **options, output_logits=True, return_dict_in_generate=True)
    return torch.stack(output.logits, dim=1)


def assert_rows_close(batch: torch.Tensor, rows: list[torch.Tensor]):
    """Each item of a left-padded (B, P, V) against its own (P_b, V)."""
    assert batch.shape[1] == max(map(len, rows))
    for got, expected in zip(batch, rows, strict=True):
        torch.testing.assert_close(got[-len(expected) :], expected, rtol=1e-5, atol=1e-5)


def test_the_table_is_tested():
    assert {family.model_type for family in FAMILIES.values()} == set(MODELS)
    for spec in MODELS.values():
        families = [f for f in FAMILIES.values() if f.model_type == spec.model_type]
        assert {a for f in families for a in f.attentions} == set(spec.attentions)
        assert all(f.videos for f in families) or spec.videos is None


def test_keep_1_is_bitwise_the_unhooked_model(case):
    family, model = case
    for prompts in batches(family):
        inputs = family.inputs(model, prompts)
        expected = logits(model, inputs)
        with attach(model, keep=1.0, query=QUERY) as pruner:
            assert torch.equal(logits(model, inputs), expected)
        assert pruner.report.tokens_before == pruner.report.tokens_after > 0
        assert all(r.reason.startswith(("kept all: keep = 1.0", "no image")) for r in pruner.report)


def test_pruned_logits_equal_a_hand_gathered_run(case):
    family, model = case
    for prompts in batches(family):
        inputs = family.inputs(model, prompts)
        visuals = visuals_of(family, prompts, inputs)
        kept = kept_columns(model, inputs, visuals, 0.25)
        expected = pruned_logits(model, inputs, kept)
        with attach(model, keep=0.25, query=QUERY) as pruner:
            for cache in (True, False):
                assert_rows_close(logits(model, inputs, use_cache=cache), expected)
        check_report(pruner.report, visuals, 0.25)


def check_report(report, visuals, ratio):
    """Kinds, counts, grids and the places of parts are those of the zoo."""
    entries = [r for r in report if r.image is not None]
    expected = [(item, v) for item, own in enumerate(visuals) for v in own]
    assert len(entries) == len(expected)
    for entry, (item, visual) in zip(entries, expected, strict=True):
        assert (entry.item, entry.kind) == (item, visual.kind)
        assert entry.tokens_before == len(visual.columns)
        budget = sum(keep_count(len(pool), ratio) for pool in pools_of(visual))
        assert entry.tokens_after == len(entry.indices) == budget + len(visual.breaks)
        assert set(visual.breaks) <= set(entry.indices.tolist())
        if not visual.breaks or visual.kind == "video":  # with breaks in it no picture is one grid
            assert entry.grid in (visual.grid, visual.grid and (1, *visual.grid))
        places = {(first, h, w) for first, h, w in visual.blocks}
        assert {(p.first, *p.grid) for p in entry.parts} <= places
        nan = entry.scores.isnan().nonzero()[:, 0].tolist()
        assert nan == visual.breaks


def test_parts_are_known_where_the_class_tells(one):
    """All but tiles of classes whose ids do not say how they lie."""
    family, model = one
    for prompts in batches(family):
        inputs = family.inputs(model, prompts)
        with attach(model, keep=0.25, query=QUERY) as pruner:
            logits(model, inputs)
        visuals = [v for own in visuals_of(family, prompts, inputs) for v in own]
        entries = [r for r in pruner.report if r.image is not None]
        for entry, visual in zip(entries, visuals, strict=True):
            check_parts(family, entry, visual)


def check_parts(family, entry, visual):
    shown = sorted(t for p in entry.parts for t in p.tokens.flatten().tolist())
    if family.name in ("internvl", "aya_vision"):
        first, h, w = visual.blocks[-1]
        assert shown == list(range(first, first + h * w))
    else:
        # Frames of Video-LLaVA begin with a class row, which is no place in the picture.
        films = visual.blocks if visual.kind == "video" else []
        hidden = {*visual.breaks, *(first for first, h, w in films if (h, w) == (1, 1))}
        assert shown == [i for i in range(len(visual.columns)) if i not in hidden]
    for part in entry.parts:
        left, top, right, bottom = part.box
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1


def test_batch_equals_items_one_by_one(one):
    family, model = one
    for prompts in batches(family):
        with attach(model, keep=0.3, query=QUERY):
            batch = logits(model, family.inputs(model, prompts))
            alone = [logits(model, family.inputs(model, [p]))[0] for p in prompts]
            assert_rows_close(batch, alone)


@pytest.mark.parametrize("positions", ["original", "renumbered"])
@pytest.mark.parametrize("query", [QUERY, "question"], ids=["given", "found"])
def test_cached_generation_equals_recomputation(one, positions, query):
    """What was generated since is no part of a question that is found in the prompt."""
    family, model = one
    for prompts in batches(family):
        inputs = family.inputs(model, prompts)
        with attach(model, keep=0.25, query=query, positions=positions) as pruner:
            cached = steps(model, inputs)
            said = [(r.tokens_before, r.tokens_after, r.grid) for r in pruner.report]
            torch.testing.assert_close(
                cached, steps(model, inputs, use_cache=False), rtol=1e-5, atol=2e-5
            )
            assert [(r.tokens_before, r.tokens_after, r.grid) for r in pruner.report] == said
            logits(model, inputs)  # the same images where no generate has encoded them
            assert [(r.tokens_before, r.tokens_after, r.grid) for r in pruner.report] == said


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"do_sample": True, "temperature": 1.5},
        {"cache_implementation": "static"},
    ],
    ids=["beams", "sampling", "static"],
)
def test_other_ways_to_generate(one, options):
    family, model = one
    # transformers repeats GLM-4V's images and videos for beams in the wrong order.
    which = 1 if family.name == "glm4v" else -1
    inputs = family.inputs(model, batches(family)[which])
    with attach(model, keep=0.25, query=QUERY):
        got = generate(model, inputs, **options)
        if "cache_implementation" in options:
            assert torch.equal(got, generate(model, inputs))
        else:
            assert torch.equal(got, generate(model, inputs, use_cache=False, **options))


def test_detach_restores_the_model(one):
    family, model = one
    inputs = family.inputs(model, batches(family)[-1])
    expected, tokens = logits(model, inputs), generate(model, inputs)
    hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()]
    pruner = attach(model, keep=0.25, query=QUERY)
    assert logits(model, inputs).shape != expected.shape
    generate(model, inputs)
    pruner.detach()
    assert hooks == [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()]
    assert torch.equal(logits(model, inputs), expected)
    assert torch.equal(generate(model, inputs), tokens)


# ---- markers: a row's own number in every column of it ----


class Markers:
    """Hooks around attach's: marks what the language model is about to get, sees what it gets."""

    def __init__(self, model, breaks: dict[int, list[int]]):
        self.model, self.breaks, self.handles = model, breaks, []
        self.seen = {}

    def mark(self, module, args, kwargs):
        embeddings = kwargs["inputs_embeds"]
        numbers = torch.arange(embeddings[..., 0].numel(), dtype=embeddings.dtype)
        marked = numbers.view(*embeddings.shape[:2], 1).expand_as(embeddings).clone()
        for item, columns in self.breaks.items():  # breaks are known by their value
            marked[item, columns] = embeddings[item, columns]
        changed = {"inputs_embeds": marked}
        seen = kwargs.get("visual_pos_masks")
        if seen is not None:
            own = numbers.view(seen.shape)[seen][:, None]
            changed["deepstack_visual_embeds"] = [
                (own + 10_000 * (i + 1)).expand_as(plane)
                for i, plane in enumerate(kwargs["deepstack_visual_embeds"])
            ]
        self.before = {**kwargs, **changed}
        return args, self.before

    def see(self, module, args, kwargs):
        self.seen = kwargs

    def run(self, inputs, **options):
        decoder = language_model_of(self.model)
        first = decoder.register_forward_pre_hook(self.mark, with_kwargs=True)
        with attach(self.model, **options) as pruner:
            last = decoder.register_forward_pre_hook(self.see, with_kwargs=True)
            try:
                logits(self.model, inputs)
            finally:
                first.remove()
                last.remove()
        return pruner.report


def any_rows(visual, text, keep):
    """A selector that draws lots, the same for the same count of rows."""
    k = keep_count(visual.shape[0], keep)
    lots = torch.randperm(visual.shape[0], generator=torch.Generator().manual_seed(len(visual)))
    return Selection(lots[:k].sort().values, torch.zeros(len(visual)), k, "lots")


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ratio=st.floats(0.05, 0.9))
def test_markers_prove_every_gather(one, ratio):
    family, model = one
    for prompts in batches(family):
        inputs = family.inputs(model, prompts)
        visuals = visuals_of(family, prompts, inputs)
        breaks = {
            item: [v.columns[i] for v in own for i in v.breaks] for item, own in enumerate(visuals)
        }
        markers = Markers(model, breaks)
        report = markers.run(inputs, keep=ratio, query=QUERY, selector=any_rows)
        check_markers(inputs, visuals, breaks, markers, report)


def check_markers(inputs, visuals, breaks, markers, report):
    length = inputs["input_ids"].shape[1]
    entries = iter([r for r in report if r.image is not None])
    for item, own in enumerate(visuals):
        gone = set()
        for visual in own:
            kept = set(next(entries).indices.tolist())
            gone |= {c for i, c in enumerate(visual.columns) if i not in kept}
        real = inputs["attention_mask"][item].tolist()
        expected = [c for c in range(length) if real[c] and c not in gone]
        check_item(item, expected, length, breaks[item], markers.before, markers.seen, report)


def check_item(item, expected, length, breaks, before, after, report):
    """One row of what the language model got, against the columns that should be left."""
    width = len(expected)
    rows = after["inputs_embeds"][item, -width:]
    marks = [None if c in breaks else float(item * length + c) for c in expected]
    got = [None if m is None else r.unique().tolist() for m, r in zip(marks, rows, strict=True)]
    assert got == [None if m is None else [m] for m in marks]
    for c, row in zip(expected, rows, strict=True):
        if c in breaks:
            assert torch.equal(row, before["inputs_embeds"][item, c])
    if report.tokens_before == report.tokens_after:
        return  # handed through
    positions = before.get("position_ids")
    if positions is None:
        positions = torch.arange(length)[None]
    positions = positions.expand(*positions.shape[:-2], len(before["inputs_embeds"]), -1)
    assert torch.equal(after["position_ids"][..., item, -width:], positions[..., item, expected])
    seen = before.get("visual_pos_masks")
    if seen is not None:
        mask = after["visual_pos_masks"]
        assert mask[item, -width:].tolist() == seen[item, expected].tolist()
        assert not mask[item, :-width].any()
        own = [item * length + c for c in expected if seen[item, c]]
        begin = int(mask[:item].sum())
        for i, plane in enumerate(after["deepstack_visual_embeds"]):
            rows = plane[begin : begin + len(own)]
            assert [r.unique().tolist() for r in rows] == [[n + 10_000.0 * (i + 1)] for n in own]


# ---- budgets ----


def test_budget_per_crop(one):
    family, model = one
    prompts = batches(family)[0]
    inputs = family.inputs(model, prompts)
    visuals = [v for own in visuals_of(family, prompts, inputs) for v in own]
    with attach(model, keep=0.25, query=QUERY, budget="per-crop") as pruner:
        logits(model, inputs)
    entries = [r for r in pruner.report if r.image is not None]
    for entry, visual in zip(entries, visuals, strict=True):
        kept = set(entry.indices.tolist())
        for first, h, w in visual.blocks:
            stride = w + 1 if first + w in visual.breaks else w
            own = {first + r * stride + c for r in range(h) for c in range(w)}
            assert len(kept & own) == keep_count(len(own), 0.25)


def test_budget_pooled(one):
    family, model = one
    prompts = batches(family)[0]
    inputs = family.inputs(model, prompts)
    visuals = visuals_of(family, prompts, inputs)
    with attach(model, keep=0.25, query=QUERY, budget="pooled") as pruner:
        logits(model, inputs)
    for item, own in enumerate(visuals):
        content = sum(len(v.columns) - len(v.breaks) for v in own)
        breaks = sum(len(v.breaks) for v in own)
        after = sum(r.tokens_after for r in pruner.report if r.item == item)
        assert after == (keep_count(content, 0.25) + breaks if own else 0)


@pytest.mark.parametrize(
    "name", [n for n, family in FAMILIES.items() if MODELS[family.model_type].videos]
)
@pytest.mark.parametrize("redundancy", [0.0, 0.5])
def test_video_budgets(name, redundancy):
    family, model = FAMILIES[name], built(name)
    prompts = [[40, family.film(0), 41], [42, family.film(1), 43]]
    inputs = family.inputs(model, prompts)
    visuals = [v for own in visuals_of(family, prompts, inputs) for v in own]
    for ratio in (0.01, 0.3):
        options = {"keep": ratio, "query": QUERY, "redundancy": redundancy}
        with attach(model, video_budget="per-video", **options) as pruner:
            logits(model, inputs)
        for entry, visual in zip(pruner.report, visuals, strict=True):
            frames = pools_of(visual)
            kept = set(entry.indices.tolist())
            assert all(kept & set(frame) for frame in frames)
            expected = max(len(frames), keep_count(sum(map(len, frames)), ratio))
            assert len(kept - set(visual.breaks)) == expected
        with attach(model, **options) as pruner:
            logits(model, inputs)
        for entry, visual in zip(pruner.report, visuals, strict=True):
            kept = set(entry.indices.tolist())
            for frame in pools_of(visual):
                assert len(kept & set(frame)) == keep_count(len(frame), ratio)
