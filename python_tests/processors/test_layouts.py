"""attach on what the classes' own processors make of pictures, films and conversations.

The zoo's prompts are written by hand; here the ids, pixels and masks are the processors'. What each
picture should become is in tables by hand, and counted in the ids between bars that the prompt has
around each picture.
"""

from dataclasses import dataclass

import pytest
import torch
import transformers
from tiny_processors import KITS, film, picture
from zoo import FAMILIES
from zoo.prompt import IMAGE, VIDEO

from mi_pruner_cuda import attach, keep_count
from mi_pruner_cuda.huggingface import MODELS

torch.set_num_threads(1)  # these models are too small to share

RATIO = 0.25
QUERY = [300, 310, 320]
QUESTION = "what colour is it?"
SIZES = ((20, 32), (48, 24), (24, 24), (16, 60))  # height, width of pictures in pixels
FILMS = ((16, 24), (24, 16), (16, 16))  # of a film's frames
PAN_AND_SCAN = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 16}
FRAMES_ARE_PICTURES = ("internvl", "smolvlm")


@pytest.fixture(autouse=True)
def _quiet():
    """Processors warn that torchvision is missing and that films come without times."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity(before)


FILM_KITS = [name for name, kit in KITS.items() if kit.video]


def all_but(names: list[str], *others: str) -> dict:
    """Arguments of parametrize: kits by name."""
    assert set(others) <= set(names)
    return {"argnames": "name", "argvalues": [name for name in names if name not in others]}


@pytest.fixture(params=list(KITS))
def kit(request):
    return KITS[request.param]


@pytest.fixture(params=FILM_KITS)
def film_kit(request):
    return KITS[request.param]


# ---- what each picture should become ----


@dataclass(frozen=True)
class Wanted:
    """tokens of a picture; grid of the report; (name, grid) of its parts; row breaks."""

    tokens: int
    grid: tuple[int, ...] | None
    parts: tuple = ()
    breaks: int = 0


def whole(h: int, w: int) -> Wanted:
    """One grid."""
    return Wanted(h * w, (h, w), (("", (h, w)),))


def detailed(h: int, w: int) -> Wanted:
    """4 x 4 tokens of overview, then h rows that end with a break."""
    parts = (("overview", (4, 4)), ("detail", (h, w)))
    return Wanted(16 + h * (w + 1), None, parts, h)


def tiled(rows: int, columns: int) -> Wanted:
    """Tiles of 3 x 3 that the ids do not place, then an overview."""
    return Wanted((rows * columns + 1) * 9, None, (("overview", (3, 3)),))


def placed(rows: int, columns: int) -> Wanted:
    """Tiles of 3 x 3 in rows, then an overview."""
    crops = [(f"crop {y + 1}, {x + 1}", (3, 3)) for y in range(rows) for x in range(columns)]
    return Wanted((rows * columns + 1) * 9, None, (*crops, ("overview", (3, 3))))


def _all(wanted: Wanted) -> list[Wanted]:
    return [wanted] * len(SIZES)


# 16 x 60 is resized to 8 x 32 pixels, 48 x 24 to 32 x 16.
_PIXTRAL = [whole(5, 8), whole(8, 4), whole(6, 6), whole(2, 8)]
_MISTRAL = [whole(3, 4), whole(4, 2), whole(3, 3), whole(1, 4)]
# Of 32 x 32, 32 x 16, 32 x 32 and 16 x 32 pixels, without what is padding by a whole token.
_NEXT = [detailed(6, 8), detailed(8, 4), detailed(8, 8), detailed(2, 8)]
# OneVision has room for 2 tiles' worth: 6 x 8 and 8 x 8 shrink by 1.22 and 1.41.
_ONEVISION = [detailed(4, 6), detailed(8, 4), detailed(5, 5), detailed(2, 8)]
_AMONG_OTHERS = Wanted(17, None, (("overview", (4, 4)),), 1)
_QWEN = [whole(2, 4), whole(4, 2), whole(3, 3), whole(1, 6)]
_GLM = [whole(1, 3), whole(3, 1), whole(2, 2), whole(1, 4)]  # its pixels count twice
_TILED = [tiled(2, 3), tiled(2, 1), whole(3, 3), tiled(1, 4)]
_PLACED = [placed(3, 4), placed(4, 2), placed(4, 4), placed(2, 4)]
ALONE = {
    "llava": _all(whole(4, 4)),
    "llava_pixtral": _PIXTRAL,
    "llava_next": _NEXT,
    "llava_onevision": _ONEVISION,
    "video_llava": _all(whole(4, 4)),
    "llava_next_video": _NEXT,
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "qwen3_vl_moe": _QWEN,
    "internvl": _TILED,
    "idefics3": _PLACED,
    "smolvlm": _PLACED,
    "gemma3": _all(whole(3, 3)),
    "paligemma": _all(whole(6, 6)),
    "mistral3": _MISTRAL,
    "glm4v": _GLM,
    "aya_vision": _TILED,
}
# Where an item has several pictures.
TOGETHER = {**ALONE, "llava_onevision": _all(_AMONG_OTHERS)}


def pictures(*places: int):
    """The pictures of these places in SIZES."""
    return [picture(*SIZES[i], seed=i) for i in places]


def films(*places: int, frames: int = 4):
    return [film(frames, *FILMS[i], seed=i) for i in places]


def inputs_of(kit, texts, pictures=None, films=None, **more) -> dict:
    """What the kit's processor makes of it, without labels, which have a test of their own."""
    inputs = kit.inputs(kit.processor(), texts, pictures, films, **more)
    return {name: value for name, value in inputs.items() if name != "labels"}


