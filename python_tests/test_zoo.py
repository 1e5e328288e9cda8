"""The zoo's models run, and its ground truth of where visual tokens lie is true."""

from functools import cache

import pytest
import torch
from zoo import (
    FAMILIES,
    FIRST_WORD,
    Film,
    Picture,
    language_model_call,
    language_model_of,
    logits_of,
)
from zoo.prompt import IMAGE, VIDEO

torch.set_num_threads(1)  # these models are too small to share


@cache
def model_of(name: str):
    return FAMILIES[name].build()


@pytest.fixture(params=list(FAMILIES))
def family(request):
    return FAMILIES[request.param]


@pytest.fixture(params=[name for name in FAMILIES if FAMILIES[name].videos])
def video_family(request):
    return FAMILIES[request.param]


def picture_prompts(family) -> list[list]:
    """Text on both sides, two pictures, no picture, text before only, text after only."""
    first, second, third = map(family.picture, range(3))
    return [
        [30, first, 31, 32],
        [33, second, 34, third, 35],
        [36, 37],
        [38, 39, second],
        [third, 40],
    ]


def film_prompts(family) -> list[list]:
    """One film, a pair, none."""
    first, second = map(family.film, range(2))
    return [[50, first, 51], [52, second, 53, first, 54], [55, 56]]


def mixed_prompts(family) -> list[list]:
    """Pictures, and films before and after pictures where a batch may hold both."""
    prompts = picture_prompts(family)
    if family.videos and family.mixes:
        picture, one, other = family.picture(1), family.film(0), family.film(1)
        prompts += [[60, one, 61, picture, 62], [63, picture, 64, other, 65], [one, 66]]
    return prompts


def batches(family) -> list[list[list]]:
    """Batches that the family's class can take."""
    apart = family.videos and not family.mixes
    return [mixed_prompts(family)] + ([film_prompts(family)] if apart else [])


@torch.no_grad()
def logits(model, inputs) -> torch.Tensor:
    return model(**inputs).logits


def changed_columns(model, before: dict, after: dict) -> list[list[int]]:
    """[item, column] where the language model is given something else."""
    one, two = (language_model_call(model, inputs) for inputs in (before, after))
    different = (one["inputs_embeds"] - two["inputs_embeds"]).abs().amax(-1) > 1e-6
    return different.nonzero().tolist()


def of_pixels(item: int, visual) -> list[list[int]]:
    """[item, column] of a visual's tokens that come from its pixels."""
    return [[item, c] for i, c in enumerate(visual.columns) if i not in visual.breaks]


def block_rows(visual, block) -> list[list[int]]:
    """Indices into columns, a list for each row of a block."""
    first, h, w = block
    stride = w + (first + w in visual.breaks)
    return [list(range(first + r * stride, first + r * stride + w)) for r in range(h)]


def test_families_are_those_of_the_table():
    names = (
        "llava llava_pixtral llava_next llava_onevision video_llava llava_next_video qwen2_vl "
        "qwen2_5_vl qwen3_vl qwen3_vl_moe internvl idefics3 smolvlm gemma3 paligemma paligemma2 "
        "mistral3 glm4v aya_vision"
    )
    assert " ".join(FAMILIES) == names
    assert all(model_of(name).config.model_type == f.model_type for name, f in FAMILIES.items())


def test_visuals_are_all_the_placeholders_in_prompt_order(family):
    model = model_of(family.name)
    for prompts in batches(family):
        inputs = family.inputs(model, prompts)
        ids = inputs["input_ids"]
        expected = ((ids == IMAGE) | (ids == VIDEO)).nonzero().tolist()
        visuals = family.visuals(prompts, inputs)
        assert [[b, c] for b, own in enumerate(visuals) for v in own for c in v.columns] == expected
        kinds = [[v.kind for v in own] for own in visuals]
        assert kinds == [
            ["video" if isinstance(p, Film) else "image" for p in prompt if not isinstance(p, int)]
            for prompt in prompts
        ]
        assert logits(model, inputs).isfinite().all()


def test_pixels_of_a_visual_change_its_columns_and_no_others(family):
    model = model_of(family.name)
    for prompts in batches(family):
        inputs = family.inputs(model, prompts)
        for item, own in enumerate(family.visuals(prompts, inputs)):
            for place, visual in enumerate(own):
                other = family.inputs(model, prompts, repaint=(item, place))
                changed = changed_columns(model, inputs, other)
                assert changed == of_pixels(item, visual), (item, place)


def test_columns_hold_no_embedding_of_the_vocabulary(family):
    model = model_of(family.name)
    for prompts in batches(family):
        inputs = family.inputs(model, prompts)
        given = language_model_call(model, inputs)["inputs_embeds"]
        words = model.get_input_embeddings()(inputs["input_ids"])
        differs = (given - words).abs().amax(-1) > 1e-3
        visuals = family.visuals(prompts, inputs)
        expected = [[b, c] for b, own in enumerate(visuals) for v in own for c in v.columns]
        assert differs.nonzero().tolist() == expected


