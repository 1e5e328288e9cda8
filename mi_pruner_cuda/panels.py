"""What plot and write_html draw: each block of visual tokens over the pixels that it shows.

Needs NumPy and Pillow only: neither torch, whose tensors reports hold, nor matplotlib.
"""

import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _arrays, _checks
from .picture import to_picture
from .selection import Selection
from .visible import crop_fractions, visible_part

DIM = 0.35  # brightness that a dropped patch keeps; its colour goes as well
_LONGEST_SIDE = 1024  # pixels: larger pictures are drawn smaller


@dataclass(frozen=True)
class Panel:
    """A picture, a crop of it or a frame of a video.

    name: "frame 3", "image 1, overview".
    pixels: uint8 (H, W, 3).
    tokens: int64 (h, w), the token in each cell, counted within the image or video.
    kept: bool (h, w).
    scores: float64 (h, w) in nats, or None.
    """

    name: str
    pixels: np.ndarray
    tokens: np.ndarray
    kept: np.ndarray
    scores: np.ndarray | None


@dataclass(frozen=True)
class Drawing:
    """One image or video of a report.

    name: "image 1", "video 0".
    entry: its ImageReport or Selection.
    kept: bool (N), of all its tokens, in a panel or not.
    scores: float64 (N) in nats, or None.
    panels: its blocks, in the order of the report.
    left_out: a sentence about blocks that are not drawn; empty if all are.
    """

    name: str
    entry: Any
    kept: np.ndarray
    scores: np.ndarray | None
    panels: list[Panel]
    left_out: str

    @property
    def scale(self) -> tuple[float, float]:
        """(low, high) in nats: what colours of a heat map stand for. One for all blocks, whose
        scores are of one selection and can be compared."""
        finite = [] if self.scores is None else self.scores[np.isfinite(self.scores)]
        if not len(finite):
            return 0.0, 1.0
        low, high = min(0.0, float(finite.min())), float(finite.max())
        return low, high if high > low else low + 1


@dataclass(frozen=True, eq=False)
class _Block:
    """A Part of the report, or what stands for one. tokens: int64 (h, w)."""

    tokens: np.ndarray
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    frame: int = 0
    name: str = ""


def drawings(image, report, *, grid=None, processor=None, max_parts: int = 16) -> list[Drawing]:
    """Lays a report over its pictures.

    Args:
        image, report, grid, processor, max_parts: as plot takes them.

    Raises:
        TypeError, ValueError: naming the argument, what was given and what is allowed.
        FileNotFoundError: an image's file is missing.
    """
    if isinstance(max_parts, bool) or not isinstance(max_parts, int):
        raise TypeError(f"max_parts: got {max_parts!r}, allowed is an integer >= 1")
    if max_parts < 1:
        raise ValueError(f"max_parts: got {max_parts}, allowed is an integer >= 1")
    entries = _drawable(report)
    blocks = [_blocks(entry, grid) for entry in entries]
    pictures = _deal_out(image, [_is_video(e, b) for e, b in zip(entries, blocks, strict=True)])
    alone = len(entries) == 1
    return [
        _drawing(f"{_kind(entry)} {number}", alone, entry, own, picture, processor, max_parts)
        for number, (entry, own, picture) in enumerate(zip(entries, blocks, pictures, strict=True))
    ]


def report_entries(report) -> list:
    """Everything in whatever stands for a report, in order.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(report, (list, tuple)):
        report = [report]
    for entry in report:
        # Not by class: this module does not need torch, and ImageReport's does.
        if not isinstance(entry, Selection) and not hasattr(entry, "tokens_before"):
            raise TypeError(
                f"report: got {type(entry).__name__}, allowed is pruner.report, an ImageReport, a "
                "Selection or a list of them"
            )
    return list(report)


def numbers(values, name: str) -> np.ndarray | None:
    """A NumPy array of a tensor on any device, or of whatever NumPy takes.

    Args:
        values: float scores, None among them for those that are not finite, or whole numbers.
        name: of the report's field; "scores" become float64, all others int64.

    Raises:
        TypeError, ValueError: the conversion would lose something: a mask, a unit, a fraction.
    """
    if values is None:
        return None
    wanted = f"report: its {name}"
    if hasattr(values, "detach"):
        values = _from_tensor(wanted, values)
    if name != "scores":
        return _arrays.integers(wanted, _whole(wanted, values))
    array = _arrays.plain(wanted, values if isinstance(values, np.ndarray) else np.asarray(values))
    if array.dtype == object and all(v is None or _checks.is_number(v) for v in array.flat):
        return array.astype(np.float64)  # None becomes NaN
    if array.size and array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16":
        raise TypeError(f"{wanted} are not numbers: got dtype {array.dtype}")
    return array.astype(np.float64)


def _whole(name: str, values):
    """Whole numbers that are held as floats, as integers; anything else as it is."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        whole = _arrays.plain(name, values)
        if (np.trunc(whole) == whole).all() and (np.abs(whole) < 2**53).all():
            return whole.astype(np.int64)
    return values


