"""Layouts, pools, masks and planes on made-up calls: every token once, in its place."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mi_pruner_cuda import Mass
from mi_pruner_cuda.huggingface import layout, masks
from mi_pruner_cuda.huggingface.call import Call
from mi_pruner_cuda.huggingface.choose import Options, choose, pools, represent
from mi_pruner_cuda.huggingface.columns import kept_columns, split_mask
from mi_pruner_cuda.huggingface.layout import Scene, Shape
from mi_pruner_cuda.huggingface.layout.frames import frames_of_grid, square_frames
from mi_pruner_cuda.huggingface.planes import cut_planes
from mi_pruner_cuda.huggingface.report import Report
from mi_pruner_cuda.huggingface.visuals import Visual, deal, find_visuals, placeholders
from mi_pruner_cuda.huggingface.words import speaks_for

torch.set_num_threads(1)

WIDTH = 3
SIDE = 2  # patches along a side of an overview
WORD, FILM = 30, 2
I = 1  # noqa: E741  an image's placeholder
MARK, WHOLE, FRAME, LINE = range(10, 14)  # before a tile, before an overview, around both, line end


def scene_of(rows: list[list[int]], breaks=(), positions=None, **inputs) -> Scene:
    """rows: ids; breaks: (item, column) that hold the learned row break, else noise."""
    ids = torch.tensor(rows)
    embeddings = torch.randn(*ids.shape, WIDTH, generator=torch.Generator().manual_seed(0))
    newline = torch.full((WIDTH,), 7.0)
    for item, column in breaks:
        embeddings[item, column] = newline
    config = SimpleNamespace(vision_config=SimpleNamespace(image_size=8, patch_size=8 // SIDE))
    base = SimpleNamespace(image_newline=newline)
    return Scene(Call(ids, inputs), config, base, embeddings, positions)


def shapes_of(lay, scene: Scene, kind: str = "image") -> list[Shape]:
    return lay(scene, kind, scene.call.input_ids == I)


def encoded(*counts: int) -> dict:
    """What generate of transformers 5 hands over: rows of each image, encoded."""
    output = SimpleNamespace(pooler_output=[torch.zeros(n, WIDTH) for n in counts])
    return {"mm_encoder_outputs": {"image": output}}


def tokens_of(part) -> list[int]:
    return part.tokens.flatten().tolist()


def area(box) -> float:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


# ---- runs, and tokens that are dealt out ----


@given(st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=3))
def test_runs(rows):
    expected = []
    for item, row in enumerate(rows):
        for value, group in itertools.groupby(range(len(row)), key=row.__getitem__):
            columns = list(group)
            if value:
                expected.append((item, columns[0], columns[-1] + 1, len(columns)))
    found = layout.runs_of(torch.tensor(rows))
    assert [(r.item, r.start, r.stop, len(r)) for r in found] == expected


@given(st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=3), st.data())
def test_deal_gives_every_placeholder_to_one_visual(items, data):
    """items: of each row, how many tokens each of its images has."""
    visual = torch.zeros(len(items), 20, dtype=torch.bool)
    for row, sizes in zip(visual, items, strict=True):
        row[data.draw(st.permutations(range(20)))[: sum(sizes)]] = True
    dealt = deal("image", visual, [Shape(n) for sizes in items for n in sizes])
    for item, sizes in enumerate(items):
        own = [v for v in dealt if v.item == item]
        assert [len(v.columns) for v in own] == [n for n in sizes if n]
        assert [v.number for v in own] == list(range(len(own)))
        columns = [c for v in own for c in v.columns.tolist()]
        assert columns == visual[item].nonzero()[:, 0].tolist()


@pytest.mark.parametrize(
    ("sizes", "match"),
    [([2], "3 placeholders and its 1 images have 2"), ([4], "have 4"), ([1, 2], "crosses")],
)
def test_deal_refuses(sizes, match):
    visual = torch.tensor([[False, True, True], [True, False, False]])
    with pytest.raises(ValueError, match=match):
        deal("image", visual, [Shape(n) for n in sizes])


def parts_of(video_token, one_placeholder=False):
    spec = SimpleNamespace(images=layout.runs, videos=layout.runs, one_placeholder=one_placeholder)
    return SimpleNamespace(image_token=I, video_token=video_token, spec=spec, known=True)


def test_visuals_come_item_by_item_in_the_order_of_the_prompt():
    scene = scene_of(
        [[FILM, FILM, WORD, I, WORD, FILM], [I, WORD, FILM, WORD, I, I]],
        pixel_values=torch.zeros(1), pixel_values_videos=torch.zeros(1),
    )  # fmt: skip
    found = [(v.item, v.kind, v.number) for v in find_visuals(scene, parts_of(FILM))]
    assert found == [
        (0, "video", 0), (0, "image", 0), (0, "video", 1),
        (1, "image", 0), (1, "video", 0), (1, "image", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pixels", "kind"), [("pixel_values", "image"), ("pixel_values_videos", "video")]
)
def test_one_placeholder_stands_for_what_comes_with_the_call(pixels, kind):
    call = scene_of([[WORD, I]], **{pixels: torch.zeros(1)}).call
    found = placeholders(call, parts_of(None, one_placeholder=True))
    assert {k: v.tolist() for k, v in found.items()} == {kind: [[False, True]]}
    assert list(placeholders(call, parts_of(None))) == ["image"]


# ---- tiles ----


def test_counts_need_pixels_that_divide_the_placeholders():
    scene = scene_of([[I] * 5], pixel_values=torch.zeros(2, 1))
    assert scene.counts("image", 5) is None
    assert scene.counts("image", 6) == [3, 3]
    assert scene_of([[I] * 5], **encoded(2, 3)).counts("image", 5) == [2, 3]


def test_tiles_in_a_row_that_do_not_fill_the_run():
    """Two pictures of six and two tokens, tiles of four: no layout, and deal refuses."""
    row = [I] * 6 + [WORD] + [I] * 2
    assert shapes_of(layout.tiles_in_a_row, scene_of([row], pixel_values=torch.zeros(2, 1))) == []


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=3))
def test_tiles_in_rows_lie_where_their_marks_say(pictures):
    """pictures: (rows, columns) of tiles; 1 x 1 stands for a picture that is whole."""
    ids = [WORD]
    for rows, columns in pictures:
        if rows * columns > 1:
            for _ in range(rows):
                ids += [FRAME, MARK, *[I] * SIDE**2] * columns + [LINE]
        ids += [FRAME, WHOLE, *[I] * SIDE**2, FRAME, WORD]
    found = shapes_of(layout.tiles_in_rows, scene_of([ids]))
    assert len(found) == len(pictures)
    for shape, (rows, columns) in zip(found, pictures, strict=True):
        tiles = rows * columns if rows * columns > 1 else 0
        assert shape.tokens == (tiles + 1) * SIDE**2
        assert [t for part in shape.parts for t in tokens_of(part)] == list(range(shape.tokens))
        if not tiles:
            assert shape.grid == (SIDE, SIDE)
            assert not shape.blocks and shape.parts[0].name == ""
            continue
        *crops, overview = shape.parts
        assert (overview.name, overview.box) == ("overview", (0.0, 0.0, 1.0, 1.0))
        assert [b.start for b in shape.blocks] == [p.first for p in shape.parts]
        for i, crop in enumerate(crops):
            y, x = divmod(i, columns)
            assert crop.name == f"crop {y + 1}, {x + 1}"
            box = (x / columns, y / rows, (x + 1) / columns, (y + 1) / rows)
            assert crop.box == pytest.approx(box)
        assert sum(area(crop.box) for crop in crops) == pytest.approx(1)


def test_tiles_that_are_no_grid_have_no_place():
    """Two beside each other and one below: only the overview is drawn."""
    one = [I] * SIDE**2
    tile = [FRAME, MARK, *one]
    ids = [*tile, *tile, LINE, *tile, LINE, FRAME, WHOLE, *one, FRAME]
    (shape,) = shapes_of(layout.tiles_in_rows, scene_of([ids]))
    assert [part.name for part in shape.parts] == ["overview"]
    assert len(shape.blocks) == 4


# ---- rows ----


@given(
    st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=3),
    st.booleans(),
)
def test_rows_by_break(pictures, at_the_end):
    """pictures: the lengths of their rows; the last end mark may be what the prompt ends with."""
    ids = [WORD]
    for lengths in pictures:
        for n in lengths:
            ids += [I] * n + [LINE]
        ids[-1] = FRAME
    found = shapes_of(layout.rows_by_break, scene_of([ids if at_the_end else [*ids, WORD]]))
    assert [shape.tokens for shape in found] == [sum(lengths) for lengths in pictures]
    for shape, lengths in zip(found, pictures, strict=True):
        even = len(set(lengths)) == 1
        assert shape.grid == ((len(lengths), lengths[0]) if even else None)
        assert len(shape.parts) == even


def test_rows_that_end_with_the_prompt():
    """Nothing behind the last row: still one picture."""
    (shape,) = shapes_of(layout.rows_by_break, scene_of([[WORD, I, I, LINE, I, I]]))
    assert shape.grid == (2, 2)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)) | st.none(), min_size=1, max_size=3)
)
def test_any_resolution_next_to_each_other(pictures):
    """pictures: (h, w) of the detail, None where only a break follows the overview."""
    overview = SIDE * SIDE
    ids, broken, expected = [WORD], [], []
    for detail in pictures:
        h, w = detail or (1, 0)
        own = [overview + row * (w + 1) + w for row in range(h)]
        tokens = overview + h * (w + 1)
        broken += [(0, len(ids) + b) for b in own]
        ids += [I] * tokens
        expected.append((tokens, own, detail))
    found = shapes_of(layout.any_resolution, scene_of([ids], broken))
    assert [(s.tokens, list(s.breaks)) for s in found] == [e[:2] for e in expected]
    for shape, (tokens, own, detail) in zip(found, expected, strict=True):
        assert [p.grid for p in shape.parts] == [(SIDE, SIDE), *([detail] if detail else [])]
        shown = [t for part in shape.parts for t in tokens_of(part)]
        assert shown == [t for t in range(tokens) if t not in own]


def test_any_resolution_without_breaks():
    with pytest.raises(ValueError, match="images: 6 tokens from column 0 of item 0 are no picture"):
        shapes_of(layout.any_resolution, scene_of([[I] * 6]))
    with pytest.raises(ValueError, match="are no picture"):
        shapes_of(layout.any_resolution, scene_of([[I] * 6], [(0, 3)]))  # too early


# ---- grids ----


def rotary(rows: list[list], planes: int) -> tuple[list[list[int]], torch.Tensor]:
    """Ids, and positions (planes, B, L) as models of three axes number them.

    rows: words, and visuals (t, h, w, whether text stands between its frames).
    """
    ids, positions = [], []
    for row in rows:
        own, where, start = [], [], 0
        for piece in row:
            if isinstance(piece, int):
                own.append(piece)
                where.append((start,) * 3)
                start += 1
                continue
            t, h, w, apart = piece
            for frame in range(t):
                time = 0 if apart else frame
                own += [I] * (h * w)
                where += [(start + time, start + y, start + x) for y in range(h) for x in range(w)]
                if apart:
                    start += max(h, w)
                    own.append(LINE)
                    where.append((start,) * 3)
                    start += 1
            start += 0 if apart else max(t, h, w)
        ids.append(own)
        positions.append(where)
    length = max(map(len, ids))
    ids = [[0] * (length - len(own)) + own for own in ids]
    positions = [[(1, 1, 1)] * (length - len(own)) + own for own in positions]
    three = torch.tensor(positions).permute(2, 0, 1)
    count = torch.arange(length).expand(1, len(rows), -1)
    return ids, torch.cat([count, three]) if planes == 4 else three


SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.booleans())


@given(st.lists(SIZES, min_size=1, max_size=3), st.sampled_from([3, 4]))
def test_grids_are_read_off_the_positions(sizes, planes):
    """The second item of two: its grid_thw has been used up."""
    row = [piece for size in sizes for piece in (WORD, size)]
    ids, positions = rotary([[WORD], [*row, WORD]], planes)
    scene = scene_of(ids, positions=positions, **encoded(*(t * h * w for t, h, w, _ in sizes)))
    found = shapes_of(layout.grids, scene)
    assert [shape.grid for shape in found] == [(t, h, w) for t, h, w, _ in sizes]
    stated = torch.tensor([(t, 2 * h, 2 * w) for t, h, w, _ in sizes])
    scene = scene_of(ids, positions=positions, image_grid_thw=stated)
    scene.config.vision_config.spatial_merge_size = 2
    assert shapes_of(layout.grids, scene) == found


def test_a_stated_grid_is_not_read_where_the_images_are_encoded():
    """Beams may have repeated it in another order."""
    ids, positions = rotary([[WORD, (1, 2, 3, False), WORD, (1, 1, 2, False)]], 3)
    stated = torch.tensor([(1, 1, 2), (1, 2, 3)])
    scene = scene_of(ids, positions=positions, image_grid_thw=stated, **encoded(6, 2))
    scene.config.vision_config.spatial_merge_size = 1
    assert [s.grid for s in shapes_of(layout.grids, scene)] == [(1, 2, 3), (1, 1, 2)]


@pytest.mark.parametrize("first", [0, 1])
def test_frames_are_numbered(first):
    """first: rows of each frame before its patches."""
    shape = square_frames(3 * (4 + first), 2, first)
    assert [(p.frame, p.name) for p in shape.parts] == [(i, f"frame {i}") for i in range(3)]
    assert [tokens_of(p) for p in shape.parts] == [list(block)[first:] for block in shape.blocks]
    assert square_frames(3 * (4 + first) + 1, 2, first).parts == ()
    shape = frames_of_grid((3, 1, 2))
    assert [(p.frame, p.name) for p in shape.parts] == [(i, f"frame {i}") for i in range(3)]
    assert [tokens_of(p) for p in shape.parts] == [list(block) for block in shape.blocks]
    assert frames_of_grid((1, 1, 2)).blocks == () and frames_of_grid((1, 1, 2)).parts[0].name == ""


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_films_next_to_each_other_end_with_a_break(frames):
    """frames: of each film; half an overview's side is one token, so a frame is one."""
    ids, broken = [WORD], []
    for n in frames:
        broken.append((0, len(ids) + n))
        ids += [I] * (n + 1)
    found = shapes_of(layout.frames_and_a_break, scene_of([ids], broken))
    assert [(s.tokens, s.grid, s.breaks) for s in found] == [
        (n + 1, (n, 1, 1), (n,)) for n in frames
    ]
    for shape, n in zip(found, frames, strict=True):
        assert [list(b) for b in shape.blocks] == [[i] for i in range(n)]
        assert [tokens_of(p) for p in shape.parts] == [[i] for i in range(n)]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_films_of_pooled_frames(frames):
    """No mark between films: what the encoder returned tells them apart."""
    scene = scene_of([[WORD] + [I] * sum(frames)], **encoded(*frames))
    scene.config.spatial_pool_stride = SIDE
    found = shapes_of(layout.even_frames, scene)
    assert [(s.tokens, s.grid, len(s.blocks)) for s in found] == [(n, (n, 1, 1), n) for n in frames]