def test_breaks_are_the_learned_newline_and_nothing_else_is(family):
    model = model_of(family.name)
    prompts = mixed_prompts(family)
    inputs = family.inputs(model, prompts)
    given = language_model_call(model, inputs)["inputs_embeds"]
    newline = getattr(model.model, "image_newline", None)
    visuals = family.visuals(prompts, inputs)
    breaks = [[b, v.columns[i]] for b, own in enumerate(visuals) for v in own for i in v.breaks]
    if newline is None:
        assert breaks == []
    else:
        assert breaks == (given == newline).all(-1).nonzero().tolist() != []


def test_blocks_cover_each_token_once(family):
    model = model_of(family.name)
    for prompts in batches(family):
        for own in family.visuals(prompts, family.inputs(model, prompts)):
            for v in own:
                covered = [i for b in v.blocks for row in block_rows(v, b) for i in row]
                assert covered == [i for i in range(len(v.columns)) if i not in v.breaks]


def test_a_grid_is_all_blocks_one_after_the_other(family):
    for prompts in batches(family):
        for own in family.visuals(prompts, family.inputs(model_of(family.name), prompts)):
            for v in own:
                if v.grid is not None:
                    frames, h, w = v.grid if len(v.grid) == 3 else (1, *v.grid)
                    assert v.blocks == [(f * h * w, h, w) for f in range(frames)]


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "glm4v"])
def test_blocks_are_the_grids_of_the_rotary_positions(name):
    family, model = FAMILIES[name], model_of(name)
    for prompts in batches(family):
        inputs = family.inputs(model, prompts)
        positions = language_model_call(model, inputs)["position_ids"]
        for item, own in enumerate(family.visuals(prompts, inputs)):
            for v in own:
                for block in v.blocks:
                    first, h, w = block
                    rows, columns = positions[1:, item, v.columns[first : first + h * w]]
                    assert (rows - rows[0]).tolist() == [r for r in range(h) for _ in range(w)]
                    assert (columns - columns[0]).tolist() == list(range(w)) * h


@pytest.mark.parametrize("name", ["llava_pixtral", "mistral3"])
def test_row_breaks_in_the_text_end_the_rows_of_a_block(name):
    family = FAMILIES[name]
    prompts = mixed_prompts(family)
    inputs = family.inputs(model_of(name), prompts)
    for own in family.visuals(prompts, inputs):
        for v in own:
            starts = [c for c in v.columns if c - 1 not in v.columns]
            rows = block_rows(v, v.blocks[0])
            assert starts == [v.columns[row[0]] for row in rows]


@pytest.mark.parametrize("name", ["internvl", "idefics3", "smolvlm", "aya_vision"])
def test_each_view_is_the_block_of_its_number(name):
    family, model = FAMILIES[name], model_of(name)
    prompts = [[30, family.picture(0), 31]]
    inputs = family.inputs(model, prompts)
    (visual,) = family.visuals(prompts, inputs)[0]
    assert len(visual.blocks) == 3  # two tiles, the whole
    for number, block in enumerate(visual.blocks):
        pixels = inputs["pixel_values"].clone()
        view = pixels[0, number] if pixels.dim() == 5 else pixels[number]
        view += 1
        changed = changed_columns(model, inputs, inputs | {"pixel_values": pixels})
        own = [i for row in block_rows(visual, block) for i in row]
        assert changed == [[0, visual.columns[i]] for i in own]


