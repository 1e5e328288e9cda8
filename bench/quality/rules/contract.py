"""What a rule sees, and what it promises."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch

MAPS = frozenset({"cls_attention", "keys", "text_attention"})


@dataclass(frozen=True)
class Sight:
    """All that a rule may look at, for one image and one question.

    visual: (N, D), rows after the projector; text: (M, D), the question's word embeddings;
    cls_attention: (N); keys: (N, Dk); text_attention: (N); grid: (h, w) of the rows. The last four
    are those of eyes.View.
    """

    visual: torch.Tensor
    text: torch.Tensor
    cls_attention: torch.Tensor | None = None
    keys: torch.Tensor | None = None
    text_attention: torch.Tensor | None = None
    grid: tuple[int, int] | None = None

    def check(self) -> None:
        """Raises ValueError naming the field, what was given and what is allowed."""
        if self.visual.dim() != 2 or len(self.visual) == 0:
            raise ValueError(f"visual: got {tuple(self.visual.shape)}, allowed is (N >= 1, D)")
        n, width = self.visual.shape
        if self.text.dim() != 2 or self.text.shape[1] != width:
            raise ValueError(f"text: got {tuple(self.text.shape)}, allowed is (M, {width})")
        for name in ("visual", "text", *sorted(MAPS)):
            value = getattr(self, name)
            if value is not None and not bool(value.isfinite().all()):
                raise ValueError(f"{name}: got NaN or infinity, allowed are finite numbers")
        for name in sorted(MAPS):
            value = getattr(self, name)
            dim = 2 if name == "keys" else 1
            if value is not None and (value.dim() != dim or value.shape[0] != n):
                allowed = f"({n}, Dk)" if name == "keys" else f"({n},)"
                raise ValueError(f"{name}: got {tuple(value.shape)}, allowed is {allowed}")
        if self.grid is not None and math.prod(self.grid) != n:
            raise ValueError(f"grid: got {self.grid}, allowed is (h, w) with h * w = {n}")

    def to(self, dtype: torch.dtype, device: torch.device | str | None) -> "Sight":
        """The same in another precision on another device; None leaves each where it is."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "grid"}
        there = {k: v.detach().to(device, dtype) for k, v in given.items() if v is not None}
        return replace(self, **there)


Pick = Callable[[Sight, int, torch.Generator | None], torch.Tensor]


@dataclass(frozen=True)
class Rule:
    """A way of choosing rows.

    name: as in its paper; paper: its arXiv id, or "" for what needs none.
    needs: the maps that it looks at.
    pick: (sight, k, generator) -> int64 (k), distinct, in any order, on the sight's device. Checks
        nothing; works in the precision of the sight, float64 or float32. Equal rows tie in float64
        only.
    rows: for a rule that changes what it keeps, (sight, k) -> its k rows (k, D), in the order of
        what choose returns; None for all others.
    """

    name: str
    paper: str
    needs: frozenset[str]
    pick: Pick
    rows: Callable[[Sight, int], torch.Tensor] | None = None

    def choose(
        self, sight: Sight, k: int, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """int64 (k), ascending and distinct; computed in double precision, on the CPU.

        Args:
            sight: the image and the question.
            k: in [1, N].
            generator: on the CPU; None takes torch's own.

        Raises:
            ValueError: naming the argument, what was given and what is allowed.
        """
        check(sight, k, self.name, self.needs)
        return self.pick(sight.to(torch.float64, "cpu"), k, generator).sort().values


def check(sight: Sight, k: int, name: str, needs: frozenset[str]) -> None:
    """Raises ValueError if the rule cannot choose k rows of the sight."""
    sight.check()
    n = sight.visual.shape[0]
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= n:
        raise ValueError(f"k: got {k!r}, allowed is an integer in [1, {n}]")
    for need in sorted(needs):
        if getattr(sight, need) is None:
            raise ValueError(f"{need}: got None, allowed is a tensor: {name} looks at it")


def needs_text(sight: Sight, name: str) -> None:
    if sight.text.shape[0] == 0:
        raise ValueError(f"text: got 0 rows, allowed is at least 1: {name} compares rows with it")


def rule(name: str, paper: str = "", needs=(), rows=None) -> Callable[[Pick], Rule]:
    """Makes a Rule of the function that picks."""
    return lambda pick: Rule(name, paper, frozenset(needs), pick, rows)
