"""A prompt without the placeholders of pruned rows: what stays of it and where it goes on."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..positions import close_gaps

_INTEGERS = (torch.int64, torch.int32)


@dataclass(frozen=True, eq=False)  # tensors have no single truth value
class Positions:
    """Positions of a pruned prompt.

    values: (P), or (3, P) for M-RoPE.
    next_position: of the first generated token; the same on every axis.
    delta: next_position - P, by which engines say it: the token in column c, from P on, is at
        c + delta. vLLM calls it mrope_position_delta.
    """

    values: torch.Tensor
    next_position: int
    delta: int


@dataclass(frozen=True, eq=False)  # tensors have no single truth value
class PrunedPrompt:
    """columns: int64 (P), ascending, the columns that stay of the unpruned prompt's `length`."""

    columns: torch.Tensor
    length: int

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """(.., L) -> (.., P): ids, masks, positions."""
        return gather_columns("x", x, self.columns, self.length, "columns of the prompt")

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """(.., L, D) -> (.., P, D): embeddings that were merged unpruned."""
        return gather_rows("x", x, self.columns, self.length, "columns of the prompt")

    def positions(self, positions: torch.Tensor, numbering: str = "original") -> Positions:
        """Where each token is, and where the next one will be.

        Args:
            positions: int64 or int32 (L), or (3, L) for M-RoPE, of the unpruned prompt.
            numbering: "original": every token stays where it was, and generation goes on one past
                the largest position of the unpruned prompt. "renumbered": from the prompt's first
                position on, leaving out those that no kept token has on any axis: on one axis
                numbers without gaps, on three the (t, h, w) grid without its empty rows and
                columns.
        """
        if not isinstance(positions, torch.Tensor):
            raise TypeError(f"positions: got {type(positions).__name__}, allowed is a torch.Tensor")
        if positions.dtype not in _INTEGERS:
            raise TypeError(
                f"positions: got dtype {positions.dtype}, allowed are torch.int64 and torch.int32"
            )
        if positions.dim() not in (1, 2) or positions.shape[:-1] not in ((), (3,)):
            raise ValueError(
                f"positions: got shape {tuple(positions.shape)}, allowed is ({self.length}) or "
                f"(3, {self.length})"
            )
        kept = gather_columns(
            "positions", positions, self.columns, self.length, "columns of the prompt"
        )
        if numbering == "original":
            values, largest = kept, positions
        elif numbering == "renumbered":
            values = close_gaps(kept, positions.min()) if kept.numel() else kept
            largest = values
        else:
            raise ValueError(
                f"numbering: got {numbering!r}, allowed are 'original' and 'renumbered'"
            )
        following = int(largest.max()) + 1 if largest.numel() else 0
        return Positions(values, following, following - values.shape[-1])


def cut_prompt(tokens, placeholder, keep: torch.Tensor) -> PrunedPrompt:
    """Leaves out the placeholders that keep does not name.

    Args:
        tokens, placeholder: as in Plan.prompt.
        keep: bool (visual rows), True for those that stay.

    Raises:
        TypeError, ValueError: naming tokens or placeholder.
    """
    visual = _find_placeholders(tokens, placeholder).to(keep.device)
    places = visual.nonzero()[:, 0]
    if places.shape[0] != keep.shape[0]:
        raise ValueError(
            f"tokens: got {places.shape[0]} placeholders, allowed is one for each of the "
            f"{keep.shape[0]} visual rows of the unpruned prompt"
        )
    stays = ~visual
    stays[places] = keep
    return PrunedPrompt(stays.nonzero()[:, 0], visual.shape[0])


def gather_rows(name: str, x, indices: torch.Tensor, length: int, what: str) -> torch.Tensor:
    """(.., length, D) -> (.., len(indices), D)."""
    _check_axis(name, x, -2, length, what)
    return x.index_select(x.dim() - 2, indices.to(x.device))


def gather_columns(name: str, x, indices: torch.Tensor, length: int, what: str) -> torch.Tensor:
    """(.., length) -> (.., len(indices))."""
    _check_axis(name, x, -1, length, what)
    return x.index_select(x.dim() - 1, indices.to(x.device))


def _find_placeholders(tokens, placeholder) -> torch.Tensor:
    """bool (L)."""
    if not isinstance(tokens, torch.Tensor):
        if isinstance(tokens, (str, bytes)) or not isinstance(tokens, Sequence):
            raise TypeError(
                f"tokens: got {type(tokens).__name__}, allowed is a tensor or a sequence of ids"
            )
        # Flags or ids: their own dtype, but that of no tokens would be the default one.
        dtype = None if len(tokens) else torch.int64
        tokens = torch.tensor(tokens, dtype=dtype, device="cpu")
    if tokens.dim() != 1:
        raise ValueError(f"tokens: got shape {tuple(tokens.shape)}, allowed is (L), one prompt")
    if tokens.dtype == torch.bool:
        if placeholder is not None:
            raise ValueError(
                f"placeholder: got {placeholder!r} with a mask, allowed is None: it is for ids"
            )
        return tokens
    if tokens.dtype not in _INTEGERS:
        raise TypeError(
            f"tokens: got dtype {tokens.dtype}, allowed are torch.bool, torch.int64 and torch.int32"
        )
    ids = placeholder if isinstance(placeholder, (list, tuple)) else [placeholder]
    if not ids or any(isinstance(i, bool) or not isinstance(i, int) for i in ids):
        raise TypeError(
            f"placeholder: got {placeholder!r}, allowed with ids is the id of a placeholder or a "
            "list of them"
        )
    return torch.isin(tokens, torch.tensor(ids, dtype=torch.int64, device=tokens.device))


def _check_axis(name: str, x, axis: int, length: int, what: str) -> None:
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name}: got {type(x).__name__}, allowed is a torch.Tensor")
    if x.dim() < -axis or x.shape[axis] != length:
        allowed = f"(.., {length}, D)" if axis == -2 else f"(.., {length})"
        raise ValueError(
            f"{name}: got shape {tuple(x.shape)}, allowed is {allowed}: {length} {what}"
        )
