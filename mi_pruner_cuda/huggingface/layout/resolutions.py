"""Pictures of any size."""

import torch

from ..report import Part
from .frames import frames_of_grid
from .scene import Scene, Shape, breaks_of, by_item, one_grid, patches_of_side, runs_of
from .tiles import same_size


def rows_by_break(scene: Scene, kind: str, visual: torch.Tensor) -> list[Shape]:
    """Rows of patches with a token between, which is text to the model and stays (Pixtral).

    The token behind an item's last row is that of a picture's end.
    """
    ids = scene.call.input_ids
    shapes: list[Shape] = []
    for rows in by_item(runs_of(visual)):
        ends = [int(ids[r.item, r.stop]) if r.stop < ids.shape[1] else -1 for r in rows]
        group: list[int] = []
        for row, end in zip(rows, ends, strict=True):
            group.append(len(row))
            if end == ends[-1]:
                grid = (len(group), group[0]) if len(set(group)) == 1 else None
                shapes.append(one_grid(sum(group), grid))
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
    side = patches_of_side(scene.config)
    overview = side * side
    shapes: list[Shape] = []
    for run in runs_of(visual):
        broken = breaks_of(scene, run)
        start = 0
        while start < len(run):
            width, height = _detail(broken, start, overview)
            if width is None:
                raise ValueError(
                    f"{kind}s: {len(run) - start} tokens from column {run.start + start} of item "
                    f"{run.item} are no picture: an overview of {overview} tokens and then row "
                    "breaks that equal image_newline were looked for"
                )
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
        return [frames_of_grid((t, h // merge, w // merge)) for t, h, w in grid.tolist()]
    counts = scene.counts(kind, int(visual.sum())) or []
    if sum(counts) != int(visual.sum()):
        return [Shape(n) for n in counts]
    where = visual.nonzero().split(counts)
    return [_grid_from_positions(scene.positions, columns) for columns in where]


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
    return frames_of_grid((t, h, w)) if t * h * w == tokens else Shape(tokens)