# ---- who shares a budget ----


@st.composite
def visual(draw):
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    tokens = sum(sizes)
    ends = list(itertools.accumulate(sizes, initial=0))
    blocks = tuple(itertools.starmap(range, itertools.pairwise(ends)))
    breaks = draw(st.sets(st.integers(0, tokens - 1), max_size=tokens - 1))
    shape = Shape(tokens, None, (), blocks if len(blocks) > 1 else (), tuple(sorted(breaks)))
    return Visual(0, 0, draw(st.sampled_from(["image", "video"])), torch.arange(tokens), shape)


@given(
    st.lists(visual(), min_size=1, max_size=3),
    st.sampled_from(["per-image", "per-crop", "pooled"]),
    st.sampled_from(["per-frame", "per-video"]),
)
def test_pools_hold_every_token_once(own, budget, video_budget):
    options = SimpleNamespace(budget=budget, video_budget=video_budget)
    found = pools(own, options)
    for v in own:
        content = [i for i in range(v.shape.tokens) if i not in v.shape.breaks]
        blocks = [[i for i in b if i in content] for b in v.shape.blocks or [range(v.shape.tokens)]]
        blocks = [b for b in blocks if b]
        held = [(p, t.tolist()) for p in found for member, t in p.members if member is v]
        apart = budget == "per-crop" if v.kind == "image" else video_budget == "per-frame"
        assert [tokens for _, tokens in held] == (blocks if apart else [content])
        alone = all(len(p.members) == 1 for p, _ in held)
        assert alone or (budget == "pooled" and v.kind == "image")
        groups = [[held[0][1][i] for i in g] for g in held[0][0].at_least_one]
        assert groups == (blocks if v.kind == "video" and not apart else [])
    if budget == "pooled":
        assert sum(any(m.kind == "image" for m, _ in p.members) for p in found) <= 1


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=4), min_size=1, max_size=4), st.data())
def test_every_group_gets_its_best_for_the_worst_that_can_go(groups, data):
    flat = [b for group in groups for b in group]
    scores = data.draw(st.permutations(range(len(flat))))
    ends = list(itertools.accumulate(map(len, groups), initial=0))
    places = list(itertools.starmap(range, itertools.pairwise(ends)))
    expected = list(flat)
    for own in [p for p in places if not any(flat[i] for i in p)]:
        spare = [i for p in places if sum(expected[j] for j in p) > 1 for i in p if expected[i]]
        expected[max(own, key=scores.__getitem__)] = True
        if spare:
            expected[min(spare, key=scores.__getitem__)] = False
    chosen = torch.tensor(flat)
    represent(chosen, torch.tensor(scores, dtype=torch.float32), places)
    assert chosen.tolist() == expected
    assert all(any(expected[i] for i in p) for p in places)
    assert sum(expected) == max(sum(flat), len(places))