@pytest.mark.parametrize("name", ["llava_next", "llava_next_video"])
@pytest.mark.parametrize("i", range(3))
def test_each_tile_is_its_part_of_the_rows(name, i):
    family, model = FAMILIES[name], model_of(name)
    picture = family.picture(i)
    rows, columns = -(-picture.height // 16), -(-picture.width // 16)
    prompts = [[30, picture, 31]]
    inputs = family.inputs(model, prompts)
    (visual,) = family.visuals(prompts, inputs)[0]
    base, block = visual.blocks
    _, h, w = block
    grid = block_rows(visual, block)
    for number in range(1 + rows * columns):
        pixels = inputs["pixel_values"].clone()
        pixels[0, number] += 1
        changed = changed_columns(model, inputs, inputs | {"pixel_values": pixels})
        if number == 0:
            own = list(range(16))
            assert base == (0, 4, 4)
        else:
            tile_row, tile_column = divmod(number - 1, columns)
            down = range(tile_row * h // rows, (tile_row + 1) * h // rows)
            across = range(tile_column * w // columns, (tile_column + 1) * w // columns)
            own = [grid[r][c] for r in down for c in across]
        assert changed == [[0, visual.columns[j]] for j in own]


def test_each_frame_is_the_block_of_its_number(video_family):
    family, model = video_family, model_of(video_family.name)
    prompts = [[50, family.film(0), 51]]
    inputs = family.inputs(model, prompts)
    (visual,) = family.visuals(prompts, inputs)[0]
    name = "pixel_values_videos" if "pixel_values_videos" in inputs else "pixel_values"
    pixels = inputs[name]
    if pixels.dim() == 5:
        pixels = pixels[0]  # (frames, ..)
    frames = pixels.chunk(visual.grid[0] if visual.grid else len(pixels))
    blocks = visual.blocks if visual.grid else visual.blocks[1::2]  # without class tokens
    assert len(frames) == len(blocks) > 1
    for number, block in enumerate(blocks):
        after = inputs | {name: inputs[name].clone()}
        part = after[name][0] if after[name].dim() == 5 else after[name]
        part.chunk(len(frames))[number].add_(1)
        changed = changed_columns(model, inputs, after)
        first = block[0] - (visual.grid is None)
        own = range(first, block[0] + block[1] * block[2])
        assert set(map(tuple, changed)) <= {(0, visual.columns[i]) for i in own}
        assert len(changed) >= block[1] * block[2]


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen3_vl_moe"])
def test_deepstack_planes_follow_the_columns(name):
    family, model = FAMILIES[name], model_of(name)
    prompts = mixed_prompts(family)
    inputs = family.inputs(model, prompts)
    call = language_model_call(model, inputs)
    visuals = family.visuals(prompts, inputs)
    columns = [[b, c] for b, own in enumerate(visuals) for v in own for c in v.columns]
    assert call["visual_pos_masks"].nonzero().tolist() == columns
    assert [len(plane) for plane in call["deepstack_visual_embeds"]] == [len(columns)] * 2


def test_gemma3_has_windows_and_sees_an_image_in_both_directions():
    family, model = FAMILIES["gemma3"], model_of("gemma3")
    prompts = [[30, 31, 32, family.picture(0), 33]]
    inputs = family.inputs(model, prompts)
    masks = language_model_call(model, inputs)["attention_mask"]
    whole, window = (masks[kind][0, 0] for kind in ("full_attention", "sliding_attention"))
    first, *_, last = family.visuals(prompts, inputs)[0][0].columns
    assert whole[first, last] and not whole[first, last + 1]
    assert whole[-1, 0] and not window[-1, 0]


def test_paligemma_sees_the_whole_prompt_in_both_directions():
    family, model = FAMILIES["paligemma"], model_of("paligemma")
    inputs = family.inputs(model, [[30, family.picture(0), 31]])
    assert language_model_call(model, inputs)["attention_mask"].all()


def test_glm4v_refuses_pictures_and_films_in_one_batch():
    family, model = FAMILIES["glm4v"], model_of("glm4v")
    inputs = family.inputs(model, [[30, family.picture(0)], [31, family.film(0)]])
    with pytest.raises(ValueError, match="tokens do not match"):
        model(**inputs)


def test_logits_come_from_the_language_models_output(family):
    model, outputs = model_of(family.name), []
    inputs = family.inputs(model, mixed_prompts(family))
    hook = language_model_of(model).register_forward_hook(lambda *call: outputs.append(call[-1]))
    expected = logits(model, inputs)
    hook.remove()
    with torch.no_grad():
        assert torch.equal(logits_of(model, outputs[0].last_hidden_state), expected)


def test_an_item_alone_is_as_in_a_batch(family):
    model = model_of(family.name)
    for prompts in batches(family):
        together = logits(model, family.inputs(model, prompts))
        for row, prompt in zip(together, prompts, strict=True):
            (alone,) = logits(model, family.inputs(model, [prompt]))
            torch.testing.assert_close(row[-len(alone) :], alone, rtol=0, atol=1e-5)


def test_attention_implementations_agree(family):
    prompts = batches(family)[-1]
    inputs = family.inputs(model_of(family.name), prompts)
    real = inputs["attention_mask"].bool()
    expected = logits(model_of(family.name), inputs)[real]
    for attention in family.attentions[1:]:
        other = logits(family.build(attention), inputs)[real]
        torch.testing.assert_close(other, expected, rtol=0, atol=1e-4)


def test_generate_goes_on_from_the_forward(family):
    model = model_of(family.name)
    for prompts in batches(family):
        inputs = family.inputs(model, prompts)
        best = logits(model, inputs)[:, -1, FIRST_WORD:].argmax(-1) + FIRST_WORD
        output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        length = inputs["input_ids"].shape[1]
        assert output.shape == (len(prompts), length + 4)
        assert torch.equal(output[:, length], best)


def test_pictures_come_in_several_sizes_where_the_class_allows():
    fixed = {"llava", "video_llava", "gemma3", "paligemma", "paligemma2"}
    for name, family in FAMILIES.items():
        sizes = {family.picture(i) for i in range(3)}
        assert all(isinstance(size, Picture) for size in sizes)
        assert len(sizes) == (1 if name in fixed else 3)