def batch_of_pictures(kit, **more) -> tuple[dict, list[list[Wanted]]]:
    """Three pictures in one prompt and one in another."""
    texts = ["what|{}|colour|{}|is|{}|it", "red|{}|digit"]
    inputs = inputs_of(kit, texts, [pictures(0, 1, 2), pictures(3)], **more)
    return inputs, [TOGETHER[kit.name][:3], ALONE[kit.name][3:]]


@torch.no_grad()
def logits(model, inputs, **options):
    return model(**inputs, **options).logits


def pruned_report(kit, inputs, **options):
    """The report of a forward; that of generate, which must say the same."""
    model = kit.model()
    assert logits(model, inputs).isfinite().all()
    with attach(model, **{"keep": RATIO, "query": QUERY, **options}) as pruner:
        logits(model, inputs)
        report = pruner.report
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
        assert said(pruner.report) == said(report)
    return report


def said(report) -> list[tuple]:
    return [
        (r.item, r.image, r.kind, r.tokens_before, r.tokens_after, r.grid, r.parts) for r in report
    ]


def between_bars(kit, inputs, item: int) -> list[int]:
    """How many placeholders stand between the bars of a prompt, where there are any."""
    bar = kit.tokenizer().convert_tokens_to_ids("|")
    ids = inputs["input_ids"][item]
    pieces = (ids == bar).cumsum(0)
    visual = (ids == IMAGE) | (ids == VIDEO)
    return [n for n in torch.bincount(pieces[visual]).tolist() if n]


def check_pictures(report, wanted: list[list[Wanted]]) -> None:
    expected = [(item, i, w) for item, own in enumerate(wanted) for i, w in enumerate(own)]
    assert [(r.item, r.image) for r in report] == [(item, i) for item, i, _ in expected]
    for entry, (_, _, one) in zip(report, expected, strict=True):
        assert entry.kind == "image"
        assert entry.tokens_before == one.tokens
        assert entry.grid in (one.grid, one.grid and (1, *one.grid))
        assert [(p.name, p.grid) for p in entry.parts] == list(one.parts)
        budget = keep_count(one.tokens - one.breaks, RATIO)
        assert entry.tokens_after == budget + one.breaks


def test_every_row_of_the_table_has_a_processor():
    assert {FAMILIES[name].model_type for name in KITS} == set(MODELS)
    assert set(ALONE) == set(KITS)
    for name, kit in KITS.items():
        spec = MODELS[FAMILIES[name].model_type]
        assert bool(kit.video) == (spec.videos is not None or name in FRAMES_ARE_PICTURES)


# ---- pictures ----


