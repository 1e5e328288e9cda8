"""DeepStack: rows that the language model adds to its first layers, one plane per layer."""

import torch

from .columns import Columns

NAMES = ("visual_pos_masks", "deepstack_visual_embeds")


def cut_planes(inputs: dict, columns: Columns) -> dict:
    """The language model's two DeepStack arguments for pruned columns; {} where it got none.

    visual_pos_masks is bool (B, L); each plane is (its number of True, D), item by item.
    """
    mask, planes = (inputs.get(name) for name in NAMES)
    if mask is None or planes is None:
        return {}
    kept = columns.values(mask) & columns.kept.to(mask.device)
    # The place of each visual token in the planes; it means nothing elsewhere.
    place = (mask.flatten().cumsum(0) - 1).view_as(mask)
    rows = columns.values(place)[kept]
    cut = [plane[rows.to(plane.device)] for plane in planes]
    whole = torch.stack(cut) if isinstance(planes, torch.Tensor) else type(planes)(cut)
    return {NAMES[0]: kept, NAMES[1]: whole}
