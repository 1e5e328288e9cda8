"""plot: what was kept of a picture, and what every part of it has to say about the question.

One row per image:
1. the picture as the model sees it;
2. the same, with dropped patches dimmed and the kept ones outlined;
3. the heat map of mutual information, with the same outline.

Everything goes through a Figure with an Agg canvas of its own: pyplot's state and the backend that
the caller chose are left alone.
"""

import math
import os
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .picture import to_picture, visible_box
from .selection import Selection

_OUTLINE = "#ffb000"  # orange: stands out on the dimmed picture and on the heat map alike
_HEAT = "viridis"
_DIM = 0.35  # brightness that a dropped patch keeps; its colour goes as well
_LONGEST_SIDE = 1024  # pixels: larger pictures are drawn smaller
_PANEL = 3.3  # inches


@dataclass(frozen=True)
class _Panel:
    """One image: its name, uint8 pixels (H, W, 3), kept (h, w), scores (h, w) in nats or None."""

    name: str
    pixels: np.ndarray
    kept: np.ndarray
    scores: np.ndarray | None


def plot(image, report, path=None, *, question=None, answer=None, grid=None, processor=None):
    """Draws what was kept over the picture, and the mutual information behind it.

    Args:
        image: a picture, or a list of them, one per image of the report in its order: Pillow
            images, paths, or arrays as picture.to_picture takes them.
        report: pruner.report, a list of ImageReport, one ImageReport or a Selection of one image.
        path: where to save the figure, in a format of Agg (.png, .jpg, ...), PDF or SVG; None does
            not save.
        question: shown above the pictures.
        answer: shown beside the question.
        grid: (h, w) of the tokens; needed for a Selection, and for a report that does not know it.
        processor: the model's processor. If it crops pictures, as CLIP's does, the same part is
            drawn; without it the tokens are taken to cover the whole picture.

    Returns:
        matplotlib.figure.Figure.

    Raises:
        TypeError, ValueError: naming the argument, what was given and what is allowed.
        FileNotFoundError: an image's file is missing.
        OSError: the path cannot be written.
    """
    if path is not None:
        check_writable(path)
    entries = _entries(report)
    pictures = list(image) if isinstance(image, (list, tuple)) else [image]
    if len(pictures) != len(entries):
        raise ValueError(f"image: got {len(pictures)}, the report has {len(entries)} images")
    names = [f"image {n}" for n in range(len(entries))] if len(entries) > 1 else ["the picture"]
    panels = [
        _panel(name, to_picture(picture), entry, grid, processor)
        for name, picture, entry in zip(names, pictures, entries, strict=True)
    ]
    figure = _draw(panels, _headline(question, answer))
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
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path: got {type(path).__name__}, allowed is a path")
    path = os.fspath(path)
    ending = os.path.splitext(path)[1].lower()
    allowed = sorted(FigureCanvasAgg.get_supported_filetypes())
    # Without an ending matplotlib would append one, and write to another file than was asked for.
    if ending[1:] not in allowed:
        raise ValueError(f"path: got {path!r}, allowed endings are .{', .'.join(allowed)}")
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise IsADirectoryError(f"path: {path} is a folder, allowed is a file")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"path: there is no folder {folder}")
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise PermissionError(f"path: {path} cannot be written")


