"""Rules that look at nothing, or at the question alone."""

import math

import torch

from .contract import Sight, needs_text, rule
from .numbers import cosines, highest


@rule("random")
def random(sight: Sight, k: int, generator) -> torch.Tensor:
    """Any k rows, each set as likely as the next."""
    device = generator.device if generator else sight.visual.device
    order = torch.randperm(sight.visual.shape[0], generator=generator, device=device)
    return order[:k].to(sight.visual.device)


@rule("uniform grid")
def uniform_grid(sight: Sight, k: int, generator) -> torch.Tensor:
    """k rows spread over the grid: nearly equal lines of nearly equal distances.

    Without a grid the rows are a square if their number is one, else a single line.
    """
    height, width = sight.grid or square(sight.visual.shape[0])
    wanted = max(1, round(math.sqrt(k * height / width)))
    lines = max(math.ceil(k / width), min(height, wanted))
    chosen = []
    for line in range(lines):
        # As array_split: the first lines get one more where k is no multiple.
        count = k // lines + (line < k % lines)
        y = int((line + 0.5) * height / lines)
        chosen += [y * width + int((x + 0.5) * width / count) for x in range(count)]
    return torch.tensor(chosen, device=sight.visual.device)


def square(n: int) -> tuple[int, int]:
    """(side, side) if n is a square, else (1, n)."""
    side = math.isqrt(n)
    return (side, side) if side * side == n else (1, n)


@rule("maximum cosine")
def maximum_cosine(sight: Sight, k: int, generator) -> torch.Tensor:
    """The rows most similar to any word of the question: the k largest max_j cos(v_i, t_j)."""
    needs_text(sight, "maximum cosine")
    return highest(cosines(sight.visual, sight.text).amax(1), k)