def chosen_of(own: list[Visual], ids: list[int], **options) -> Report:
    """What choose reports of one item whose visuals lie one after the other."""
    length = sum(len(v.columns) for v in own)
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(8, WIDTH, generator=generator)
    wanted = Options(
        **{
            "keep": 0.5, "redundancy": 0.0, "temperature": 0.1, "estimator": "specific",
            "positions": "original", "budget": "per-image", "video_budget": "per-frame",
            "min_tokens": 0, **options,
        }
    )  # fmt: skip
    _, report = choose(
        own,
        torch.randn(1, length, WIDTH, generator=generator),
        torch.zeros(1, length, dtype=torch.long),
        torch.ones(1, length, dtype=torch.bool),
        SimpleNamespace(ids=lambda *_: ids, words=lambda _: [], source="made up"),
        table.__getitem__,
        wanted,
    )
    return report


def pictures(*sizes: int, blocks: int = 1) -> list[Visual]:
    """Pictures of so many tokens, next to each other, each in as many blocks."""
    found, start = [], 0
    for number, n in enumerate(sizes):
        step = n // blocks
        parts = tuple(range(i * step, (i + 1) * step) for i in range(blocks))
        shape = Shape(n, blocks=parts if blocks > 1 else ())
        found.append(Visual(0, number, "image", torch.arange(start, start + n), shape))
        start += n
    return found