def test_pictures_are_found_where_the_processor_put_them(kit):
    inputs, wanted = batch_of_pictures(kit)
    report = pruned_report(kit, inputs)
    check_pictures(report, wanted)
    for item in range(2):
        counted = between_bars(kit, inputs, item)
        assert [r.tokens_before for r in report if r.item == item] == counted


def test_keep_1_is_bitwise_the_unhooked_model(kit):
    model, (inputs, _) = kit.model(), batch_of_pictures(kit)
    expected = logits(model, inputs)
    with attach(model, keep=1.0, query=QUERY) as pruner:
        assert torch.equal(logits(model, inputs), expected)
    assert pruner.report.tokens_before == pruner.report.tokens_after > 0


def test_pictures_next_to_each_other(kit):
    inputs = inputs_of(kit, ["what|{}{}|is it"], [pictures(1, 0)])
    check_pictures(pruned_report(kit, inputs), [TOGETHER[kit.name][1::-1]])


def test_a_pad_on_the_right_changes_nothing(kit):
    """Of the report; generate would warn."""
    model, (left, wanted) = kit.model(), batch_of_pictures(kit)
    right, _ = batch_of_pictures(kit, padding_side="right")
    assert not torch.equal(left["attention_mask"], right["attention_mask"])
    with attach(model, keep=RATIO, query=QUERY) as pruner:
        logits(model, right)
        check_pictures(pruner.report, wanted)
        kept = [r.indices.tolist() for r in pruner.report]
        logits(model, left)
    assert kept == [r.indices.tolist() for r in pruner.report]


# PaliGemma's processor wants a picture in every prompt.
@pytest.mark.parametrize(**all_but(list(KITS), "paligemma"))
def test_prompts_with_and_without_pictures(name):
    kit = KITS[name]
    inputs = inputs_of(kit, ["what is it", "red|{}|digit"], [[], pictures(3)])
    report = pruned_report(kit, inputs)
    assert report[0].reason == "no image in the prompt"
    check_pictures(report[1:], [[], ALONE[kit.name][3:]])


# ---- where crops lie ----


def colours(pixels: torch.Tensor) -> tuple[float, float, float, float]:
    """Least and most of red and green (pixels is (3, h, w)): left, top, right, bottom."""
    red, green = pixels[0], pixels[1]
    return (red.min().item(), green.min().item(), red.max().item(), green.max().item())


@pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
@pytest.mark.parametrize("place", range(len(SIZES)))
def test_boxes_of_crops_hold_their_pixels(name, place):
    """A picture's red tells how far to the right a pixel is, its green how far down."""
    kit = KITS[name]
    inputs = inputs_of(kit, ["what|{}|is it"], [pictures(place)])
    (entry,) = pruned_report(kit, inputs)
    views = inputs["pixel_values"][0]
    assert len(views) == len(entry.parts)
    for view, part in zip(views, entry.parts, strict=True):
        assert colours(view) == pytest.approx(part.box, abs=0.06)


