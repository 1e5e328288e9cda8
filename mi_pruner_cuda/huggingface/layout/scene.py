"""What layouts read and return, and what they share."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from ..call import Call
from ..report import Part


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
        """Tokens of each image, tile or video in what the encoder returned or will return.

        Args:
            kind: "image" or "video".
            total: its placeholders in the batch, which pixels alone share evenly.

        Returns:
            None where neither features nor pixels say it.
        """
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


def by_item(found: list[Run]) -> list[list[Run]]:
    """The runs of each item that has any."""
    items: dict[int, list[Run]] = {}
    for run in found:
        items.setdefault(run.item, []).append(run)
    return list(items.values())


def patches_of_side(config) -> int:
    """Patches along a side of the vision tower's square."""
    vision = config.vision_config
    return vision.image_size // vision.patch_size


def square(tokens: int) -> tuple[int, int] | None:
    """(h, w) with h = w; None if there is none."""
    side = math.isqrt(tokens)
    return (side, side) if side * side == tokens else None


def one_grid(tokens: int, grid: tuple[int, int] | None) -> Shape:
    """A picture that is one block; grid is (h, w), or None if unknown."""
    parts = () if grid is None else (Part(0, grid, grid[1]),)
    return Shape(tokens, grid, parts)


def breaks_of(scene: Scene, run: Run) -> list[bool]:
    """Of each token of a run, whether it is the model's learned row break."""
    rows = scene.embeddings[run.item, run.start : run.stop]
    newline = scene.base.image_newline.detach().to(rows.device)
    # autocast rounds it on its way.
    rounded = [newline.to(d).to(rows.dtype) for d in {rows.dtype, torch.bfloat16, torch.float16}]
    return torch.stack([(rows == row).all(-1) for row in rounded]).any(0).tolist()