def test_images_of_a_pool_share_its_time(monkeypatch):
    clock = itertools.count(0, 6)  # six seconds from one look to the next
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    assert [r.seconds for r in chosen_of(pictures(4, 2), [1, 2], budget="pooled")] == [3, 3]
    assert [r.seconds for r in chosen_of(pictures(4, 2), [1, 2])] == [6, 6]
    assert [r.seconds for r in chosen_of(pictures(4, blocks=2), [1, 2], budget="per-crop")] == [12]


def test_what_is_true_of_every_crop_is_said_once():
    (report,) = chosen_of(pictures(4, blocks=2), [1, 2], budget="per-crop")
    assert report.reason == "pruned"
    (report,) = chosen_of(pictures(6), [1, 2], keep=Mass(0.4))
    assert report.tokens_after < 6 and report.reason.startswith("pruned by mass")


def test_rows_speak_for_no_word_without_words():
    options = {"redundancy": 0.5, "text_free": True, "explain": True}
    (report,) = chosen_of(pictures(4), [], **options)
    assert report.tokens_after == 2 and report.speaks_for is None
    (report,) = chosen_of(pictures(4), [1, 2, 3], explain=True)
    assert set(report.speaks_for.tolist()) <= {0, 1, 2}


# ---- masks that a class makes itself ----


