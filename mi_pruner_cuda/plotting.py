"""plot: what was kept of a picture, and what every part of it has to say about the question.

One row per image, crop of an image or frame of a video:
1. the picture as the model sees it;
2. the same, with dropped patches dimmed and the kept ones outlined;
3. the heat map of mutual information, with the same outline.

Everything goes through a Figure with an Agg canvas of its own: pyplot's state and the backend that
the caller chose are left alone.
"""

import io
import os
import textwrap
import unicodedata
import warnings
from itertools import accumulate

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .fonts import Writing, writing
from .output_path import check_not_read, check_output, check_text
from .panels import DIM, Drawing, Panel, cell_of, drawings
from .whole_file import write_file

_OUTLINE = "#ffb000"  # orange: stands out on the dimmed picture and on the heat map alike
_HEAT = "viridis"
_PANEL = 3.3  # inches
_WIDEST = 80  # columns of a line above the pictures
_NAMED = 8  # characters that a warning lists


def plot(
    image, report, path=None, *, question=None, answer=None, grid=None, processor=None, max_parts=16
):
    """Draws what was kept over the picture, and the mutual information behind it.

    Args:
        image: what the processor was given: a picture, or a list of them, one per image of the
            report in its order. Pillow images, paths or arrays, as picture.to_picture takes them:
            a Pillow image is drawn as it lies, which is how processors read it; a file is turned
            upright, as prune and transformers' load_image do. Of a file that was read as it lies,
            by llama.cpp for example, pass picture.to_picture(file, as_stored=True). A video's
            picture is the list of its frames (or an array (T, H, W, 3)): as many as the report
            has, or a multiple of it where the model merges frames; the first of those that were
            merged is drawn.
        report: pruner.report, a list of ImageReport, one ImageReport or a Selection of one image.
        path: where to save the figure, in a format of Agg (.png, .jpg, ...), PDF or SVG; None does
            not save.
        question: shown above the pictures, in installed fonts that have its characters; if none
            has one, a warning says so.
        answer: shown beside the question.
        grid: (h, w) of the tokens, or (t, h, w) of a video; needed for a Selection, and for a
            report that does not know it.
        processor: the model's processor. If it crops or pads pictures, as CLIP's and LLaVA's do,
            the same part is drawn; without it the tokens are taken to cover the whole picture.
        max_parts: at most so many crops of one image or frames of one video are drawn, evenly
            spread; the figure says which.

    Returns:
        matplotlib.figure.Figure.

    Raises:
        TypeError, ValueError: naming the argument, what was given and what is allowed.
        FileNotFoundError: an image's file is missing.
        OSError: the path cannot be written.
    """
    if path is not None:
        check_writable(path)
        check_not_read(path, image)
    laid_out = drawings(image, report, grid=grid, processor=processor, max_parts=max_parts)
    figure = _draw(laid_out, _headline(question, answer))
    if path is not None:
        _save(figure, path)
    return figure


def check_writable(path) -> None:
    """Refuses what cannot become a picture, before anything is computed for it.

    Raises:
        TypeError: no path.
        ValueError: no file ending, or one that matplotlib does not write.
        OSError: a folder, or no folder to put it in, or no right to.
    """
    # Without an ending matplotlib would append one, and write to another file than was asked for.
    check_output(path, sorted(FigureCanvasAgg.get_supported_filetypes()))


