"""engine: counts, plans and gathers for serving engines, and the worked example of vLLM."""

import subprocess
import sys

import pytest
import tiny_models
import tiny_oracle
import torch
from engine_as_vllm import Item, PrunedModel, Runner, image_positions
from hypothesis import given
from hypothesis import strategies as st
from inputs import related
from kernels import same_bits
from tiny_models import IMAGE, VIDEO, Prompt, inputs_for

import mi_pruner_cuda
from mi_pruner_cuda import Mass, attach, defaults, engine

torch.set_num_threads(1)  # these models are too small to share

D = 12
SIZES = st.lists(st.integers(0, 20), max_size=5)
KEEPS = st.one_of(st.floats(0.01, 1), st.integers(1, 25))


def images_of(sizes, seed=0):
    """Rows of each image, and the question."""
    rows, text = related(sum(sizes) + 1, 4, D, seed=seed)
    return list(rows[:-1].split(sizes)) if sizes else [], text


def marked(*shape):
    """A tensor whose every element says where it is."""
    return torch.arange(torch.Size(shape).numel()).view(shape)


# ---- counts ----


@given(sizes=SIZES, keep=KEEPS)
def test_counts_are_those_of_each_image_alone(sizes, keep):
    counts = engine.keep_counts(sizes, keep)
    if isinstance(keep, float):
        assert counts == [mi_pruner_cuda.keep_count(n, keep) for n in sizes]
    else:
        assert counts == [min(n, keep) for n in sizes]
    assert engine.keep_counts(sizes, [keep] * len(sizes)) == counts


def test_each_image_may_have_its_own_budget():
    assert engine.keep_counts([10, 10, 10], [0.25, 4, 1.0]) == [3, 4, 10]
    assert engine.keep_count is mi_pruner_cuda.keep_count


@pytest.mark.parametrize(
    ("sizes", "keep", "error", "words"),
    [
        (7, 0.5, TypeError, "sizes: got int"),
        ("77", 0.5, TypeError, "sizes: got str"),
        ([1, 2.0], 0.5, TypeError, r"sizes\[1\]: got 2.0"),
        ([1, -2], 0.5, ValueError, r"sizes\[1\]: got -2"),
        ([1], 0, ValueError, "keep: got 0"),
        ([], 1.5, ValueError, "keep: got 1.5"),
        ([1], "0.5", TypeError, "keep: got '0.5'"),
        ([1], Mass(0.5), TypeError, "keep: got Mass"),
        ([1, 2], [0.5], ValueError, "keep: got 1 values.* 2 images"),
        ([1, 2], [0.5, True], TypeError, "keep: got True"),
    ],
)
def test_bad_counts_are_named(sizes, keep, error, words):
    with pytest.raises(error, match=f"^{words}"):
        engine.keep_counts(sizes, keep)


# ---- plans ----


@given(
    sizes=SIZES,
    keep=KEEPS,
    redundancy=st.sampled_from([0.0, 0.5]),
    estimator=st.sampled_from(["specific", "posterior", "joint", "cosine"]),
    seed=st.integers(0, 1000),
)
def test_a_plan_is_each_image_selected_alone(sizes, keep, redundancy, estimator, seed):
    images, text = images_of(sizes, seed)
    options = {"redundancy": redundancy, "estimator": estimator}
    plan = engine.plan(images, text, keep, **options)
    assert plan.sizes == tuple(sizes)
    assert list(plan.counts) == engine.keep_counts(sizes, keep)
    assert [len(own) for own in plan.kept] == list(plan.counts)
    assert plan.indices.dtype == torch.int64 and plan.scores.shape == (sum(sizes),)
    scores = plan.scores.split(sizes) if sizes else []
    for image, own, given_scores in zip(images, plan.kept, scores, strict=True):
        if len(image):
            alone = mi_pruner_cuda.select(image, text, keep, **options)
            assert torch.equal(own, alone.indices)
            assert same_bits(given_scores, alone.scores)
    assert plan.mask.nonzero()[:, 0].tolist() == plan.indices.tolist()
    assert plan.hashes == tuple(
        engine.keep_hash(n, own.tolist()) for n, own in zip(sizes, plan.kept, strict=True)
    )


