"""What the language model might get that pruning would make wrong without a word."""

import torch

from . import planes

# Arguments of the language model that are handled by name.
_HANDLED = {
    "inputs_embeds",
    "position_ids",
    "attention_mask",
    "cache",
    "past_key_values",
    "cache_position",
    *planes.NAMES,
}


def check_flash(config, positions: torch.Tensor) -> None:
    """Refuses positions that transformers' FlashAttention would cut into sequences wrongly.

    It drops a mask of ones, takes gaps in a batch of one for packed sequences, and lets each begin
    at position 0: right for a prompt that begins there, no sequence at all otherwise. (t, h, w)
    positions are not read so.

    Args:
        config: the language model's.
        positions: int64 (B, P) or (.., B, P), those of a batch without padding.
    """
    flash = "flash" in (getattr(config, "_attn_implementation", None) or "")
    if not flash or positions.dim() == 3 or len(positions) != 1:
        return
    if int(positions[0, 0]) != 0 and bool((positions.diff() != 1).any()):
        raise ValueError(
            "positions: FlashAttention reads the gaps of a prompt whose first token was pruned, or "
            'of a later turn, as packed sequences; pass positions="renumbered"'
        )


def check_unknown(inputs: dict) -> None:
    """An argument with a column per token that nobody cuts would be wrong silently."""
    shape = inputs["inputs_embeds"].shape[:2]
    for name, value in inputs.items():
        if name in _HANDLED or not isinstance(value, torch.Tensor) or value.dim() < 2:
            continue
        if shape in (value.shape[:2], value.shape[-2:]):
            raise ValueError(
                f"{name}: the language model got a {tuple(value.shape)} tensor with a column per "
                "token; missing is how to prune it"
            )
