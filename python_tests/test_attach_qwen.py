"""attach on Qwen2.5-VL: (t, h, w) positions, images of different sizes, rope deltas, video."""

import pytest
import tiny_oracle
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import VIDEO, VISION_END, VISION_START, Prompt, inputs_for, qwen

from mi_pruner_cuda import attach, keep_count

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model():
    return qwen()


@torch.no_grad()
def logits(model, inputs, **options):
    return model(**inputs, **options).logits


def language_model_inputs(model, call):
    """What the language model is given in each step of call()."""
    seen = []

    def spy(module, args, kwargs):
        seen.append({k: v for k, v in kwargs.items() if isinstance(v, torch.Tensor)})

    handle = model.model.language_model.register_forward_pre_hook(spy, with_kwargs=True)
    try:
        call()
    finally:
        handle.remove()
    return seen


def test_images_of_different_sizes(model):
    prompts = [Prompt([20, (2, 3), 30, (5, 2), 31]), Prompt([21, (4, 6), 40, 41])]
    inputs = inputs_for(model, prompts)
    sizes = [[6, 10], [24]]
    kept = tiny_oracle.kept_columns(model, inputs, sizes, 0.25)
    with torch.no_grad():
        expected = tiny_oracle.pruned_logits(model, inputs, kept)
    with attach(model, keep=0.25) as pruner:
        got = logits(model, inputs)
        report = pruner.report
        for row, logit in zip(expected, got, strict=True):
            torch.testing.assert_close(logit[-len(row) :], row, rtol=0, atol=1e-5)
        model.generate(**inputs, max_new_tokens=1)  # where transformers 5 hides the grids
    for r in (report, pruner.report):
        assert [(x.item, x.image, x.grid) for x in r] == [
            (0, 0, (1, 2, 3)), (0, 1, (1, 5, 2)), (1, 0, (1, 4, 6)),
        ]  # fmt: skip
        assert [x.tokens_after for x in r] == [keep_count(n, 0.25) for n in (6, 10, 24)]


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3),
    words=st.lists(st.integers(7, 95), min_size=1, max_size=4),
    ratio=st.floats(0.05, 0.95),
)
def test_kept_tokens_keep_their_positions(model, sizes, words, ratio):
    """Physical columns have the (t, h, w) of their logical ones; so has the text after them."""
    inputs = inputs_for(model, [Prompt([*words, *sizes, *words])])
    with attach(model, keep=ratio) as pruner:
        first, second = language_model_inputs(
            model, lambda: model.generate(**inputs, max_new_tokens=2, do_sample=False)
        )
    positions = tiny_oracle.all_positions(model, inputs)
    images = tiny_oracle.image_columns(inputs["input_ids"][0], [h * w for h, w in sizes])
    kept = set(range(inputs["input_ids"].shape[1])) - {c for image in images for c in image}
    for report, columns in zip(pruner.report, images, strict=True):
        kept |= {columns[i] for i in report.indices.tolist()}
        assert report.grid == (1, *sizes[report.image])
    assert torch.equal(first["position_ids"][-3:], positions[..., sorted(kept)])
    assert first["position_ids"][0, 0].tolist() == list(range(len(kept)))  # the packing plane
    following = int(positions.max()) + 1
    assert torch.equal(second["position_ids"][-3:], torch.full((3, 1, 1), following))


def test_renumbering_closes_the_grid(model):
    """Relative order stays, unused rows and columns go, text after the image moves up."""
    inputs = inputs_for(model, [Prompt([20, (4, 4), 30, 31])])
    with attach(model, keep=2, positions="renumbered") as pruner:
        first, second = language_model_inputs(
            model, lambda: model.generate(**inputs, max_new_tokens=2, do_sample=False)
        )
    rows, columns = zip(*[divmod(i, 4) for i in pruner.report[0].indices.tolist()], strict=True)
    # bos, 20, vision start: 0, 1, 2; the grid starts at 3 and t is 3 for all its tokens.
    values = sorted({0, *rows, *columns})
    t, h, w = first["position_ids"][-3:, 0].tolist()
    assert t[3:5] == [3, 3]
    assert h[3:5] == [3 + values.index(r) for r in rows]
    assert w[3:5] == [3 + values.index(c) for c in columns]
    after = 3 + len(values)
    for axis in (t, h, w):
        assert axis[:3] == [0, 1, 2] and axis[5:] == [after, after + 1, after + 2]
    assert second["position_ids"][-3:].flatten().tolist() == [after + 3] * 3


def test_a_text_prompt_after_a_pruned_one(model):
    """rope_deltas live on the model: those of a pruned call must not leak into the next."""
    picture, text = (
        inputs_for(model, [Prompt([20, (4, 4), 30])]),
        inputs_for(model, [Prompt([50, 51])]),
    )
    expected = model.generate(**text, max_new_tokens=4, do_sample=False)
    with attach(model, keep=0.25):
        model.generate(**picture, max_new_tokens=4, do_sample=False)
        assert torch.equal(model.generate(**text, max_new_tokens=4, do_sample=False), expected)
    deltas = model.model.rope_deltas
    model.generate(**picture, max_new_tokens=4, do_sample=False)
    with attach(model, keep=0.25):
        model.generate(**picture, max_new_tokens=4, do_sample=False)
    assert not torch.equal(model.model.rope_deltas, deltas)


def test_video_beside_an_image(model):
    """An exact count is each image's and each frame's; both answer the same question."""
    inputs = inputs_for(model, [Prompt([20, (2, 2), 30, 31])])
    video = torch.tensor([[VISION_START, *[VIDEO] * 8, VISION_END, 32]])
    ids = torch.cat([inputs["input_ids"], video], 1)
    inputs |= {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values_videos": torch.randn(32, 48, generator=torch.Generator().manual_seed(0)),
        "video_grid_thw": torch.tensor([[2, 4, 4]]),
        "mm_token_type_ids": (ids == 3).int() + 2 * (ids == VIDEO).int(),
    }
    whole = logits(model, inputs)
    with attach(model, keep=3) as pruner:
        pruned = logits(model, inputs)
    assert pruned.shape[1] == whole.shape[1] - 1 - 2
    image, film = pruner.report
    assert (image.kind, image.grid, image.tokens_after) == ("image", (1, 2, 2), 3)
    assert (film.kind, film.grid, film.tokens_after) == ("video", (2, 2, 2), 6)
    assert image.query == film.query == [20, 30, 31, 32]
    assert str(film).startswith("item 0, video 0: 8 (2 x 2 x 2) -> 6 tokens in ")