def test_rows_that_must_stay_stay_within_the_count():
    images, text = images_of([9, 0, 12])
    plain = engine.plan(images, text, 4)
    least = plain.scores[9:].argmin().item()
    for redundancy in (0.0, 0.5):
        plan = engine.plan(
            images, text, 4, redundancy=redundancy, always_keep=[None, [], [least, 3]]
        )
        assert plan.counts == (4, 0, 4)
        assert {least, 3} <= set(plan.kept[2].tolist()) and least not in plain.kept[2]
        alone = mi_pruner_cuda.select(
            images[2], text, 4, redundancy=redundancy, always_keep=[least, 3]
        )
        assert torch.equal(plan.kept[2], alone.indices)
        assert same_bits(plan.scores[9:], alone.scores)


def test_nobody_must_stay_is_the_same_plan():
    images, text = images_of([9, 0, 12])
    one, other = (engine.plan(images, text, 4, always_keep=a) for a in (None, [None] * 3))
    assert torch.equal(one.indices, other.indices) and same_bits(one.scores, other.scores)


def test_without_text_the_plan_is_the_images_own():
    images, _ = images_of([9, 12])
    plan = engine.plan(images, None, 0.3, redundancy=0.5)
    assert plan.counts == (3, 4) and not plan.scores.any()
    for image, own in zip(images, plan.kept, strict=True):
        alone = mi_pruner_cuda.select(image, image[:0], 0.3, redundancy=0.5)
        assert torch.equal(own, alone.indices)


def test_the_count_is_exact_with_rows_that_are_not_finite():
    images, text = images_of([8])
    images[0][1:7, 0] = torch.nan
    plan = engine.plan(images, text, 4)
    assert plan.kept[0].tolist() == [0, 1, 2, 7]


def test_the_first_columns_of_wide_rows_are_enough():
    """As where DeepStack planes lie beside the embeddings: a view, not a copy."""
    images, text = images_of([8, 5])
    wide = [torch.cat([image, torch.randn(len(image), 3 * D)], dim=1) for image in images]
    one = engine.plan(images, text, 0.5)
    other = engine.plan([x[:, :D] for x in wide], text, 0.5)
    assert torch.equal(one.indices, other.indices) and same_bits(one.scores, other.scores)


def test_different_questions_have_different_hashes():
    images, text = images_of([200])
    one, other = (engine.plan(images, t, 0.2).hashes for t in (text, text[:1]))
    assert one != other
    assert one == engine.plan(images, text, 0.2).hashes


IMAGES, TEXT = images_of([3, 4])
WIDE = torch.ones(4, D + 1)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((IMAGES[0], TEXT, 1), {}, TypeError, "images: got Tensor"),
        (([[1.0]], TEXT, 1), {}, TypeError, r"images\[0\]: got list"),
        (([IMAGES[0], IMAGES[1][0]], TEXT, 1), {}, ValueError, r"images\[1\]: got shape \(12,\)"),
        (([*IMAGES, WIDE], TEXT, 1), {}, ValueError, r"images\[2\]: got row width 13"),
        (
            ([*IMAGES, WIDE], None, 1),
            {"redundancy": 1.0},
            ValueError,
            r"images\[2\]: .*images\[0\]",
        ),
        (([IMAGES[0].half()], TEXT, 1), {}, TypeError, r"images\[0\]: got dtype torch.float16"),
        (([IMAGES[0].to("meta")], TEXT, 1), {}, ValueError, r"images\[0\]: got device meta"),
        ((IMAGES, TEXT.tolist(), 1), {}, TypeError, "text: got list"),
        ((IMAGES, TEXT[:0], 1), {}, ValueError, r"text: got shape \(0, 12\)"),
        ((IMAGES, TEXT[0], 1), {}, ValueError, r"text: got shape \(12,\)"),
        ((IMAGES, None, 1), {"redundancy": 0}, ValueError, "redundancy: got 0 without text"),
        ((IMAGES, TEXT, 0), {}, ValueError, "keep: got 0"),
        ((IMAGES, TEXT, Mass(0.5)), {}, TypeError, "keep: got Mass"),
        ((IMAGES, TEXT, 1), {"temperature": 0}, ValueError, "temperature: got 0"),
        ((IMAGES, TEXT, 1), {"redundancy": -1}, ValueError, "redundancy: got -1"),
        ((IMAGES, TEXT, 1), {"estimator": "best"}, ValueError, "estimator: got 'best'"),
        ((IMAGES, TEXT, 1), {"always_keep": [None]}, ValueError, "always_keep: got"),
        ((IMAGES, TEXT, 1), {"always_keep": 3}, ValueError, "always_keep: got 3"),
        ((IMAGES, TEXT, 1), {"always_keep": [None, [4]]}, ValueError, "always_keep: .*image 1"),
        ((IMAGES, TEXT, 1), {"always_keep": [[0, 1], None]}, ValueError, "always_keep: .*image 0"),
        ((IMAGES, TEXT, 1), {"always_keep": [[0.5], None]}, TypeError, "always_keep: .*image 0"),
    ],
)
def test_bad_plans_are_named(arguments, options, error, words):
    with pytest.raises(error, match=f"^{words}"):
        engine.plan(*arguments, **options)