@pytest.mark.parametrize("name", ["internvl", "aya_vision"])
@pytest.mark.parametrize("place", range(len(SIZES)))
def test_the_last_tile_is_the_overview(name, place):
    kit = KITS[name]
    inputs = inputs_of(kit, ["what|{}|is it"], [pictures(place)])
    (entry,) = pruned_report(kit, inputs)
    views = [i for i, v in enumerate(inputs["pixel_values"]) if spans_all(v)]
    assert [part.first // 9 for part in entry.parts] == views == [entry.tokens_before // 9 - 1]


def spans_all(view: torch.Tensor) -> bool:
    return colours(view) == pytest.approx((0, 0, 1, 1), abs=0.06)


@pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
def test_a_picture_that_is_not_split(name):
    kit = KITS[name]
    texts, given = ["what|{}{}|is it", "red|{}|digit"], [pictures(0, 1), pictures(2)]
    inputs = inputs_of(kit, texts, given, do_image_splitting=False)
    check_pictures(pruned_report(kit, inputs), [[whole(3, 3)] * 2, [whole(3, 3)]])


@pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
def test_more_tiles_than_the_vocabulary_has_marks_for(name):
    """The processor knows marks of 6 x 6 tiles and makes more where size allows. This vocabulary
    has 4 x 4 of them: the others are words of several tokens.
    """
    kit = KITS[name]
    inputs = inputs_of(
        kit,
        ["what|{}{}|is it"],
        [[picture(40, 60), picture(60, 20)]],
        size={"longest_edge": 144},
    )
    check_pictures(pruned_report(kit, inputs), [[placed(4, 6), placed(6, 2)]])


@pytest.mark.parametrize(
    ("size", "crops"), [((20, 64), 3), ((64, 20), 3), ((24, 24), 0)], ids=["wide", "tall", "square"]
)
def test_pan_and_scan(size, crops):
    """Gemma 3: the whole picture, then its crops; to attach each is a picture."""
    kit = KITS["gemma3"]
    given = [[picture(*size), picture(24, 24)]]
    inputs = inputs_of(kit, ["what|{}|is|{}|it"], given, images_kwargs=PAN_AND_SCAN)
    assert len(inputs["pixel_values"]) == 1 + crops + 1
    report = pruned_report(kit, inputs)
    check_pictures(report, [[whole(3, 3)] * (1 + crops + 1)])
    assert between_bars(kit, inputs, 0) == [9 * (1 + crops), 9]


def test_onevision_takes_a_flat_list_for_pictures_of_their_own():
    """Its processor then gives each its details, though one prompt has both."""
    kit = KITS["llava_onevision"]
    inputs = inputs_of(kit, ["what|{}|is|{}|it"], pictures(0, 3))
    check_pictures(pruned_report(kit, inputs), [[_ONEVISION[0], _ONEVISION[3]]])


def test_labels_that_ask_for_nothing():
    """PaliGemma's processor returns labels with every prompt, of which none counts."""
    kit = KITS["paligemma"]
    inputs = kit.inputs(kit.processor(), ["what|{}|is it"], [pictures(0)])
    assert (inputs["labels"] == -100).all()
    check_pictures(pruned_report(kit, inputs), [ALONE["paligemma"][:1]])


# ---- films ----


def wanted_film(kit, place: int, frames: int) -> Wanted:
    """Parts are its frames."""
    h, w = FILMS[place]
    t, first, breaks = frames, 0, 0
    if kit.name == "llava_onevision":
        grid, breaks = (2, 2), 1
    elif kit.name == "video_llava":
        grid, first = (4, 4), 1  # the class row
    elif kit.name == "llava_next_video":
        grid = (2, 2)
    elif kit.name in FRAMES_ARE_PICTURES:
        grid = (3, 3)
    else:
        t, grid = (frames + 1) // 2, (h // 8, w // 8)  # two frames are one
    alone = t == 1  # then it is no frame among others and has no name
    parts = tuple(("" if alone else f"frame {i}", grid) for i in range(t))
    tokens = t * (first + grid[0] * grid[1]) + breaks
    return Wanted(tokens, None if first else (t, *grid), parts, breaks)


def check_films(kit, report, wanted: list[list[Wanted]]) -> None:
    if kit.name in FRAMES_ARE_PICTURES:
        each = [[whole(3, 3)] * sum(len(w.parts) for w in own) for own in wanted]
        return check_pictures(report, each)
    expected = [(item, i, w) for item, own in enumerate(wanted) for i, w in enumerate(own)]
    assert [(r.item, r.image) for r in report] == [(item, i) for item, i, _ in expected]
    for entry, (_, _, one) in zip(report, expected, strict=True):
        assert (entry.kind, entry.tokens_before, entry.grid) == ("video", one.tokens, one.grid)
        assert [(p.name, p.grid) for p in entry.parts] == list(one.parts)
        assert [p.frame for p in entry.parts] == list(range(len(one.parts)))
        frame = (one.tokens - one.breaks) // len(one.parts)
        assert entry.tokens_after == len(one.parts) * keep_count(frame, RATIO) + one.breaks


def test_films_are_found_where_the_processor_put_them(film_kit):
    texts = ["what|[]|is it", "red|[]|digit|[]|blue"]
    inputs = inputs_of(film_kit, texts, None, [films(0), films(1, 2)])
    report = pruned_report(film_kit, inputs)
    wanted = [wanted_film(film_kit, i, 4) for i in range(3)]
    check_films(film_kit, report, [wanted[:1], wanted[1:]])
    for item, own in enumerate((wanted[:1], wanted[1:])):
        assert between_bars(film_kit, inputs, item) == [w.tokens for w in own]


@pytest.mark.parametrize("frames", [2, 5])
def test_films_of_other_lengths(film_kit, frames):
    inputs = inputs_of(film_kit, ["what|[]|is it"], None, [films(0, frames=frames)])
    wanted = wanted_film(film_kit, 0, frames)
    check_films(film_kit, pruned_report(film_kit, inputs), [[wanted]])


def test_films_next_to_each_other(film_kit):
    inputs = inputs_of(film_kit, ["what|[][]|is it"], None, [films(0, 1)])
    wanted = [wanted_film(film_kit, i, 4) for i in (0, 1)]
    if film_kit.name == "video_llava":
        # All that generate keeps of its films are frames: neighbours are one film of 8 to attach.
        wanted = [wanted_film(film_kit, 0, 8)]
    check_films(film_kit, pruned_report(film_kit, inputs), [wanted])


def test_films_as_lists_of_frames(film_kit):
    (array,) = films(0)
    inputs = inputs_of(film_kit, ["what|[]|is it"], None, [[array]])
    listed = inputs_of(film_kit, ["what|[]|is it"], None, [[list(array)]])
    assert all(torch.equal(inputs[name], listed[name]) for name in ("input_ids", "attention_mask"))
    assert said(pruned_report(film_kit, listed)) == said(pruned_report(film_kit, inputs))


# GLM-4V's class and SmolVLM's processor take one of both.
@pytest.mark.parametrize(**all_but(FILM_KITS, "glm4v", "smolvlm"))
def test_pictures_and_films_in_one_prompt(name):
    film_kit = KITS[name]
    texts = ["what|{}|is|[]|it", "red|[]|digit|{}|blue"]
    inputs = inputs_of(film_kit, texts, [pictures(0), pictures(3)], [films(0), films(1)])
    report = pruned_report(film_kit, inputs)
    for item in range(2):
        own = [r.tokens_before for r in report if r.item == item]
        counted = between_bars(film_kit, inputs, item)
        if film_kit.name in FRAMES_ARE_PICTURES:
            assert sum(own) == sum(counted)
        else:
            assert own == counted
    first = [r for r in report if r.item == 0 and r.kind == "image"]
    check_pictures(first[:1], [ALONE[film_kit.name][:1]])


# ---- conversations ----


def conversation(kind: str) -> list[dict]:
    """A question about one picture or film."""
    shown = {"image": picture(20, 64, seed=1), "video": film(4, *FILMS[0])}[kind]
    text = {"type": "text", "text": QUESTION}
    return [{"role": "user", "content": [{"type": kind, kind: shown}, text]}]


def words_of_the_question(kit, kind: str, **options) -> list[str]:
    """What attach finds in what apply_chat_template returns."""
    processor = kit.processor(kit.template)
    inputs = processor.apply_chat_template(
        conversation(kind),
        chat_template=kit.template,  # SmolVLM would take its own for films
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs=options,
    )
    model = kit.model()
    with attach(model, keep=RATIO, tokenizer=processor) as pruner:
        logits(model, inputs)
    assert pruner.report[0].query_source == "prompt without special and template tokens"
    return pruner.report[0].words


# PaliGemma has no chat template.
@pytest.mark.parametrize(**all_but(list(KITS), "paligemma"))
def test_the_question_about_a_picture(name):
    kit = KITS[name]
    assert "".join(words_of_the_question(kit, "image")) == QUESTION


def test_the_question_about_a_film(film_kit):
    words = words_of_the_question(film_kit, "video", do_sample_frames=False)
    assert "".join(words) == QUESTION


def test_the_question_about_a_picture_in_crops():
    kit = KITS["gemma3"]
    words = words_of_the_question(kit, "image", images_kwargs=PAN_AND_SCAN)
    assert "".join(words) == QUESTION
