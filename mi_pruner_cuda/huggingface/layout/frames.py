"""Videos."""

import math

import torch

from ..report import Part
from .scene import Scene, Shape, breaks_of, patches_of_side, runs_of


def even_frames(scene: Scene, kind: str, visual: torch.Tensor) -> list[Shape]:
    """Videos of square frames that have been pooled (LLaVA-NeXT-Video)."""
    side = patches_of_side(scene.config) // scene.config.spatial_pool_stride
    counts = scene.counts(kind, int(visual.sum())) or []
    return [square_frames(n, side, first=0) for n in counts]


def frames_with_class_row(scene: Scene, kind: str, visual: torch.Tensor) -> list[Shape]:
    """Videos whose frames begin with the class row (Video-LLaVA); each run is a video."""
    side = patches_of_side(scene.config)
    return [square_frames(len(run), side, first=1) for run in runs_of(visual)]


def frames_and_a_break(scene: Scene, kind: str, visual: torch.Tensor) -> list[Shape]:
    """Videos of halved frames with one learned break at the end (LLaVA-OneVision)."""
    side = math.ceil(patches_of_side(scene.config) / 2)
    shapes = []
    for run in runs_of(visual):
        ends = [i for i, broken in enumerate(breaks_of(scene, run)) if broken]
        for begin, end in zip([-1, *ends], ends, strict=False):
            frames = square_frames(end - begin - 1, side, first=0)
            shapes.append(
                Shape(end - begin, frames.grid, frames.parts, frames.blocks, (frames.tokens,))
            )
    return shapes


def frames_of_grid(grid: tuple[int, int, int]) -> Shape:
    """A video of t frames of h x w tokens; a picture where t is 1."""
    t, h, w = grid
    if t == 1:
        return Shape(h * w, grid, (Part(0, (h, w), w),))
    return Shape(t * h * w, grid, *_frames(t, h, w))


def square_frames(tokens: int, side: int, first: int) -> Shape:
    """A video of square frames; first: rows of each frame before its patches."""
    frame = first + side * side
    if tokens % frame:
        return Shape(tokens)
    t = tokens // frame
    grid = None if first else (t, side, side)
    return Shape(tokens, grid, *_frames(t, side, side, first))


def _frames(t: int, h: int, w: int, first: int = 0):
    """(parts, blocks) of t frames, one behind the other."""
    frame = first + h * w
    blocks = tuple(range(i * frame, (i + 1) * frame) for i in range(t))
    parts = tuple(
        Part(block.start + first, (h, w), w, frame=i, name=f"frame {i}")
        for i, block in enumerate(blocks)
    )
    return parts, blocks
