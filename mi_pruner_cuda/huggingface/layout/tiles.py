"""Pictures of one size, whole or in tiles."""

import torch

from ..report import Part
from .scene import Run, Scene, Shape, by_item, one_grid, runs_of, square


def same_size(scene: Scene, kind: str, visual: torch.Tensor) -> list[Shape]:
    """Each picture fills the same square of tokens."""
    counts = scene.counts(kind, int(visual.sum()))
    return [one_grid(n, square(n)) for n in counts or []]


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
    return [one_grid(len(run), square(len(run))) for run in runs_of(visual)]


def _pictures_by_mark(scene: Scene, visual: torch.Tensor) -> list[list[Run]]:
    """Runs that belong together. The mark before an item's last run is that of an overview: every
    run behind such a mark ends a picture.
    """
    ids = scene.call.input_ids
    pictures: list[list[Run]] = []
    for own in by_item(runs_of(visual)):
        marks = [int(ids[run.item, run.start - 1]) if run.start else -1 for run in own]
        pictures.append([])
        for run, mark in zip(own, marks, strict=True):
            pictures[-1].append(run)
            if mark == marks[-1]:
                pictures.append([])
        pictures.pop()  # the last run ended a picture
    return pictures


def _tiles(sizes: list[int], columns: int | None) -> Shape:
    """A picture in tiles, the last an overview; of one tile if it is whole.

    columns: how many tiles lie beside each other; None if unknown, then only the overview is a
        part.
    """
    if len(sizes) == 1:
        return one_grid(sizes[0], square(sizes[0]))
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
    squares = [(block.start, square(len(block)), box, name) for block, box, name in parts]
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
