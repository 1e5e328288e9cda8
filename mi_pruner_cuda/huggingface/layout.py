"""How the placeholders of a prompt make up images, videos, tiles and frames.

A layout is a function (scene, kind, visual) -> list of Shape, one per image or video of the batch,
in the order of their placeholders. Each model of the table names two: one for images, one for
videos. They read, in this order of preference, what the call states (grids, pixels, features), what
the ids show (runs of placeholders and the tokens between them), and the value of learned row
breaks; never the names of models.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn

from .call import Call
from .report import Part


@dataclass(frozen=True)
class Shape:
    """One image or video.

    tokens: how many placeholders.
    grid: (t, h, w) or (h, w) in tokens; None if unknown or not one grid.
    parts: where its tokens lie in the picture or in time; empty if unknown.
    blocks: its tiles, views or frames as ranges of tokens; empty if it is one block.
    breaks: tokens that are learned row breaks: always kept, outside the budget.
    """

    tokens: int
    grid: tuple[int, ...] | None = None
    parts: tuple[Part, ...] = ()
    blocks: tuple[range, ...] = ()
    breaks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Scene:
    """What a layout may look at.

    call: the forward's arguments.
    config: the model's.
    base: the module that merges images into text.
    embeddings: (B, L, D), merged.
    positions: what the language model would use, (B, L) or (3 or 4, B, L), or None.
    """

    call: Call
    config: object
    base: nn.Module
    embeddings: torch.Tensor
    positions: torch.Tensor | None

    def counts(self, kind: str, total: int) -> list[int] | None:
        """Tokens of each image, tile or video in what the encoder returned or will return."""
        features = self.call.features(kind)
        if features is not None:
            return [rows.shape[:-1].numel() for rows in features]
        pixels = self.call.pixels(kind)
        if pixels is None or not len(pixels) or total % len(pixels):
            return None
        return [total // len(pixels)] * len(pixels)


@dataclass(frozen=True)
class Run:
    """Neighbouring placeholders of one item: columns start to stop."""

    item: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def runs_of(visual: torch.Tensor) -> list[Run]:
    """bool (B, L) -> its runs of True, item by item."""
    padded = nn.functional.pad(visual.to(torch.int8), (1, 1))
    steps = padded.diff(dim=1)
    starts, stops = (steps == 1).nonzero().tolist(), (steps == -1).nonzero().tolist()
    return [Run(item, a, b) for (item, a), (_, b) in zip(starts, stops, strict=True)]


# ---- pictures of one size ----


def same_size(scene: Scene, kind: str, visual: torch.Tensor) -> list[Shape]:
    """Each picture fills the same square of tokens."""
    counts = scene.counts(kind, int(visual.sum()))
    return [_one_grid(n, _square(n)) for n in counts or []]


def tiles_in_a_row(scene: Scene, kind: str, visual: torch.Tensor) -> list[Shape]:
    """Each run of placeholders is a picture, of tiles without anything between (InternVL).

    Where there are several, the last is an overview of the whole picture.
    """
    counts = scene.counts(kind, int(visual.sum()))
    tile = counts[0] if counts else 0
    shapes = []
    for run in runs_of(visual):
        if not tile or len(run) % tile:
            return []
        shapes.append(_tiles([tile] * (len(run) // tile), None))
    return shapes


def tiles_by_mark(scene: Scene, kind: str, visual: torch.Tensor) -> list[Shape]:
    """Tiles with a mark before each; a picture ends with its overview (Aya Vision)."""
    return [_tiles([len(run) for run in group], None) for group in _pictures_by_mark(scene, visual)]


def tiles_in_rows(scene: Scene, kind: str, visual: torch.Tensor) -> list[Shape]:
    """The same, with a line break behind each row of tiles (Idefics3, SmolVLM)."""
    return [
        _tiles([len(run) for run in group], _columns_of_tiles(scene.call.input_ids, group))
        for group in _pictures_by_mark(scene, visual)
    ]


def runs(scene: Scene, kind: str, visual: torch.Tensor) -> list[Shape]:
    """Each run of placeholders is a picture of its own; nothing else is known about it."""
    return [_one_grid(len(run), _square(len(run))) for run in runs_of(visual)]


# ---- pictures of any size ----


def rows_by_break(scene: Scene, kind: str, visual: torch.Tensor) -> list[Shape]:
    """Rows of patches with a token between, which is text to the model and stays (Pixtral).

    The token behind an item's last row is that of a picture's end.
    """
    ids = scene.call.input_ids
    shapes: list[Shape] = []
    for rows in _by_item(runs_of(visual)):
        ends = [int(ids[r.item, r.stop]) if r.stop < ids.shape[1] else -1 for r in rows]
        group: list[int] = []
        for row, end in zip(rows, ends, strict=True):
            group.append(len(row))
            if end == ends[-1]:
                grid = (len(group), group[0]) if len(set(group)) == 1 else None
                shapes.append(_one_grid(sum(group), grid))
                group = []
    return shapes


def same_size_or_rows(scene: Scene, kind: str, visual: torch.Tensor) -> list[Shape]:
    """LLaVA's two kinds of vision tower: of one size, or Pixtral's, which takes any."""
    pixtral = scene.config.vision_config.model_type == "pixtral"
    return (rows_by_break if pixtral else same_size)(scene, kind, visual)


def any_resolution(scene: Scene, kind: str, visual: torch.Tensor) -> list[Shape]:
    """An overview, then the picture's own resolution with a learned break behind each row
    (LLaVA-NeXT); or the overview and one break.
    """
    side = _patches(scene.config)
    overview = side * side
    shapes: list[Shape] = []
    for run in runs_of(visual):
        broken = _is_break(scene, run)
        start = 0
        while start < len(run):
            width, height = _detail(broken, start, overview)
            if width is None:
                return []
            shapes.append(_overview_and_detail(side, height, width))
            start += shapes[-1].tokens
    return shapes


def grids(scene: Scene, kind: str, visual: torch.Tensor) -> list[Shape]:
    """Pictures and videos that image_grid_thw and video_grid_thw describe, in patches before
    merging (Qwen-VL, GLM-4V).

    generate of transformers 5 has used the grid up when the forward comes, or repeated it in
    another order than the beams: then the counts are those of the features, and the grid is read
    off the runs and the positions.
    """
    grid = scene.call.inputs.get(f"{kind}_grid_thw")
    if grid is not None and scene.call.features(kind) is None:
        merge = scene.config.vision_config.spatial_merge_size
        return [_frames((t, h // merge, w // merge)) for t, h, w in grid.tolist()]
    counts = scene.counts(kind, int(visual.sum())) or []
    if sum(counts) != int(visual.sum()):
        return [Shape(n) for n in counts]
    where = visual.nonzero().split(counts)
    return [_grid_from_positions(scene.positions, columns) for columns in where]


# ---- videos ----


def even_frames(scene: Scene, kind: str, visual: torch.Tensor) -> list[Shape]:
    """Videos of square frames that have been pooled (LLaVA-NeXT-Video)."""
    side = _patches(scene.config) // scene.config.spatial_pool_stride
    counts = scene.counts(kind, int(visual.sum())) or []
    return [_square_frames(n, side, first=0) for n in counts]


def frames_with_class_row(scene: Scene, kind: str, visual: torch.Tensor) -> list[Shape]:
    """Videos whose frames begin with the class row (Video-LLaVA); each run is a video."""
    side = _patches(scene.config)
    return [_square_frames(len(run), side, first=1) for run in runs_of(visual)]


def frames_and_a_break(scene: Scene, kind: str, visual: torch.Tensor) -> list[Shape]:
    """Videos of halved frames with one learned break at the end (LLaVA-OneVision)."""
    side = math.ceil(_patches(scene.config) / 2)
    shapes = []
    for run in runs_of(visual):
        ends = [i for i, broken in enumerate(_is_break(scene, run)) if broken]
        for begin, end in zip([-1, *ends], ends, strict=False):
            frames = _square_frames(end - begin - 1, side, first=0)
            shapes.append(
                Shape(end - begin, frames.grid, frames.parts, frames.blocks, (frames.tokens,))
            )
    return shapes


# ---- pieces ----


def _by_item(found: list[Run]) -> list[list[Run]]:
    items: dict[int, list[Run]] = {}
    for run in found:
        items.setdefault(run.item, []).append(run)
    return list(items.values())


def _pictures_by_mark(scene: Scene, visual: torch.Tensor) -> list[list[Run]]:
    """Runs that belong together. The mark before an item's last run is that of an overview: every
    run behind such a mark ends a picture.
    """
    ids = scene.call.input_ids
    pictures: list[list[Run]] = []
    for own in _by_item(runs_of(visual)):
        marks = [int(ids[run.item, run.start - 1]) if run.start else -1 for run in own]
        pictures.append([])
        for run, mark in zip(own, marks, strict=True):
            pictures[-1].append(run)
            if mark == marks[-1]:
                pictures.append([])
        pictures.pop()  # the last run ended a picture
    return pictures


def _patches(config) -> int:
    """Patches along a side of the vision tower's square."""
    vision = config.vision_config
    return vision.image_size // vision.patch_size