class _Other:
    """The class of another config. It stands first, where the right one is looked for."""

    config_class = dict

    @staticmethod
    def create_masks_for_generate(**_):
        raise AssertionError("the wrong class was asked")


class _Made:
    """A class with a head whose masks add the token type of each row to what it sees."""

    config_class = SimpleNamespace

    @staticmethod
    def create_masks_for_generate(config, inputs_embeds, attention_mask, token_type_ids=None, **_):
        seen = attention_mask[:, None, None].expand(-1, 1, inputs_embeds.shape[1], -1)
        types = 0 if token_type_ids is None else token_type_ids[:, None, :, None]
        return {"full": seen + types, "none": None}


class _Base:
    config = SimpleNamespace()


@pytest.mark.parametrize("typed", [True, False])
def test_masks_are_made_with_the_types_that_the_model_used(typed):
    embeddings, mask = torch.zeros(1, 4, WIDTH), torch.tensor([[False, True, True, True]])
    types = {"token_type_ids": torch.tensor([[0, 5, 6, 7]])}
    used = types if typed else {}
    given = _Made.create_masks_for_generate(None, embeddings, mask.long(), **used)
    columns = kept_columns(torch.tensor([[True, False, True, True]]), mask)
    cut = (columns.rows(embeddings), torch.ones(1, 2, dtype=torch.bool))
    inputs = {"inputs_embeds": embeddings, "attention_mask": given}
    made = masks.remake(_Base(), None, inputs, types, mask, cut, columns)
    assert made["none"] is None
    assert made["full"][0, 0].tolist() == ([[7, 7], [8, 8]] if typed else [[1, 1], [1, 1]])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: {**m, "full": m["full"] + 1},
        lambda m: {**m, "full": m["full"].float()},
        lambda m: {**m, "none": m["full"]},
        lambda m: {**m, "full": None},
        lambda m: {"full": m["full"]},
        lambda m: m["full"],
    ],
)
def test_masks_of_an_unknown_making_are_refused(spoil):
    embeddings, mask = torch.zeros(1, 2, WIDTH), torch.ones(1, 2, dtype=torch.bool)
    made = _Made.create_masks_for_generate(None, embeddings, mask.long())
    inputs = {"inputs_embeds": embeddings, "attention_mask": spoil(made)}
    columns = kept_columns(mask, mask)
    with pytest.raises(ValueError, match=r"attention_mask.*missing is how _Base makes it"):
        masks.remake(_Base(), None, inputs, {}, mask, (embeddings, mask), columns)


