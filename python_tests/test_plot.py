"""plot: pictures are checked by their pixels, as they come out of the renderer."""

import sys

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import Normalize
from PIL import Image
from transformers import CLIPImageProcessor

import mi_pruner_cuda
from mi_pruner_cuda import Selection
from mi_pruner_cuda.huggingface.report import ImageReport, Part, Report
from mi_pruner_cuda.panels import cell_edges, cell_of
from mi_pruner_cuda.picture import to_picture
from mi_pruner_cuda.plotting import dim_dropped, plot
from mi_pruner_cuda.visible import crop_fractions, visible_box


def noise(height=60, width=90, seed=0):
    """Bright and coloured everywhere, so that dimming and greying show in every pixel."""
    pixels = np.random.default_rng(seed).integers(0, 60, (height, width, 3), np.uint8)
    pixels[..., 0] += 190
    return pixels


def entry(grid=(3, 4), kept=(1, 6, 11), scores="made up", **more):
    n = 12 if grid is None else int(np.prod(grid))
    if isinstance(scores, str):
        scores = torch.linspace(0.1, 1.5, n)[torch.randperm(n)]
    kept = torch.tensor(kept, dtype=torch.int64)
    values = {"item": 0, "image": 0, "reason": "pruned", "grid": grid, "scores": scores}
    return ImageReport(
        **{**values, "tokens_before": n, "tokens_after": len(kept), "indices": kept, **more}
    )


