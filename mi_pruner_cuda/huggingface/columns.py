"""Columns of a (batch, length) prompt: which are kept, where they go, and what a pruned cache
remembers.

Two numberings of columns are at work. Logical columns are those of the caller's prompt: masks and
positions that generate hands over count them. Physical columns are what the language model and its
cache hold after pruning. Rows that keep fewer columns than others are padded on the left, so the
last column of every row is its last token and decoding goes on from there.
"""

from dataclasses import dataclass, replace

import torch

from ..positions import close_gaps


@dataclass(frozen=True)
class Columns:
    """index: int64 (B, P), the logical column in each physical one; kept: bool (B, P).

    Where kept is False the column is padding, and repeats the row's last column: what fills it is
    masked, but it must not be a dropped row, which may hold NaN (0 * NaN is NaN), nor zeros, which
    transformers 4.57 takes for unused room in a static cache.
    """

    index: torch.Tensor
    kept: torch.Tensor

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """(B, L, D) -> (B, P, D)."""
        return x.gather(1, self.index.to(x.device)[..., None].expand(-1, -1, x.shape[-1]))

    def values(self, x: torch.Tensor) -> torch.Tensor:
        """(.., B, L) -> (.., B, P)."""
        return x.gather(-1, self.index.to(x.device).expand(*x.shape[:-2], -1, -1))


def kept_columns(keep: torch.Tensor, real: torch.Tensor) -> Columns:
    """Left padding goes, kept columns move right.

    Args:
        keep: bool (B, L), False for pruned tokens.
        real: bool (B, L), False for padding. Padding before the first real token is dropped;
            padding elsewhere stays, a masked column.
    """
    keep = keep & (real.cumsum(1) > 0)
    width = int(keep.sum(1).max())
    # A stable sort of False before True: the kept columns end up on the right, in their order.
    index = keep.to(torch.uint8).argsort(dim=1, stable=True)[:, keep.shape[1] - width :]
    kept = keep.gather(1, index)
    return Columns(torch.where(kept, index, index[:, -1:]), kept)


def renumber(positions: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Closes the gaps: positions that no kept token of the row uses on any axis are left out.

    Equal positions stay equal and the order stays, so a (t, h, w) grid stays a grid with its empty
    rows and columns removed. On one axis this is contiguous numbering.

    Args:
        positions: int64 (B, P), or (3 or 4, B, P) where the last three planes are the rotary ones.
        kept: bool (B, P); False entries get 0.
    """
    planes = positions if positions.dim() == 3 else positions[None]
    result = planes.clone()
    rotary = planes[-3:]
    first = planes.shape[0] - rotary.shape[0]
    for b, row in enumerate(kept.to(positions.device)):
        used = rotary[:, b, row]
        if used.numel():
            result[first:, b, row] = close_gaps(used, used.min())
    result[first:].masked_fill_(~kept.to(positions.device), 0)
    return result.view_as(positions)


def next_positions(positions: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """(.., B, P) -> int64 (B): where text goes on after each row, one past its largest rotary
    position.

    The first of four planes counts text tokens and is no rotary position.
    """
    planes = positions if positions.dim() == 3 else positions[None]
    planes = planes[1:] if planes.shape[0] == 4 else planes
    return planes.masked_fill(~kept.to(planes.device), -1).amax((0, 2)) + 1


@dataclass(frozen=True)
class CacheState:
    """What a key-value cache with pruned columns must remember; it travels on the cache object.

    mask: bool (B, width), the physical columns that may be attended to.
    logical: how many logical columns they stand for.
    next_position: int64 (B), where the caller's numbering goes on.
    shift: int64 (B), what renumbering took off; 0 with original positions.
    padded: whether mask has a False, known on the host.
    axes: 1, or 3 where a token's position is (t, h, w).
    guessed: how many of its last columns are an assistant's guesses, which may be taken back.
    """

    mask: torch.Tensor
    logical: int
    next_position: torch.Tensor
    shift: torch.Tensor
    padded: bool
    axes: int
    guessed: int = 0

    def without(self, wrong: int) -> "CacheState":
        """The state after the last `wrong` guesses were taken back: they are text, one position
        each.
        """
        return replace(
            self,
            mask=self.mask[:, : self.width - wrong],
            logical=self.logical - wrong,
            next_position=self.next_position - wrong,
            guessed=self.guessed - wrong,
        )

    def rows(self, places: torch.Tensor) -> "CacheState":
        """The state of a cache with these rows of the batch, int64 (B'), in any order."""
        places = places.to(self.mask.device)
        mask = self.mask[places]
        return replace(
            self,
            mask=mask,
            next_position=self.next_position[places.to(self.next_position.device)],
            shift=self.shift[places.to(self.shift.device)],
            padded=not bool(mask.all()),
        )

    @property
    def width(self) -> int:
        """Physical columns."""
        return self.mask.shape[1]

    def logical_length(self, physical: int) -> int:
        """Logical columns of a cache with `physical` ones: what came after pruning is whole."""
        return self.logical + physical - self.width

    def physical_mask(self, prior: torch.Tensor) -> torch.Tensor:
        """The mask over the cache's columns from prior, the one over its logical columns."""
        return torch.cat([self.mask.to(prior.device), prior[:, self.logical :]], dim=1)


def following_positions(state: CacheState, physical: int, length: int) -> torch.Tensor:
    """Text goes on where the caller's numbering ended: int64 (B, length), or (3, B, length).

    physical: columns in the cache now; those after the state are text.
    """
    begin = state.next_position + (physical - state.width)
    positions = begin[:, None] + torch.arange(length, dtype=torch.int64, device=begin.device)
    return positions if state.axes == 1 else positions.expand(state.axes, -1, -1)


def split_mask(
    mask, batch: int, past: int, length: int, device, prepared: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The caller's mask, bool, in two: (batch, past) for the cache, (batch, length) for the rest.

    Args:
        mask: None (nothing is padded), (batch, past + length), or prepared.
        past: logical columns in the cache.
        prepared: whether mask may be what generate prepares for a static cache: 4-D, alone or in a
            dict of layer types.

    Raises:
        ValueError: another shape.
    """
    if isinstance(mask, dict) and prepared:
        mask = mask.get("full_attention", next(iter(mask.values()), None))
    if mask is None:
        ones = torch.ones(batch, past + length, dtype=torch.bool, device=device)
        return ones[:, :past], ones[:, past:]
    if isinstance(mask, dict):
        raise ValueError(
            "attention_mask: got a dict, allowed while pruning is a (batch, length) mask"
        )
    if prepared and mask.dim() == 4 and mask.shape[0] == batch:
        # Bool: may attend; numbers are added to the scores. The last query sees every real column
        # before it, and each new column sees itself, also where layers have a window.
        last = mask[:, 0, -1, :past]
        own = mask[:, 0, :, past : past + length].diagonal(dim1=1, dim2=2)
        seen = torch.cat([last, own], dim=1)
        mask = seen if seen.dtype == torch.bool else seen == 0
    if mask.dim() != 2 or mask.shape != (batch, past + length):
        raise ValueError(
            f"attention_mask: got shape {tuple(mask.shape)}, allowed while pruning is "
            f"({batch}, {past + length}): {past} columns before these {length}"
        )
    mask = mask.bool().to(device)
    return mask[:, :past], mask[:, past:]