@pytest.mark.parametrize("additive", [False, True])
def test_padding_is_read_off_the_mask_for_a_static_cache(additive):
    """generate hands over a mask per kind of layer, wider than the prompt; a window hides columns
    that are no padding.
    """
    full = torch.ones(1, 1, 3, 6, dtype=torch.bool).tril(2)
    full[..., 0] = False
    window = full & torch.ones_like(full).triu(2)
    made = {"sliding_attention": window, "full_attention": full}
    if additive:
        made = {k: torch.where(m, 0.0, -1e9) for k, m in made.items()}
    before, new = split_mask(made, 1, 2, 3, "cpu", prepared=True)
    assert (before.tolist(), new.tolist()) == ([[False, True]], [[True] * 3])
    alone, _ = split_mask(made["full_attention"], 1, 2, 3, "cpu", prepared=True)
    assert torch.equal(alone, before)
    with pytest.raises(ValueError, match="attention_mask: got a dict"):
        split_mask(made, 1, 2, 3, "cpu", prepared=False)


# ---- planes, words ----


@given(st.data(), st.sampled_from([list, tuple, torch.stack]))
def test_planes_are_cut_where_their_tokens_are(data, kind):
    """Each row of a plane is its token's own number; items keep unequal counts."""
    flags = st.lists(st.booleans(), min_size=5, max_size=5)
    seen, keep = (torch.tensor([data.draw(flags) for _ in range(2)]) for _ in range(2))
    keep[:, -1] = True
    columns = kept_columns(keep, torch.ones_like(keep))
    numbers = torch.arange(10).view(2, 5)
    planes = kind([(numbers[seen] + 100 * i)[:, None].expand(-1, WIDTH) for i in range(2)])
    got = cut_planes({"visual_pos_masks": seen, "deepstack_visual_embeds": planes}, columns)
    mask, cut = got["visual_pos_masks"], got["deepstack_visual_embeds"]
    assert type(cut) is type(planes)
    for i, plane in enumerate(cut):
        assert plane[:, 0].tolist() == (numbers[seen & keep] + 100 * i).tolist()
    expected = [(seen & keep)[b][keep[b]].tolist() for b in range(2)]
    width = mask.shape[1]
    assert mask.tolist() == [[False] * (width - len(e)) + e for e in expected]