def _square(tokens: int) -> tuple[int, int] | None:
    side = math.isqrt(tokens)
    return (side, side) if side * side == tokens else None


def _one_grid(tokens: int, grid: tuple[int, int] | None) -> Shape:
    parts = () if grid is None else (Part(0, grid, grid[1]),)
    return Shape(tokens, grid, parts)


def _tiles(sizes: list[int], columns: int | None) -> Shape:
    """A picture in tiles, the last an overview; of one tile if it is whole.

    columns: how many tiles lie beside each other; None if unknown, then only the overview is a
        part.
    """
    if len(sizes) == 1:
        return _one_grid(sizes[0], _square(sizes[0]))
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    blocks = tuple(range(a, a + n) for a, n in zip(starts, sizes, strict=True))
    *tiles, overview = blocks
    parts = []
    if columns and len(tiles) % columns == 0:
        height, width = columns / len(tiles), 1 / columns
        for i, tile in enumerate(tiles):
            y, x = divmod(i, columns)
            box = (x * width, y * height, (x + 1) * width, (y + 1) * height)
            parts.append((tile, box, f"crop {y + 1}, {x + 1}"))
    parts.append((overview, (0.0, 0.0, 1.0, 1.0), "overview"))
    squares = [(block.start, _square(len(block)), box, name) for block, box, name in parts]
    return Shape(
        sum(sizes),
        None,
        tuple(Part(first, g, g[1], box, 0, name) for first, g, box, name in squares if g),
        blocks,
    )