# ---- gathers: every element says where it is ----


@given(sizes=SIZES, keep=KEEPS, seed=st.integers(0, 1000))
def test_every_gather_takes_the_kept_rows(sizes, keep, seed):
    plan = engine.plan(*images_of(sizes, seed), keep)
    n, kept = sum(sizes), plan.indices.tolist()
    assert kept == sorted(set(kept))
    rows = marked(n, 5)
    assert plan.rows(rows).tolist() == [rows[i].tolist() for i in kept]
    planes = marked(3, n, 5)
    expected = [[planes[p, i].tolist() for i in kept] for p in range(3)]
    assert plan.rows(planes).tolist() == expected
    assert [x.tolist() for x in plan.rows(list(planes))] == expected
    side_by_side = torch.cat(list(planes), dim=1)
    got = plan.rows(side_by_side)
    assert torch.equal(got, torch.cat(list(plan.rows(planes)), dim=1))
    line, three = marked(n), marked(3, n)
    assert plan.values(line).tolist() == kept
    assert plan.values(three).tolist() == [[p * n + i for i in kept] for p in range(3)]
    assert plan.values(line % 2 == 0).tolist() == [i % 2 == 0 for i in kept]
    split = plan.split(plan.rows(rows))
    assert [len(x) for x in split] == list(plan.counts)
    start = 0
    for size, own, part in zip(sizes, plan.kept, split, strict=True):
        assert part.tolist() == [rows[start + i].tolist() for i in own.tolist()]
        start += size


@st.composite
def prompts(draw):
    """A plan, and flags of a prompt with as many placeholders as it has rows."""
    sizes = draw(SIZES)
    plan = engine.plan(*images_of(sizes, draw(st.integers(0, 1000))), draw(KEEPS))
    words = draw(st.lists(st.integers(0, 3), min_size=sum(sizes) + 1, max_size=sum(sizes) + 1))
    flags = [False] * words[0]
    for count in words[1:]:
        flags += [True] + [False] * count
    return plan, flags


@given(case=prompts())
def test_a_prompt_loses_the_placeholders_of_the_rows_that_go(case):
    plan, flags = case
    kept_rows, row, columns = set(plan.indices.tolist()), 0, []
    for column, visual in enumerate(flags):
        if not visual or row in kept_rows:
            columns.append(column)
        row += visual
    flags = torch.tensor(flags, dtype=torch.bool)
    length = len(flags)
    prompt = plan.prompt(flags)
    assert prompt.columns.tolist() == columns and prompt.length == length
    ids = torch.where(flags, IMAGE, 50)
    for tokens in (ids, ids.int(), ids.tolist()):
        assert plan.columns(tokens, placeholder=IMAGE).tolist() == columns
    assert prompt.gather(marked(length)).tolist() == columns
    assert prompt.gather(marked(2, 3, length))[1, 2].tolist() == [5 * length + c for c in columns]
    assert prompt.rows(marked(length, 2)).tolist() == [[2 * c, 2 * c + 1] for c in columns]
    # The rows meet their own columns: those of the placeholders that stay, in order.
    visual_columns = flags.nonzero()[:, 0]
    assert prompt.gather(flags).sum() == sum(plan.counts)
    merged = prompt.columns[prompt.gather(flags)]
    assert torch.equal(merged, plan.values(visual_columns))