def test_no_planes():
    columns = kept_columns(torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 2, dtype=torch.bool))
    assert cut_planes({}, columns) == {}
    assert cut_planes({"visual_pos_masks": None, "deepstack_visual_embeds": None}, columns) == {}


@given(st.integers(1, 6), st.integers(1, 4), st.floats(0.05, 2), st.integers(0, 99), st.data())
def test_the_word_with_the_largest_term(n, m, temperature, seed, data):
    generator = torch.Generator().manual_seed(seed)
    visual, text = (torch.randn(k, 4, generator=generator) for k in (n, m))
    bad = sorted(data.draw(st.sets(st.integers(0, n - 1))))
    visual[bad, 0] = data.draw(st.sampled_from([torch.nan, torch.inf]))
    said = speaks_for(visual, text, temperature)
    assert said.shape == (n,) and said[bad].tolist() == [-1] * len(bad)
    good = [i for i in range(n) if i not in bad]
    if not good:
        return
    rows, words = (x.double() / x.double().norm(dim=1, keepdim=True) for x in (visual[good], text))
    given = (rows @ words.T / temperature).softmax(1)
    terms = given * (given / given.mean(0)).log()
    chosen = terms.gather(1, said[good][:, None])[:, 0]  # a tie may fall either way
    torch.testing.assert_close(chosen, terms.amax(1), rtol=1e-4, atol=1e-6)