def _from_tensor(name: str, tensor) -> np.ndarray:
    try:
        tensor = tensor.detach().cpu().resolve_neg()
        # NumPy has no bfloat16.
        return (tensor.double() if tensor.is_floating_point() else tensor).numpy()
    except (TypeError, RuntimeError) as error:  # sparse, nested, masked
        raise TypeError(f"{name} are not numbers: {error}") from None


def cell_of(pixels: int, cells: int) -> np.ndarray:
    """(pixels): the row or column of the grid that each pixel's centre lies in. The grid need not
    divide the picture."""
    return (2 * np.arange(pixels) + 1) * cells // (2 * pixels)


def cell_edges(pixels: int, cells: int) -> np.ndarray:
    """(cells + 1): the first pixel of each row or column of the grid, and the end."""
    return np.searchsorted(cell_of(pixels, cells), np.arange(cells + 1))


def token_count(entry) -> int:
    """Visual tokens before pruning."""
    if not isinstance(entry, Selection):
        return entry.tokens_before
    scores = numbers(entry.scores, "scores")
    if scores is None or scores.ndim == 0:
        raise TypeError(f"report: its scores are no array: got {entry.scores!r}")
    return scores.shape[-1]


def kept_mask(entry) -> np.ndarray:
    """bool (N); all, where no choice was made."""
    tokens, indices = token_count(entry), numbers(entry.indices, "indices")
    if indices is None:
        return np.ones(tokens, bool)
    if indices.ndim != 1 or ((indices < 0) | (indices >= tokens)).any():
        raise ValueError(
            f"report: indices of shape {indices.shape}, allowed are numbers in [0, {tokens}) of "
            "one image; draw the items of a batch one by one"
        )
    kept = np.zeros(tokens, bool)
    kept[indices] = True
    return kept


def is_drawn(entry) -> bool:
    """Not so for a prompt without images."""
    return isinstance(entry, Selection) or entry.image is not None


def _drawable(report) -> list:
    """The images and videos of a report."""
    entries = report_entries(report)
    drawable = [entry for entry in entries if is_drawn(entry)]
    if not drawable:
        said = entries[0].reason if entries else "no prefill yet"
        raise ValueError(f"report: it has no image to draw: {said}")
    return drawable


def _kind(entry) -> str:
    return getattr(entry, "kind", "image")


def _is_video(entry, blocks: list[_Block]) -> bool:
    return _kind(entry) == "video" or len({block.frame for block in blocks}) > 1


def _blocks(entry, grid) -> list[_Block]:
    """Where the tokens lie: from the caller's grid, the report's parts or the report's grid."""
    tokens = token_count(entry)
    parts = () if grid is not None else getattr(entry, "parts", ())
    blocks = [_Block(numbers(p.tokens, "parts"), p.box, p.frame, p.name) for p in parts]
    for block in blocks:
        if block.tokens.min() < 0 or block.tokens.max() >= tokens:
            raise ValueError(
                f"report: its part {block.name!r} has tokens {block.tokens.min()} to "
                f"{block.tokens.max()}, allowed are numbers in [0, {tokens})"
            )
    if blocks:
        return blocks
    *_, h, w = _grid(entry, grid, tokens)
    frames = np.arange(tokens).reshape(-1, h, w)
    named = len(frames) > 1
    return [
        _Block(own, frame=t, name=f"frame {t}" if named else "") for t, own in enumerate(frames)
    ]