@given(case=prompts(), axes=st.sampled_from([1, 3]), seed=st.integers(0, 1000))
def test_positions_stay_or_close_up(case, axes, seed):
    plan, flags = case
    prompt = plan.prompt(torch.tensor(flags, dtype=torch.bool))
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(0, 3, (axes, len(flags)), generator=generator)
    positions = (5 + steps.cumsum(1)) if axes == 3 else 5 + torch.arange(len(flags))
    kept = positions[..., prompt.columns]
    original = prompt.positions(positions)
    assert torch.equal(original.values, kept)
    assert original.next_position == (int(positions.max()) + 1 if flags else 0)
    assert original.delta == original.next_position - kept.shape[-1]
    closed = prompt.positions(positions, "renumbered")
    used = sorted(set(kept.flatten().tolist()))
    expected = [int(positions.min()) + used.index(p) for p in kept.flatten().tolist()]
    assert closed.values.flatten().tolist() == expected
    assert closed.values.shape == kept.shape and closed.values.dtype == kept.dtype
    assert closed.next_position == (max(expected) + 1 if expected else 0)
    assert closed.delta == closed.next_position - kept.shape[-1]
    if axes == 1:
        assert expected == list(range(5, 5 + len(expected)))


def test_a_grid_loses_its_empty_rows_and_columns():
    """Text at 0 and 5, a 2 x 3 image at 1 .. 3 in between, of which two corners stay."""
    plan = engine.Plan((6,), (2,), torch.tensor([0, 5]), torch.zeros(6))
    prompt = plan.prompt([9, *[IMAGE] * 3, *[VIDEO] * 3, 9], placeholder=[IMAGE, VIDEO])
    t = [0, 1, 1, 1, 1, 1, 1, 4]
    h = [0, 1, 1, 1, 2, 2, 2, 4]
    w = [0, 1, 2, 3, 1, 2, 3, 4]
    closed = prompt.positions(torch.tensor([t, h, w]), "renumbered")
    assert closed.values.tolist() == [[0, 1, 1, 4], [0, 1, 2, 4], [0, 1, 3, 4]]
    # Nothing at all on the second row and the third column: both close up.
    plan = engine.Plan((6,), (2,), torch.tensor([0, 1]), torch.zeros(6))
    prompt = plan.prompt([9, *[IMAGE] * 6, 9], placeholder=IMAGE)
    closed = prompt.positions(torch.tensor([t, h, w]), "renumbered")
    assert closed.values.tolist() == [[0, 1, 1, 3], [0, 1, 1, 3], [0, 1, 2, 3]]
    assert (closed.next_position, closed.delta) == (4, 0)


