"""Pruning by hand on any class of the zoo: what attach must agree with.

The unhooked model is run once, and what its language model was given is gathered row by row.
"""

import math

import torch
from zoo import language_model_call, language_model_of, logits_of

from mi_pruner_cuda import defaults, reference

# The reference itself is the bare equation, without either.
DEFAULTS = {"redundancy": defaults.REDUNDANCY, "coverage": defaults.COVERAGE}

QUERY = [70, 71, 72, 73]  # the words that every test asks about


def pools_of(visual) -> list[list[int]]:
    """Default budgets: a picture's tokens together, a film's frame by frame; no breaks."""
    content = [i for i in range(len(visual.columns)) if i not in visual.breaks]
    if visual.kind == "image":
        return [content]
    frames = visual.grid[0] if visual.grid else len(visual.blocks) // 2  # class row, patches
    size = len(content) // frames
    assert size * frames == len(content)
    return [content[i : i + size] for i in range(0, len(content), size)]


def kept_columns(model, inputs, visuals, ratio, **method) -> list[list[int]]:
    """Columns of each row that survive: all but what the reference drops of each pool."""
    embeddings = language_model_call(model, inputs)["inputs_embeds"]
    words = model.get_input_embeddings()(torch.tensor(QUERY))
    rows = []
    for b, mask in enumerate(inputs["attention_mask"].tolist()):
        kept = {c for c, real in enumerate(mask) if real}
        for visual in visuals[b]:
            for pool in pools_of(visual):
                columns = [visual.columns[i] for i in pool]
                k = min(len(pool), max(1, math.floor(ratio * len(pool) + 0.5)))
                chosen, _ = reference.select(
                    embeddings[b, columns], words, k, **{**DEFAULTS, **method}
                )
                kept -= set(columns) - {columns[i] for i in chosen.tolist()}
        rows.append(sorted(kept))
    return rows


@torch.no_grad()
def pruned_logits(model, inputs, rows) -> list[torch.Tensor]:
    """Logits (len(row), V) of each row alone, without a cache."""
    call = language_model_call(model, inputs)
    return [_one(model, call, b, row) for b, row in enumerate(rows)]


def _one(model, call: dict, b: int, row: list[int]) -> torch.Tensor:
    embeddings, positions = call["inputs_embeds"], call.get("position_ids")
    if positions is None:
        positions = torch.arange(embeddings.shape[1])[None]
    positions = positions.expand(*positions.shape[:-2], len(embeddings), -1)
    arguments = {
        "inputs_embeds": embeddings[b : b + 1, row],
        "position_ids": positions[..., b : b + 1, row],
        "attention_mask": _mask(model, call["attention_mask"], b, row),
        "use_cache": False,
    }
    seen = call.get("visual_pos_masks")
    if seen is not None:
        place = (seen.flatten().cumsum(0) - 1).view_as(seen)
        arguments["visual_pos_masks"] = seen[b : b + 1, row]
        own = [int(place[b, c]) for c in row if seen[b, c]]
        arguments["deepstack_visual_embeds"] = [p[own] for p in call["deepstack_visual_embeds"]]
    output = language_model_of(model)(**arguments)
    return logits_of(model, output.last_hidden_state)[0]


def _mask(model, mask, b: int, row: list[int]):
    if mask is None or (isinstance(mask, torch.Tensor) and mask.dim() == 2):
        return torch.ones(1, len(row), dtype=torch.long)
    if isinstance(mask, torch.Tensor):
        return mask[b : b + 1][:, :, row][..., row]
    cut = {name: m[b : b + 1][:, :, row][..., row] for name, m in mask.items()}
    if "sliding_attention" in cut:
        # Windows count the tokens that are left, as the cache does.
        window = model.config.get_text_config().sliding_window
        place = torch.arange(len(row))
        near = (place[None] > place[:, None] - window) & (place[None] <= place[:, None])
        full = cut["full_attention"]
        more = near & (full if full.dtype == torch.bool else full == 0)
        sliding = cut["sliding_attention"]
        yes = True if sliding.dtype == torch.bool else 0.0
        cut["sliding_attention"] = sliding.masked_fill(more, yes)
    return cut