def dim_dropped(pixels: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The picture with dropped patches dark and grey, kept ones as they are.

    Args:
        pixels: uint8 (H, W, 3).
        kept: bool (h, w). A pixel belongs to the patch that its centre lies in, so that the grid
            need not divide the picture.
    """
    mask = kept[np.ix_(_cell_of(pixels.shape[0], kept.shape[0]),
                       _cell_of(pixels.shape[1], kept.shape[1]))]  # fmt: skip
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    dimmed = np.repeat((_DIM * grey)[..., None], 3, axis=2).round().astype(np.uint8)
    return np.where(mask[..., None], pixels, dimmed)


def _cell_of(pixels: int, cells: int) -> np.ndarray:
    """(pixels): the row or column of the grid that each pixel's centre lies in."""
    return (2 * np.arange(pixels) + 1) * cells // (2 * pixels)


def _entries(report) -> list:
    """The images of whatever stands for a report."""
    if not isinstance(report, (list, tuple)):
        report = [report]
    for entry in report:
        # Not by class: this module does not need torch, and ImageReport's does.
        if not isinstance(entry, Selection) and not hasattr(entry, "tokens_before"):
            raise TypeError(
                f"report: got {type(entry).__name__}, allowed is pruner.report, an ImageReport, a "
                "Selection or a list of them"
            )
    entries = [e for e in report if isinstance(e, Selection) or e.image is not None]
    if not entries:
        said = report[0].reason if report else "no prefill yet"
        raise ValueError(f"report: it has no image to draw: {said}")
    return entries


def _panel(name, picture, entry, grid, processor) -> _Panel:
    h, w = _grid(entry, grid)
    tokens = h * w
    indices = _numbers(entry.indices, "indices")
    if indices is None:
        indices = np.arange(tokens)
    if indices.ndim != 1 or ((indices < 0) | (indices >= tokens)).any():
        raise ValueError(
            f"report: indices of shape {indices.shape}, allowed are numbers in [0, {tokens}) of "
            "one image; draw the items of a batch one by one"
        )
    scores = _numbers(entry.scores, "scores")
    if scores is not None and scores.shape != (tokens,):
        raise ValueError(
            f"report: scores of shape {scores.shape}, allowed is ({tokens},) for a {h} x {w} grid"
        )
    kept = np.zeros(tokens, bool)
    kept[indices.astype(np.int64)] = True
    picture = picture.crop(visible_box(picture, processor))
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return _Panel(
        name=name,
        pixels=np.asarray(picture),
        kept=kept.reshape(h, w),
        scores=None if scores is None else scores.reshape(h, w),
    )


def _grid(entry, grid) -> tuple[int, int]:
    """(h, w) in tokens, from the report or from the caller."""
    tokens = entry.scores.shape[-1] if isinstance(entry, Selection) else entry.tokens_before
    known = getattr(entry, "grid", None) if grid is None else grid
    if known is None:
        raise ValueError(f"grid: unknown for these {tokens} tokens, pass grid=(h, w)")
    try:
        known = tuple(int(n) for n in known)
    except (TypeError, ValueError):
        raise TypeError(f"grid: got {grid!r}, allowed is (h, w) in tokens") from None
    if len(known) == 3 and known[0] == 1:
        known = known[1:]
    if len(known) != 2 or min(known) < 1 or math.prod(known) != tokens:
        raise ValueError(f"grid: got {known}, allowed is (h, w) with h * w = {tokens} tokens")
    return known


def _numbers(values, name: str) -> np.ndarray | None:
    """A NumPy array of a tensor on any device, or of whatever NumPy takes."""
    if values is None:
        return None
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if values.is_floating_point():
            values = values.float()  # NumPy has no bfloat16
        values = values.numpy()
    try:
        return np.asarray(values, np.int64 if name == "indices" else np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"report: its {name} are not numbers") from None


def _headline(question, answer) -> str:
    for name, text in (("question", question), ("answer", answer)):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{name}: got {type(text).__name__}, allowed is a text")
    return "   \N{RIGHTWARDS ARROW}   ".join(_shorten(t, 90) for t in (question, answer) if t)


def _shorten(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _draw(panels: list[_Panel], headline: str) -> Figure:
    aspect = max(p.pixels.shape[0] / p.pixels.shape[1] for p in panels)
    row_height = min(2.0, max(0.4, aspect)) * _PANEL + 0.45
    size = (3 * _PANEL + 1.3, row_height * len(panels) + 0.45 + (0.4 if headline else 0))
    figure = Figure(figsize=size, layout="constrained", dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    if headline:
        figure.suptitle(headline, fontsize=13, fontweight="bold", parse_math=False)
    axes = figure.subplots(len(panels), 3, squeeze=False)
    for row, panel in zip(axes, panels, strict=True):
        _draw_picture(row[0], panel)
        _draw_kept(row[1], panel)
        _draw_heat(figure, row[2], panel)
    figure.legend(
        handles=[
            Line2D([], [], color=_OUTLINE, linewidth=2.2, label="kept tokens"),
            Patch(facecolor="0.3", label="dropped tokens (darkened, grey)"),
        ],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9.5,
    )
    return figure


def _draw_picture(axes, panel: _Panel) -> None:
    h, w = panel.kept.shape
    axes.imshow(panel.pixels, extent=(0, w, h, 0), aspect=_aspect(panel))
    axes.set_title(f"{panel.name}: {w} x {h} tokens", fontsize=10)
    axes.set_axis_off()


def _draw_kept(axes, panel: _Panel) -> None:
    h, w = panel.kept.shape
    axes.imshow(dim_dropped(panel.pixels, panel.kept), extent=(0, w, h, 0), aspect=_aspect(panel))
    _outline(axes, panel.kept)
    n, kept = panel.kept.size, int(panel.kept.sum())
    arrow = "\N{RIGHTWARDS ARROW}"
    axes.set_title(f"{n} {arrow} {kept} tokens ({100 * kept / n:.3g} % kept)", fontsize=10)
    axes.set_axis_off()


def _draw_heat(figure, axes, panel: _Panel) -> None:
    h, w = panel.kept.shape
    axes.set_axis_off()
    if panel.scores is None:
        axes.set_title("no scores", fontsize=10)
        axes.text(0.5, 0.5, "kept without scoring", ha="center", va="center", color="0.35")
        return
    shown = np.ma.masked_invalid(panel.scores)  # -inf: masked out; NaN: a row that was not finite
    low = min(0.0, float(shown.min())) if shown.count() else 0.0
    high = float(shown.max()) if shown.count() else 1.0
    colours = colormaps[_HEAT].with_extremes(bad="0.75")
    heat = axes.imshow(
        shown, extent=(0, w, h, 0), aspect=_aspect(panel), cmap=colours, interpolation="nearest",
        vmin=low, vmax=high if high > low else low + 1,
    )  # fmt: skip
    _outline(axes, panel.kept)
    axes.set_title("information about the question", fontsize=10)
    bar = figure.colorbar(heat, ax=axes, fraction=0.05, pad=0.03)
    bar.set_label("mutual information (nats)", fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _aspect(panel: _Panel) -> float:
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
    try:
        figure.savefig(path)
    except OSError as error:
        raise type(error)(f"path: {path} cannot be written: {error.strerror or error}") from error