PLAN = engine.plan(IMAGES, TEXT, 2)  # 7 rows, 4 of which stay
FLAGS = [False, *[True] * 7, False]
IDS = [IMAGE if f else 50 for f in FLAGS]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: PLAN.rows(marked(6, 2)), ValueError, r"x: got shape \(6, 2\).* 7 visual rows"),
        (lambda: PLAN.rows(marked(7)), ValueError, r"x: got shape \(7,\)"),
        (lambda: PLAN.rows(7), TypeError, "x: got int"),
        (lambda: PLAN.rows([marked(7, 2), marked(6, 2)]), ValueError, r"x\[1\]: got shape"),
        (lambda: PLAN.values(marked(7, 2)), ValueError, r"x: got shape \(7, 2\)"),
        (lambda: PLAN.values([7]), TypeError, "x: got list"),
        (lambda: PLAN.split(marked(7, 2)), ValueError, r"x: got shape \(7, 2\), .*4"),
        (lambda: PLAN.split([4]), TypeError, "x: got list"),
        (lambda: PLAN.prompt(FLAGS[:-2]), ValueError, "tokens: got 6 placeholders.* 7 visual"),
        (lambda: PLAN.prompt([], placeholder=IMAGE), ValueError, "tokens: got 0 placeholders"),
        (lambda: PLAN.prompt("ids"), TypeError, "tokens: got str"),
        (lambda: PLAN.prompt(marked(2, 7)), ValueError, r"tokens: got shape \(2, 7\)"),
        (lambda: PLAN.prompt([0.5]), TypeError, "tokens: got dtype torch.float32"),
        (lambda: PLAN.prompt(IDS), TypeError, "placeholder: got None"),
        (lambda: PLAN.prompt(IDS, placeholder=[]), TypeError, r"placeholder: got \[\]"),
        (lambda: PLAN.prompt(IDS, placeholder=1.0), TypeError, "placeholder: got 1.0"),
        (lambda: PLAN.prompt(FLAGS, placeholder=3), ValueError, "placeholder: got 3 with a mask"),
        (lambda: PLAN.prompt(FLAGS).gather(marked(8)), ValueError, r"x: got shape \(8,\).* 9 col"),
        (lambda: PLAN.prompt(FLAGS).rows(marked(9)), ValueError, r"x: got shape \(9,\)"),
        (lambda: PLAN.prompt(FLAGS).positions(FLAGS), TypeError, "positions: got list"),
        (lambda: PLAN.prompt(FLAGS).positions(torch.ones(9)), TypeError, "positions: got dtype"),
        (lambda: PLAN.prompt(FLAGS).positions(marked(8)), ValueError, r"positions: got shape \(8,"),
        (lambda: PLAN.prompt(FLAGS).positions(marked(4, 9)), ValueError, "positions: got shape"),
        (
            lambda: PLAN.prompt(FLAGS).positions(marked(9), "closed"),
            ValueError,
            "numbering: got 'closed'",
        ),
    ],
)
def test_bad_gathers_are_named(call, error, words):
    with pytest.raises(error, match=f"^{words}"):
        call()


