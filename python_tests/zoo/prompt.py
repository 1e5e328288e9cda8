"""What a prompt of the zoo is made of, and what is known of a visual in it.

Ids below FIRST_WORD are marks: special tokens, placeholders and what a processor writes around
them. Ids above LAST_WORD are text that a processor writes (line breaks, times of video frames).
"""

from dataclasses import dataclass, field

import torch

VOCABULARY = 96
HIDDEN = 32
PAD, BOS, EOS, IMAGE, VIDEO, START, END, BREAK, VIDEO_START, VIDEO_END, FAKE, GLOBAL = range(12)
TILES = range(12, 20)  # one mark for each place of a tile
FIRST_WORD, LAST_WORD = 20, 91
LINE_BREAK, TWO_LINE_BREAKS, TIME, SECONDS = range(92, 96)


@dataclass(frozen=True)
class Picture:
    """height, width: in pixels."""

    height: int
    width: int


@dataclass(frozen=True)
class Film:
    """frames: how many; height, width: in pixels."""

    frames: int
    height: int
    width: int


@dataclass(frozen=True)
class Visual:
    """Where the tokens of one picture or film lie.

    kind: "image" or "video".
    columns: every placeholder of it in its left-padded row, in order.
    breaks: indices into columns of learned newline rows.
    blocks: (first, h, w) in tokens of each tile, frame or base view; first is an index into
        columns; rows are w apart, or w + 1 where a newline ends each row (first + w is a break).
        A class token that the model keeps is a block of 1 x 1.
    grid: (h, w), (t, h, w), or None if the visual is not one grid.
    """

    kind: str
    columns: list[int]
    breaks: list[int]
    blocks: list[tuple[int, int, int]]
    grid: tuple[int, ...] | None


@dataclass(frozen=True)
class Layout:
    """What the processor writes for one visual: ids, and blocks, breaks and grid as in Visual."""

    ids: list[int]
    blocks: list[tuple[int, int, int]]
    grid: tuple[int, ...] | None = None
    breaks: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Shot:
    """A visual about to be drawn.

    item: its place in the batch.
    visual: its size.
    single: whether it is the only picture of its item.
    generator: the source of its pixels.
    """

    item: int
    visual: Picture | Film
    single: bool
    generator: torch.Generator

    def noise(self, *shape: int) -> torch.Tensor:
        """Normal pixels (shape)."""
        return torch.randn(*shape, generator=self.generator)


def stacked_blocks(count: int, h: int, w: int) -> list[tuple[int, int, int]]:
    """`count` tiles or frames of h x w tokens one after the other."""
    return [(i * h * w, h, w) for i in range(count)]