def rendered(figure):
    """uint8 (H, W, 3)."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def pixel_at(figure, pixels, axes, x, y):
    """The rendered colour at a place that is given in tokens."""
    column, row = axes.transData.transform((x, y))
    return pixels[int(pixels.shape[0] - row), int(column)].astype(int)


def texts(figure):
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text)]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 40), st.integers(0, 40), st.data())
def test_dimming_follows_the_grid(h, w, more_height, more_width, data):
    height, width = h + more_height, w + more_width  # mostly not a multiple of the grid
    bits = data.draw(st.lists(st.booleans(), min_size=h * w, max_size=h * w))
    kept = np.array(bits).reshape(h, w)
    pixels = noise(height, width)
    out = dim_dropped(pixels, kept)
    seen = set()
    for y in range(height):
        for x in range(width):
            cell = int((y + 0.5) * h / height), int((x + 0.5) * w / width)
            seen.add(cell)
            if kept[cell]:
                assert (out[y, x] == pixels[y, x]).all()
            else:
                assert out[y, x].max() < 0.5 * pixels[y, x].max()
                assert out[y, x].min() == out[y, x].max()
    assert len(seen) == h * w  # every patch has pixels of its own


@pytest.mark.parametrize("grid", [(3, 4), (5, 7), (1, 12), (1, 3, 4)])
def test_panels_show_picture_kept_patches_and_scores(grid):
    pixels = noise(61, 97)
    report = entry(grid)
    w = grid[-1]
    figure = plot(pixels, report)
    drawn = rendered(figure)
    picture, kept, heat = figure.axes[:3]
    np.testing.assert_array_equal(picture.images[0].get_array(), pixels)
    colours = matplotlib.colormaps["viridis"]
    norm = Normalize(0, float(report.scores.max()))
    for token, score in enumerate(report.scores.tolist()):
        x, y = token % w + 0.5, token // w + 0.5
        in_picture = pixel_at(figure, drawn, picture, x, y)
        assert in_picture[0] > 180
        in_kept = pixel_at(figure, drawn, kept, x, y)
        if token in report.indices:
            assert abs(in_kept - in_picture).max() <= 30  # pixels between which the renderer rounds
        else:
            assert in_kept.max() < 0.5 * in_picture.max()
        colour = 255 * np.array(colours(norm(score))[:3])
        assert abs(pixel_at(figure, drawn, heat, x, y) - colour).max() <= 2
    hottest = int(report.scores.argmax())
    shown = np.asarray(heat.images[0].get_array())
    assert np.unravel_index(shown.argmax(), shown.shape) == (hottest // w, hottest % w)


def test_outline_lies_between_kept_and_dropped():
    figure = plot(noise(), entry((3, 4), kept=(5, 6)))
    for axes in figure.axes[1:3]:
        (lines,) = axes.collections
        segments = {tuple(sorted(map(tuple, s.astype(int)))) for s in lines.get_segments()}
        top = {((1, 1), (2, 1)), ((2, 1), (3, 1))}
        bottom = {((1, 2), (2, 2)), ((2, 2), (3, 2))}
        assert segments == top | bottom | {((1, 1), (1, 2)), ((3, 1), (3, 2))}


def test_patches_are_shown_in_the_shape_of_their_pixels():
    figure = plot(noise(60, 90), entry((3, 9), kept=(0,)))
    figure.canvas.draw()
    box = figure.axes[0].get_window_extent()
    assert box.height / box.width == pytest.approx(60 / 90, rel=0.02)


def test_words():
    report = Report([entry((3, 4))])
    figure = plot(noise(), report, question="what costs $3 and $4?", answer="a lot")
    said = texts(figure)
    assert "12 → 3 tokens (25 % kept)" in said
    assert "the picture: 4 x 3 tokens" in said
    assert "what costs $3 and $4?   →   a lot" in said
    assert "mutual information (nats)" in said
    assert "kept tokens" in said
    assert any(text.startswith("dropped tokens") for text in said)


def test_several_images_are_rows_in_order():
    pixels = [noise(40, 40, seed) for seed in (1, 2)]
    report = Report([entry(kept=(0,)), entry((2, 2), kept=(1, 2), image=1)])
    figure = plot(pixels, report)
    rendered(figure)
    panels = [axes for axes in figure.axes if axes.images and axes.get_title()]
    assert len(panels) == 6
    for row, image in enumerate(pixels):
        np.testing.assert_array_equal(panels[3 * row].images[0].get_array(), image)
        assert panels[3 * row].get_title().startswith(f"image {row}:")
    assert "12 → 1" in panels[1].get_title()
    assert "4 → 2" in panels[4].get_title()


def test_text_and_video_entries_are_not_rows():
    whole = ImageReport(0, None, 0, 0, "no image in the prompt")
    assert len(plot(noise(), [whole, entry()]).axes) == len(plot(noise(), entry()).axes)


def rows_of(figure):
    """Per row its title, its pixels, the kept picture and the scores, as they were handed over."""
    panels = [axes for axes in figure.axes if axes.images and axes.get_title()]
    rows = [panels[n : n + 3] for n in range(0, len(panels), 3)]
    return [
        (row[0].get_title(), *(np.asarray(axes.images[0].get_array()) for axes in row))
        for row in rows
    ]


def test_crops_show_their_box_of_the_picture():
    """An overview and two crops with row breaks, of which the breaks are in no row."""
    pixels = noise(40, 80)
    parts = (
        Part(0, (2, 3), 3, name="overview"),
        Part(6, (2, 2), 3, box=(0.0, 0.0, 0.5, 1.0), name="crop 1, 1"),
        Part(12, (2, 1), 1, box=(0.5, 0.0, 1.0, 0.5), name="crop 1, 2"),
    )
    breaks = [8, 11]
    scores = torch.arange(14.0)
    scores[breaks] = float("nan")
    kept = (1, 6, 8, 10, 11, 13)
    report = entry(grid=None, parts=parts, scores=scores, kept=kept, tokens_before=14)
    rows = rows_of(plot(pixels, report))
    assert [row[0] for row in rows] == [
        "overview: 3 x 2 tokens", "crop 1, 1: 2 x 2 tokens", "crop 1, 2: 1 x 2 tokens",
    ]  # fmt: skip
    seen = [pixels, pixels[:, :40], pixels[:20, 40:]]
    tokens = [[[0, 1, 2], [3, 4, 5]], [[6, 7], [9, 10]], [[12], [13]]]
    for row, shown, own in zip(rows, seen, tokens, strict=True):
        np.testing.assert_array_equal(row[1], shown)
        np.testing.assert_array_equal(row[2], dim_dropped(shown, np.isin(own, kept)))
        np.testing.assert_array_equal(row[3], own)


def frame_parts(frames, h=2, w=2):
    return tuple(Part(h * w * f, (h, w), w, frame=f, name=f"frame {f}") for f in frames)


@pytest.mark.parametrize("merged", [1, 2])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("known_by", ["parts", "grid", "argument"])
def test_frames_of_a_video_are_rows(merged, nested, known_by):
    frames = [noise(30, 30, seed) for seed in range(3 * merged)]
    more = {"grid": (3, 2, 2)} if known_by == "grid" else {"grid": None}
    if known_by == "parts":
        more["parts"] = frame_parts(range(3))
    report = entry(scores=torch.arange(12.0), kind="video", tokens_before=12, **more)
    asked = {"grid": (3, 2, 2)} if known_by == "argument" else {}
    rows = rows_of(plot([frames] if nested else frames, report, **asked))
    assert [row[0] for row in rows] == [f"frame {n}: 2 x 2 tokens" for n in range(3)]
    for number, row in enumerate(rows):
        np.testing.assert_array_equal(row[1], frames[merged * number])
        np.testing.assert_array_equal(row[3], 4 * number + np.arange(4).reshape(2, 2))


def test_an_array_of_frames_is_a_video():
    frames = np.stack([noise(30, 30, seed) for seed in range(3)])
    rows = rows_of(plot(frames, entry((3, 2, 2))))
    assert len(rows) == 3
    np.testing.assert_array_equal(rows[2][1], frames[2])


def test_a_single_merged_frame_is_the_first_of_its_pictures():
    frames = [noise(30, 30, seed) for seed in range(2)]
    rows = rows_of(plot(frames, entry((1, 3, 4), kind="video")))
    assert [row[0] for row in rows] == ["the picture: 4 x 3 tokens"]
    np.testing.assert_array_equal(rows[0][1], frames[0])


def test_pictures_and_videos_together():
    still, frames = noise(30, 30, 9), [noise(30, 30, seed) for seed in range(2)]
    video = entry((2, 2, 3), image=1, kind="video")
    rows = rows_of(plot([still, frames], Report([entry(), video])))
    titles = ["image 0: 4 x 3", "video 1, frame 0: 3 x 2", "video 1, frame 1: 3 x 2"]
    assert [row[0] for row in rows] == [f"{title} tokens" for title in titles]
    for row, pixels in zip(rows, [still, *frames], strict=True):
        np.testing.assert_array_equal(row[1], pixels)


def test_frames_share_one_scale():
    """A dull frame is not painted as bright as the best one."""
    scores = torch.tensor([0.1] * 6 + [0.2] * 5 + [2.0])
    figure = plot([noise()] * 2, entry((2, 2, 3), scores=scores))
    limits = [axes.images[0].get_clim() for axes in figure.axes[2:6:3]]
    assert limits == [(0, 2), (0, 2)]


@pytest.mark.parametrize("most", [None, 3, 1])
def test_long_videos_are_cut_and_the_figure_says_so(most):
    frames = [noise(20, 20, seed) for seed in range(40)]
    report = entry(None, parts=frame_parts(range(40)), tokens_before=160, scores=None, kind="video")
    figure = plot(frames, report, **({} if most is None else {"max_parts": most}))
    drawn = [int(t.split(":")[0][6:]) for t in texts(figure) if t.startswith("frame ")]
    assert len(drawn) == (most or 16) and drawn == sorted(set(drawn)) and drawn[0] == 0
    assert most == 1 or drawn[-1] == 39
    (said,) = [" ".join(t.split()) for t in texts(figure) if "left out" in t]
    names = "; ".join(f"frame {n}" for n in drawn)
    assert said == (
        f"video 0: {len(drawn)} of 40 parts are drawn ({names}), {40 - len(drawn)} left out"
    )
    pictures = [axes.images[0].get_array() for axes in figure.axes[::3]]
    np.testing.assert_array_equal(pictures[-1], frames[drawn[-1]])


def test_nothing_is_said_where_nothing_is_left_out():
    figure = plot([noise()] * 2, entry((2, 2, 3)), max_parts=2)
    assert not [t for t in texts(figure) if "left out" in t]


def test_crops_are_not_cut_as_whole_pictures_are():
    """CLIP's crop of the centre is of whole pictures and frames; a crop's box is of the picture."""
    processor = CLIPImageProcessor(
        size={"shortest_edge": 20}, crop_size={"height": 20, "width": 20}
    )
    pixels = noise(40, 80)
    whole = entry(None, parts=(Part(0, (3, 4), 4),), tokens_before=12, scores=None)
    assert rows_of_first(plot(pixels, whole, processor=processor)) == (40, 40)
    halves = tuple(
        Part(6 * n, (2, 3), 3, box=(n / 2, 0, (n + 1) / 2, 1), name=f"crop {n}") for n in (0, 1)
    )
    crops = entry(None, parts=halves, tokens_before=12, scores=None)
    figure = plot(noise(40, 100), crops, processor=processor)
    assert rows_of_first(figure) == (40, 50)
    figure = plot([pixels] * 2, entry((2, 2, 3), kind="video"), processor=processor)
    assert rows_of_first(figure) == (40, 40)


def rows_of_first(figure):
    """(H, W) of the first picture."""
    return figure.axes[0].images[0].get_array().shape[:2]


@given(st.integers(1, 50), st.data())
def test_cells_begin_where_their_first_pixel_is(pixels, data):
    cells = data.draw(st.integers(1, pixels))
    edges = cell_edges(pixels, cells).tolist()
    assert edges[0] == 0 and edges[-1] == pixels
    for cell in range(cells):
        assert set(cell_of(pixels, cells)[edges[cell] : edges[cell + 1]]) == {cell}


def test_a_box_covers_at_least_one_pixel():
    picture = Image.fromarray(noise(10, 10))
    assert crop_fractions(picture, (0, 0, 1, 1)).size == (10, 10)
    assert crop_fractions(picture, (0.1, 0.2, 0.5, 1.0)).size == (4, 8)
    assert crop_fractions(picture, (1, 1, 1, 1)).size == (1, 1)


def test_without_scores_there_is_no_heat_map():
    pixels = noise()
    report = entry(scores=None, kept=range(12), reason="kept all: keep = 1.0")
    figure = plot(pixels, report)
    rendered(figure)
    assert "kept without scoring" in texts(figure)
    assert not figure.axes[2].images
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), pixels)


def test_scores_that_do_not_count_are_grey():
    scores = torch.full((12,), 0.5)
    scores[3], scores[4] = float("-inf"), float("nan")
    figure = plot(noise(), entry(scores=scores))
    drawn = rendered(figure)
    for x, y in ((3.5, 0.5), (0.5, 1.5)):
        assert pixel_at(figure, drawn, figure.axes[2], x, y).tolist() == [191, 191, 191]
    plot(noise(), entry(scores=torch.full((12,), float("nan"))))  # nothing at all to scale by
    rendered(plot(noise(), entry(scores=torch.zeros(12))))


def test_selection():
    visual, text = torch.randn(20, 8), torch.randn(3, 8)
    selection = mi_pruner_cuda.select(visual, text, 5)
    figure = plot(noise(), selection, grid=(4, 5))
    kept = np.zeros(20, bool)
    kept[selection.indices] = True
    expected = dim_dropped(noise(), kept.reshape(4, 5))
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), expected)


def test_all_kinds_of_pictures_are_the_same(tmp_path):
    pixels = noise()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    kinds = [
        pixels, torch.from_numpy(pixels), Image.fromarray(pixels), tmp_path / "a.png",
        str(tmp_path / "a.png"), pixels / 255.0, np.dstack([pixels, 255 * (pixels[..., 0] > 0)])
        .astype(np.uint8),
    ]  # fmt: skip
    for kind in kinds:
        np.testing.assert_array_equal(np.asarray(to_picture(kind)), pixels)
    grey = np.asarray(to_picture(pixels[..., 0]))
    assert (grey == pixels[..., :1]).all()


def test_a_picture_that_lies_on_its_side_is_turned(tmp_path):
    image = Image.fromarray(noise(20, 40))
    exif = image.getexif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert to_picture(tmp_path / "turned.jpg").size == (20, 40)


@pytest.mark.parametrize("size", [(120, 60), (60, 120), (64, 64), (33, 75)])
@pytest.mark.parametrize("edge", [32, 48])
def test_the_part_that_the_model_sees(size, edge):
    """The drawn part, scaled to the model's input, is what CLIP's processor hands over."""
    crop = {"height": 32, "width": 32}
    processor = CLIPImageProcessor(
        size={"shortest_edge": edge}, crop_size=crop, do_normalize=False, do_rescale=False
    )
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    picture = Image.fromarray(np.dstack([x, y, 0 * x]).astype(np.uint8))
    seen = processor(picture, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    drawn = picture.crop(visible_box(picture, processor)).resize((32, 32), Image.BICUBIC)
    # A pixel more or less at an edge, where the processor rounds otherwise.
    assert np.abs(np.asarray(drawn, float) - seen).max() < 2.5 * 255 / min(size)
    figure = plot(picture, entry(), processor=processor)
    assert figure.axes[0].images[0].get_array().shape[:2] == picture.crop(
        visible_box(picture, processor)
    ).size[::-1]  # fmt: skip
    assert visible_box(picture, None) == (0, 0, *size)


def test_large_pictures_are_drawn_smaller():
    figure = plot(noise(1500, 3000), entry())
    assert figure.axes[0].images[0].get_array().shape == (512, 1024, 3)


def test_saves(tmp_path):
    path = tmp_path / "kept.png"
    report = entry()
    plot(noise(), report, path)
    saved = np.asarray(Image.open(path).convert("RGB"))
    np.testing.assert_array_equal(saved, rendered(plot(noise(), report)))


def test_pyplot_and_the_backend_are_left_alone():
    known = "matplotlib.pyplot" in sys.modules
    backend = matplotlib.rcParams._get_backend_or_none()
    plot(noise(), entry())
    assert ("matplotlib.pyplot" in sys.modules) == known
    assert matplotlib.rcParams._get_backend_or_none() == backend


BATCH = Selection(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 12), [3, 3], "selected")
ERRORS = {
    "too few images": ([noise()], [entry(), entry(image=1)], {}, ValueError, "got 1.*has 2"),
    "too many images": ([noise()] * 2, entry(), {}, ValueError, "got 2.*has 1"),
    "no image": (noise(), Report(), {}, ValueError, "no image to draw: no prefill yet"),
    "prompt without image": (
        noise(), ImageReport(0, None, 0, 0, "no image in the prompt"), {}, ValueError,
        "no image to draw: no image in the prompt",
    ),
    "unknown grid": (noise(), entry(grid=None), {}, ValueError, r"pass grid="),
    "wrong grid": (noise(), entry(), {"grid": (5, 5)}, ValueError, "h \\* w = 12"),
    "no grid": (noise(), entry(), {"grid": "square"}, TypeError, "grid: got 'square'"),
    "video": (noise(), entry((2, 2, 3)), {}, ValueError, "got 1 frames for image 0, .* are 2"),
    "frames that do not divide": (
        [noise()] * 5, entry((2, 2, 3)), {}, ValueError, "got 5 frames .* are 2, .* a multiple",
    ),
    "no frames": ([], entry((2, 2, 3)), {}, ValueError, "got 0 frames"),
    "frames of a picture": (
        [[noise()] * 2], entry(), {}, ValueError, "got 2 pictures for image 0, allowed is one",
    ),
    "grid of four": (noise(), entry(), {"grid": (1, 1, 3, 4)}, ValueError, "grid: got"),
    "part outside": (
        noise(), entry(grid=None, parts=(Part(1, (3, 4), 4, name="crop 1"),)), {}, ValueError,
        r"part 'crop 1' has tokens 1 to 12, allowed are numbers in \[0, 12\)",
    ),
    "max_parts type": (noise(), entry(), {"max_parts": 2.0}, TypeError, "max_parts: got 2.0"),
    "max_parts": (noise(), entry(), {"max_parts": 0}, ValueError, "max_parts: got 0"),
    "scores of another width": (
        noise(), entry(scores=torch.zeros(11)), {}, ValueError, r"scores of shape \(11,\)",
    ),
    "index outside": (noise(), entry(kept=(12,)), {}, ValueError, "indices of shape"),
    "batch": (noise(), BATCH, {"grid": (3, 4)}, ValueError, "one by one"),
    "report type": (noise(), 3, {}, TypeError, "report: got int"),
    "report list type": (noise(), [entry(), "x"], {}, TypeError, "report: got str"),
    "image type": (3, entry(), {}, TypeError, "image: got int"),
    "image shape": (noise().transpose(2, 0, 1), entry(), {}, ValueError, r"\(3, 60, 90\)"),
    "image dtype": (noise().astype(int), entry(), {}, TypeError, "array of int64"),
    "image range": (noise() * 1.0, entry(), {}, ValueError, r"outside \[0, 1\]"),
    "image missing": ("no/such.png", entry(), {}, FileNotFoundError, "no file no/such.png"),
    "image no picture": (__file__, entry(), {}, ValueError, "is not a picture"),
    "question type": (noise(), entry(), {"question": 3}, TypeError, "question: got int"),
    "path type": (noise(), entry(), {"path": 3}, TypeError, "path: got int"),
    "path ending": (noise(), entry(), {"path": "a.doc"}, ValueError, "got 'a.doc', allowed"),
    "path without ending": (noise(), entry(), {"path": "a"}, ValueError, "allowed endings are"),
    "path without folder": (
        noise(), entry(), {"path": "no/such/a.png"}, FileNotFoundError, "no folder no/such",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_the_argument(case):
    image, report, more, kind, message = ERRORS[case]
    with pytest.raises(kind, match=message):
        plot(image, report, **more)


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        plot(noise(), entry(), tmp_path / "a.png")


def test_a_full_disk_is_an_os_error(tmp_path):
    (tmp_path / "a.png").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"a\.png cannot be written: No space left"):
        plot(noise(), entry(), tmp_path / "a.png")
