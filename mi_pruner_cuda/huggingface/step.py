"""One call of the language model, seen against the columns that its cache already holds."""

from functools import cached_property

import torch

from .columns import CacheState, following_positions, split_mask
from .notes import replace_state, state_of


class Step:
    """What a hook before the language model knows.

    embeddings: (B, L, D), text with the images merged in.
    positions: as the model would use them: (B, L), (3 or 4, B, L), or None.
    state: the cache's pruned columns; None for a cache that is empty or was never pruned.
    past, logical: columns in the cache, physical and logical.
    """

    def __init__(self, inputs: dict, caller_gave_positions: bool, masks=None):
        """masks: what physical_masks found out about the call, where it was asked."""
        self._inputs = inputs
        self.embeddings = inputs["inputs_embeds"]
        self.positions = inputs.get("position_ids")
        self.batch, self.length = self.embeddings.shape[:2]
        self._caller_gave_positions = caller_gave_positions
        cache = given_cache(inputs)
        self._given_masks = masks
        self.past = cache_length(cache)
        self.state = _read_state(cache, self.past, self.batch)
        state = self.state
        self.logical = self.past if state is None else state.logical_length(self.past)

    @cached_property
    def _masks(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._given_masks is not None:
            return self._given_masks
        return physical_masks(self._inputs, self.batch, self.length, self.embeddings.device)

    @property
    def real(self) -> torch.Tensor:
        """Bool (B, L), False for padding among the new columns."""
        return self._masks[1]

    @property
    def cached_mask(self) -> torch.Tensor:
        """Bool (B, past) over the cache's columns."""
        return self._masks[0]

    @cached_property
    def shift(self) -> torch.Tensor:
        """int64 (B): what renumbering has taken off so far."""
        if self.state is not None:
            return self.state.shift
        return torch.zeros(self.batch, dtype=torch.long, device=self.embeddings.device)

    def caller_positions(self) -> torch.Tensor:
        """(.., B, L) in the caller's numbering, made up where there are none."""
        if self.state is not None and (self.positions is None or not self._caller_gave_positions):
            # The model would count on from the cache's length, which pruning made shorter.
            return following_positions(self.state, self.past, self.length)
        if self.positions is None:
            device = self.embeddings.device
            end = self.past + self.length
            count = torch.arange(self.past, end, dtype=torch.int64, device=device)
            return count.expand(self.batch, -1)
        if self.state is not None and self.length > 1:
            self._check_start()
        return self.positions.expand(*self.positions.shape[:-2], self.batch, -1)

    def continued_inputs(self) -> dict:
        """The language model's new arguments where whole columns join a pruned cache."""
        positions = self.caller_positions()
        changed = {"position_ids": positions - self.shift[:, None].to(positions.device)}
        mask = self._inputs.get("attention_mask")
        # One that the model has made already was made from the physical columns.
        if (mask is not None or self.state.padded) and not is_made(mask):
            changed["attention_mask"] = torch.cat([self.cached_mask, self.real], dim=1).long()
        return changed

    def _check_start(self) -> None:
        """Refuses positions that do not go on where the cache ends."""
        if self.state.padded or not bool(self.real.all()):
            return  # first positions mean nothing then; the mask's width has been checked instead
        first, expected = _starts(self.positions, 0, self.state, self.past)
        if not torch.equal(first, expected):
            raise ValueError(
                f"position_ids: the call starts at {int(first[0])}, the pruned cache goes on at "
                f"{int(expected[0])}; it stands for {self.logical} tokens in {self.past} columns. "
                "Pass only the tokens after those, or start without the cache"
            )


def is_made(mask) -> bool:
    """Whether a mask has a row per token already, alone or in a dict of layer types."""
    return isinstance(mask, dict) or (isinstance(mask, torch.Tensor) and mask.dim() != 2)


def holds_pruned_columns(inputs: dict) -> bool:
    """Whether the cache among a module's arguments was pruned."""
    return state_of(given_cache(inputs)) is not None


def holds_padding(inputs: dict) -> bool:
    """Whether that cache has columns that are not attended to; known without asking the device."""
    state = state_of(given_cache(inputs))
    return state is not None and state.padded


def physical_masks(
    inputs: dict, batch: int, length: int, device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bool (batch, past) over the cache's columns and bool (batch, length) over the new ones, from
    the caller's mask over logical columns.
    """
    mask, cache = inputs.get("attention_mask"), given_cache(inputs)
    compilable = bool(getattr(cache, "is_compileable", False))
    past = cache_length(cache)
    state = _read_state(cache, past, batch)
    if state is not None and compilable and is_made(mask):
        # generate prepared it for a static cache from logical columns: it cannot be cut, only
        # made anew. What follows a prompt in generate is never padding.
        mask = None
    logical = past if state is None else state.logical_length(past)
    prior, real = split_mask(mask, batch, logical, length, device, compilable)
    return (prior if state is None else state.physical_mask(prior)), real


def repeated_columns(inputs: dict) -> int:
    """How many columns of a call are in the pruned cache already.

    When generate is given a cache, it cuts off as many tokens as the cache has columns. A pruned
    cache stands for more tokens than that, so the call would repeat the difference.
    """
    ids, cache = inputs.get("input_ids"), given_cache(inputs)
    past = cache_length(cache)
    state = None if ids is None else _read_state(cache, past, ids.shape[0])
    if state is None:
        return 0
    length, missing = ids.shape[1], state.logical_length(past) - past
    if not 0 < missing < length:
        return 0
    mask, positions = inputs.get("attention_mask"), inputs.get("position_ids")
    if isinstance(mask, torch.Tensor) and mask.dim() == 2:
        return missing if mask.shape[1] == past + length else 0
    if positions is None or state.padded:
        return 0
    first, expected = _starts(positions, missing, state, past)
    return missing if torch.equal(first, expected) else 0


def _starts(positions, column: int, state: CacheState, past: int):
    """int64 (B) twice: the position at a column, and the one at which the cache goes on."""
    plane = positions if positions.dim() == 2 else positions[-1]
    expected = following_positions(state, past, 1)[..., 0].to(plane.device)
    expected = expected if expected.dim() == 1 else expected[-1]
    return plane[:, column].expand_as(expected), expected


def given_cache(inputs: dict):
    """The key-value cache among a module's arguments; None without one.

    transformers 5.24 renamed past_key_values to cache, and takes the old name too.
    """
    cache = inputs.get("cache")
    return inputs.get("past_key_values") if cache is None else cache


def cache_length(cache) -> int:
    """Columns in the cache, 0 without one."""
    if cache is None:
        return 0
    if not hasattr(cache, "get_seq_length"):
        raise TypeError(
            f"past_key_values: got {type(cache).__name__}, allowed is a transformers Cache"
        )
    return int(cache.get_seq_length())


def _read_state(cache, past: int, batch: int) -> CacheState | None:
    state = state_of(cache)
    if past == 0:
        replace_state(cache, None)  # the cache was reset
        return None
    if state is None:
        return None
    if past < state.width:
        wrong = state.width - past
        if wrong > state.guessed:
            raise ValueError(
                f"past_key_values: the cache was cropped to {past} columns, into the pruned "
                f"prompt, which takes {state.width - state.guessed}"
            )
        state = state.without(wrong)
        replace_state(cache, state)
    if state.mask.shape[0] != batch:
        raise ValueError(
            f"past_key_values: the cache was pruned as a batch of {state.mask.shape[0]}, "
            f"the call has {batch} rows"
        )
    return state