def _grid(entry, grid, tokens: int) -> tuple[int, ...]:
    """(h, w) or (t, h, w) in tokens, from the caller or from the report."""
    known = getattr(entry, "grid", None) if grid is None else grid
    if known is None:
        raise ValueError(f"grid: unknown for these {tokens} tokens, pass grid=(h, w)")
    try:
        known = tuple(map(operator.index, known))
    except (TypeError, ValueError):
        raise TypeError(f"grid: got {grid!r}, allowed is (h, w) in tokens") from None
    if len(known) not in (2, 3) or min(known) < 1 or math.prod(known) != tokens:
        raise ValueError(
            f"grid: got {known}, allowed is (h, w) with h * w = {tokens} tokens, or (t, h, w) of "
            "as many"
        )
    return known


def _deal_out(image, videos: list[bool]) -> list:
    """One picture, or sequence of frames, per entry.

    Args:
        image: as the caller gave it.
        videos: per entry, whether it has frames.
    """
    given = list(image) if _is_sequence(image) else [image]
    if len(videos) == 1 and videos[0] and not (len(given) == 1 and _is_sequence(given[0])):
        given = [given]  # the frames of the only video
    if len(given) != len(videos):
        raise ValueError(f"image: got {len(given)}, the report has {len(videos)} images")
    return given


def _is_sequence(image) -> bool:
    """Lists of pictures, and arrays (T, H, W, 3)."""
    return isinstance(image, (list, tuple)) or getattr(image, "ndim", 0) == 4


def _drawing(name, alone, entry, blocks, picture, processor, max_parts) -> Drawing:
    tokens = token_count(entry)
    kept, scores = kept_mask(entry), _scores(entry, tokens)
    frames = _frames(picture, blocks, name, _is_video(entry, blocks))
    drawn = [blocks[n] for n in _spread(len(blocks), max_parts)]
    panels, opened = [], {}
    for block in drawn:
        if block.frame not in opened:
            opened = {block.frame: to_picture(frames[block.frame])}  # one at a time: videos are big
        own = "" if alone and block.name else "the picture" if alone else name
        panels.append(
            Panel(
                name=", ".join(filter(None, (own, block.name))),
                pixels=_pixels(opened[block.frame], block, entry, len(blocks), processor),
                tokens=block.tokens,
                kept=kept[block.tokens],
                scores=None if scores is None else scores[block.tokens],
            )
        )
    return Drawing(name, entry, kept, scores, panels, _left_out(name, drawn, blocks))


def _scores(entry, tokens: int) -> np.ndarray | None:
    scores = numbers(entry.scores, "scores")
    if scores is not None and scores.shape != (tokens,):
        raise ValueError(
            f"report: scores of shape {scores.shape}, allowed is ({tokens},), one per token"
        )
    return scores


def _frames(picture, blocks: list[_Block], name: str, video: bool) -> dict:
    """The picture of each frame number. Models that merge frames give several to one number: the
    first of them is shown."""
    distinct = sorted({block.frame for block in blocks})
    given = list(picture) if _is_sequence(picture) else [picture]
    if not video and len(given) != 1:
        raise ValueError(f"image: got {len(given)} pictures for {name}, allowed is one")
    if not given or len(given) % len(distinct):
        raise ValueError(
            f"image: got {len(given)} frames for {name}, allowed are {len(distinct)}, as the report"
            " has, or a multiple of it where the model merges frames"
        )
    return dict(zip(distinct, given[:: len(given) // len(distinct)], strict=True))


def _spread(parts: int, most: int) -> list[int]:
    """Which parts to draw: all, or `most` of them from the first to the last, evenly."""
    if parts <= most:
        return list(range(parts))
    return sorted({round(n) for n in np.linspace(0, parts - 1, most).tolist()})


def _pixels(picture, block: _Block, entry, blocks: int, processor) -> np.ndarray:
    """uint8 (H, W, 3) of what the block shows."""
    if blocks == 1 or _kind(entry) == "video":
        if _kind(entry) == "video":
            processor = getattr(processor, "video_processor", None) or processor
        picture = visible_part(picture, processor)
    picture = crop_fractions(picture, block.box)
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return np.asarray(picture)


def _left_out(name: str, drawn: list[_Block], blocks: list[_Block]) -> str:
    if len(drawn) == len(blocks):
        return ""
    shown = "; ".join(block.name or f"part {blocks.index(block)}" for block in drawn)
    return (
        f"{name}: {len(drawn)} of {len(blocks)} parts are drawn ({shown}), "
        f"{len(blocks) - len(drawn)} left out"
    )