def _columns_of_tiles(ids: torch.Tensor, group: list[Run]) -> int | None:
    """Behind the overview and behind each tile but a row's last stands the frame's token."""
    behind = [int(ids[run.item, run.stop]) if run.stop < ids.shape[1] else -1 for run in group]
    return next((i for i, token in enumerate(behind[:-1], 1) if token != behind[-1]), None)


def _is_break(scene: Scene, run: Run) -> list[bool]:
    rows = scene.embeddings[run.item, run.start : run.stop]
    newline = scene.base.image_newline.detach().to(rows.device, rows.dtype)
    return (rows == newline).all(-1).tolist()


def _detail(broken: list[bool], start: int, overview: int) -> tuple[int | None, int]:
    """(width, height) of what follows an overview; (0, 0) if only a break does, (None, 0) if
    neither.
    """
    first = next((i for i in range(start, len(broken)) if broken[i]), None)
    if first is None or first < start + overview:
        return None, 0
    width, height = first - start - overview, 0
    while width and first < len(broken) and broken[first]:
        height, first = height + 1, first + width + 1
    return width, height


def _overview_and_detail(side: int, height: int, width: int) -> Shape:
    overview = side * side
    first = Part(0, (side, side), side, name="overview")
    if not height:
        return Shape(overview + 1, None, (first,), (range(overview),), (overview,))
    tokens = overview + height * (width + 1)
    breaks = tuple(range(overview + width, tokens, width + 1))
    detail = Part(overview, (height, width), width + 1, name="detail")
    blocks = (range(overview), range(overview, tokens))
    return Shape(tokens, None, (first, detail), blocks, breaks)


def _frames(grid: tuple[int, int, int]) -> Shape:
    t, h, w = grid
    frame = h * w
    if t == 1:
        return Shape(frame, grid, (Part(0, (h, w), w),))
    parts = tuple(Part(i * frame, (h, w), w, frame=i, name=f"frame {i}") for i in range(t))
    blocks = tuple(range(i * frame, (i + 1) * frame) for i in range(t))
    return Shape(t * frame, grid, parts, blocks)


def _square_frames(tokens: int, side: int, first: int) -> Shape:
    """first: rows of each frame before its patches."""
    frame = first + side * side
    if tokens % frame:
        return Shape(tokens)
    t = tokens // frame
    parts = tuple(
        Part(i * frame + first, (side, side), side, frame=i, name=f"frame {i}") for i in range(t)
    )
    blocks = tuple(range(i * frame, (i + 1) * frame) for i in range(t))
    return Shape(tokens, (t, side, side) if not first else None, parts, blocks)


def _grid_from_positions(positions: torch.Tensor | None, columns: torch.Tensor) -> Shape:
    """columns: int64 (tokens, 2), item and column of each placeholder.

    Frames are the runs where text lies between (Qwen3-VL), else what rows and columns leave: two
    frames may have the same time (Qwen2.5-VL at more frames a second than it counts).
    """
    tokens = len(columns)
    if positions is None or positions.dim() != 3:
        return Shape(tokens)
    columns = columns.to(positions.device)
    batch = int(columns[:, 0].max()) + 1
    planes = positions[-3:].expand(-1, max(batch, positions.shape[1]), -1)
    planes = planes[:, columns[:, 0], columns[:, 1]]
    frames = 1 + int((columns[:, 1].diff() != 1).sum())
    if tokens % frames:
        return Shape(tokens)
    h, w = (len(axis.unique()) for axis in planes[1:, : tokens // frames])
    t = tokens // (h * w)
    return _frames((t, h, w)) if t * h * w == tokens else Shape(tokens)