def test_needs_torch_alone():
    code = (
        "import sys, mi_pruner_cuda.engine, mi_pruner_cuda.distributed;"
        "sys.exit('transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- the worked example ----

RATIO, NEW = 0.3, 5
PARTS = [22, 23, (4, 6), 40, 41, (7, 2), (3, 3), 42, 43]
QUESTION = [40, 41, 42]


@pytest.fixture(scope="module")
def model():
    return tiny_models.qwen()


def items_of(inputs, question):
    """The prompt's images as the engine's processor would hand them over."""
    patches = inputs["image_grid_thw"].prod(1).tolist()
    sizes = Prompt(PARTS).images
    return [
        Item(size, pixels, grid, question)
        for size, pixels, grid in zip(
            sizes, inputs["pixel_values"].split(patches), inputs["image_grid_thw"], strict=True
        )
    ]


@torch.no_grad()
def by_hand(model, inputs, columns, next_position, new_tokens):
    """Logits of the kept columns and the ids that follow, all anew for each, without a cache."""
    embeddings = tiny_oracle.merged_embeddings(model, inputs)[:, columns]
    positions = tiny_oracle.all_positions(model, inputs)[:, :, columns]
    found, first = [], None
    for _ in range(new_tokens):
        output = model.model.language_model(
            inputs_embeds=embeddings, position_ids=positions, use_cache=False
        )
        logits = model.lm_head(output.last_hidden_state)[0]
        first = logits if first is None else first
        found.append(int(logits[-1].argmax()))
        embeddings = torch.cat(
            [embeddings, model.get_input_embeddings()(torch.tensor([found[-1:]]))], dim=1
        )
        there = torch.full((3, 1, 1), next_position + len(found) - 1)
        positions = torch.cat([positions, there], dim=2)
    return first, found


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
@pytest.mark.parametrize("question", [QUESTION, None], ids=["question", "text-free"])
def test_as_vllm_equals_a_run_gathered_by_hand(model, chunk, question):
    prompt = Prompt(PARTS)
    inputs = inputs_for(model, [prompt])
    # The prompt without its BOS: the example's engine adds none.
    inputs = {k: v[:, 1:] if v.shape[0] == 1 and v.dim() == 2 else v for k, v in inputs.items()}
    redundancy = defaults.REDUNDANCY if question else 0.5
    if question:
        columns = tiny_oracle.kept_columns(
            model, inputs, [[h * w for h, w in prompt.images]], RATIO, query=question
        )[0]
    else:
        columns = text_free_columns(model, inputs, prompt, redundancy)
    everywhere = tiny_oracle.all_positions(model, inputs)[:, 0]
    next_position = int(everywhere.max()) + 1
    expected, ids = by_hand(model, inputs, columns, next_position, NEW)

    pruned = PrunedModel(model, RATIO, redundancy)
    logits, positions, generated = Runner(pruned, chunk).run(PARTS, items_of(inputs, question), NEW)
    assert positions.tolist() == everywhere[:, columns].tolist()
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
    assert generated == ids


def text_free_columns(model, inputs, prompt, redundancy):
    ids = inputs["input_ids"][0]
    embeddings = tiny_oracle.merged_embeddings(model, inputs)[0]
    kept = set((ids != IMAGE).nonzero()[:, 0].tolist())
    for columns in tiny_oracle.image_columns(ids, [h * w for h, w in prompt.images]):
        rows = embeddings[columns]
        chosen = mi_pruner_cuda.select(rows, rows[:0], RATIO, redundancy=redundancy).indices
        kept |= {columns[i] for i in chosen.tolist()}
    return sorted(kept)


def test_an_unpruned_prompt_cut_by_its_plan_is_the_same(model):
    """The other way round, for engines that merge first: Plan.prompt on the whole prompt."""
    prompt = Prompt(PARTS)
    inputs = inputs_for(model, [prompt])
    ids = inputs["input_ids"][0]
    embeddings = tiny_oracle.merged_embeddings(model, inputs)[0]
    everywhere = tiny_oracle.all_positions(model, inputs)[:, 0]
    sizes = [h * w for h, w in prompt.images]
    with torch.no_grad():
        text = model.get_input_embeddings()(torch.tensor(QUESTION))
        plan = engine.plan(embeddings[ids == IMAGE].split(sizes), text, RATIO)
        cut = plan.prompt(ids, placeholder=IMAGE)
        where = cut.positions(everywhere)
        output = model.model.language_model(
            inputs_embeds=cut.rows(embeddings)[None], position_ids=where.values[:, None]
        )
        logits = model.lm_head(output.last_hidden_state)[0]
    kept = tiny_oracle.kept_columns(model, inputs, [sizes], RATIO, query=QUESTION)[0]
    assert cut.columns.tolist() == kept
    next_position = int(everywhere.max()) + 1
    assert (where.next_position, where.delta) == (next_position, next_position - len(kept))
    expected, _ = by_hand(model, inputs, kept, next_position, 1)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    with attach(model, RATIO, query=QUESTION), torch.no_grad():
        attached = model(**inputs).logits[0]
    torch.testing.assert_close(attached, expected, rtol=0, atol=1e-5)


def test_positions_within_an_image_are_the_models_own(model):
    """What the example writes into the channels, against the unpruned prompt's positions."""
    for h, w in [(4, 6), (7, 2), (1, 1)]:
        inputs = inputs_for(model, [Prompt([(h, w), 30])])
        there = tiny_oracle.all_positions(model, inputs)[:, 0]
        visual = inputs["input_ids"][0] == IMAGE
        first = int(there[0, visual][0])
        *local, reach = image_positions(h, w)
        assert torch.equal(there[:, visual] - first, torch.stack(local))
        after = int(visual.nonzero()[-1, 0]) + 1
        assert there[:, after].tolist() == [first + int(reach[0])] * 3