def dim_dropped(pixels: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The picture with dropped patches dark and grey, kept ones as they are.

    Args:
        pixels: uint8 (H, W, 3).
        kept: bool (h, w). A pixel belongs to the patch that its centre lies in, so that the grid
            need not divide the picture.
    """
    rows, columns = map(cell_of, pixels.shape[:2], kept.shape)
    mask = kept[np.ix_(rows, columns)]
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    dimmed = np.repeat((DIM * grey)[..., None], 3, axis=2).round().astype(np.uint8)
    return np.where(mask[..., None], pixels, dimmed)


def _headline(question, answer) -> Writing:
    check_text("question", question)
    check_text("answer", answer)
    shown = [_shorten(text, _WIDEST) for text in (question, answer) if text]
    arrow = "\N{RIGHTWARDS ARROW}"
    text = f"   {arrow}   ".join(shown)
    if _columns(text) > _WIDEST:
        text = f"\n{arrow}   ".join(shown)
    headline = writing(text, "bold")
    if headline.missing:
        said = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in headline.missing[:_NAMED])
        more = f" and {len(headline.missing) - _NAMED} more" if headline.missing[_NAMED:] else ""
        warnings.warn(
            f"plot: no installed font has {said}{more}, which the question or the answer contain: "
            "they are drawn as question marks. Install a font of their script, or use write_html, "
            "whose page is drawn with the browser's fonts",
            UserWarning,
            stacklevel=3,
        )
    return headline


def _shorten(text: str, columns: int) -> str:
    text = text.encode(errors="backslashreplace").decode()  # half a surrogate pair has no glyph
    text = " ".join(text.split())
    if _columns(text) <= columns:
        return text
    fitting = sum(width < columns for width in accumulate(map(_columns, text)))
    return text[:fitting] + "\N{HORIZONTAL ELLIPSIS}"


def _columns(text: str) -> int:
    """The width, where a Chinese character counts for two of Latin ones."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _draw(laid_out: list[Drawing], headline: Writing) -> Figure:
    rows = [(panel, drawing.scale) for drawing in laid_out for panel in drawing.panels]
    left_out = [textwrap.fill(d.left_out, 130) for d in laid_out if d.left_out]
    aspect = max(panel.pixels.shape[0] / panel.pixels.shape[1] for panel, _ in rows)
    row_height = min(2.0, max(0.4, aspect)) * _PANEL + 0.45
    around = (
        0.45
        + (0.4 + 0.25 * headline.text.count("\n") if headline.text else 0)
        + 0.15 * sum(n.count("\n") + 1 for n in left_out)
    )
    size = (3 * _PANEL + 1.3, row_height * len(rows) + around)
    figure = Figure(figsize=size, layout="constrained", dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    if headline.text:
        figure.suptitle(
            headline.text, fontsize=13, fontfamily=headline.families,
            fontweight=headline.weight, parse_math=False,
        )  # fmt: skip
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for row, (panel, scale) in zip(axes, rows, strict=True):
        _draw_picture(row[0], panel)
        _draw_kept(row[1], panel)
        _draw_heat(figure, row[2], panel, scale)
    _draw_legend(figure, "\n".join(left_out))
    return figure


def _draw_legend(figure: Figure, left_out: str) -> None:
    """What the colours mean, and below the figure, too, what it does not show."""
    figure.legend(
        handles=[
            Line2D([], [], color=_OUTLINE, linewidth=2.2, label="kept tokens"),
            Patch(facecolor="0.3", label="dropped tokens (darkened, grey)"),
        ],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9.5,
        title=left_out or None,
        title_fontsize=8.5,
    )


def _draw_picture(axes, panel: Panel) -> None:
    h, w = panel.kept.shape
    axes.imshow(panel.pixels, extent=(0, w, h, 0), aspect=_aspect(panel))
    axes.set_title(f"{panel.name}: {w} x {h} tokens", fontsize=10)
    axes.set_axis_off()


def _draw_kept(axes, panel: Panel) -> None:
    h, w = panel.kept.shape
    axes.imshow(dim_dropped(panel.pixels, panel.kept), extent=(0, w, h, 0), aspect=_aspect(panel))
    _outline(axes, panel.kept)
    n, kept = panel.kept.size, int(panel.kept.sum())
    arrow = "\N{RIGHTWARDS ARROW}"
    axes.set_title(f"{n} {arrow} {kept} tokens ({100 * kept / n:.3g} % kept)", fontsize=10)
    axes.set_axis_off()


def _draw_heat(figure, axes, panel: Panel, scale: tuple[float, float]) -> None:
    h, w = panel.kept.shape
    axes.set_axis_off()
    if panel.scores is None:
        axes.set_title("no scores", fontsize=10)
        axes.text(0.5, 0.5, "kept without scoring", ha="center", va="center", color="0.35")
        return
    shown = np.ma.masked_invalid(panel.scores)  # -inf: masked out; NaN: a row that was not finite
    colours = colormaps[_HEAT].with_extremes(bad="0.75")
    heat = axes.imshow(
        shown, extent=(0, w, h, 0), aspect=_aspect(panel), cmap=colours, interpolation="nearest",
        vmin=scale[0], vmax=scale[1],
    )  # fmt: skip
    _outline(axes, panel.kept)
    axes.set_title("information about the question", fontsize=10)
    bar = figure.colorbar(heat, ax=axes, fraction=0.05, pad=0.03)
    bar.set_label("mutual information (nats)", fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _aspect(panel: Panel) -> float:
    """Axes count tokens, whose height and width in pixels differ where the grid stretches."""
    (height, width), (h, w) = panel.pixels.shape[:2], panel.kept.shape
    return (height / h) / (width / w)


def _outline(axes, kept: np.ndarray) -> None:
    """Draws the border between kept and dropped patches, and around kept ones at the edge."""
    padded = np.pad(kept, 1)
    y, x = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    across = [((left, top), (left + 1, top)) for top, left in zip(y, x, strict=True)]
    y, x = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    down = [((left, top), (left, top + 1)) for top, left in zip(y, x, strict=True)]
    # Thin on fine grids, so that the lines do not hide what they frame.
    width = min(1.8, 40 / max(kept.shape))
    # Not clipped: the border along the picture's edge would lose half its width.
    axes.add_collection(
        LineCollection(across + down, colors=_OUTLINE, linewidths=width, clip_on=False,
                       capstyle="projecting"),
        autolim=False,
    )  # fmt: skip


def _save(figure: Figure, path) -> None:
    drawn = io.BytesIO()
    figure.savefig(drawn, format=os.path.splitext(path)[1][1:].lower())
    write_file(path, drawn.getvalue())
