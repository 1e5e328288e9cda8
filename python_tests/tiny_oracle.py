"""Pruning by hand, row by row, with none of attach's code: what attach must agree with."""

import math

import torch
from tiny_models import HIDDEN, IMAGE, NUMBER_OF_MARKS

from mi_pruner_cuda import defaults, reference

# The reference itself is the bare equation, without either.
DEFAULTS = {"redundancy": defaults.REDUNDANCY, "coverage": defaults.COVERAGE}


def merged_embeddings(model, inputs: dict) -> torch.Tensor:
    """(B, L, D): token embeddings with image features put in, one placeholder after the other."""
    extra = {k: inputs[k] for k in ("image_grid_thw",) if k in inputs}
    ids = inputs["input_ids"]
    embeddings = model.get_input_embeddings()(ids).clone()
    if "pixel_values" in inputs:
        features = model.model.get_image_features(pixel_values=inputs["pixel_values"], **extra)
        rows = torch.cat(list(getattr(features, "pooler_output", features))).view(-1, HIDDEN)
        embeddings[ids == IMAGE] = rows.to(embeddings.dtype)
    return embeddings


def all_positions(model, inputs: dict) -> torch.Tensor:
    """(B, L), or (3, B, L) for Qwen: what an unpruned forward without position_ids uses."""
    ids = inputs["input_ids"]
    if model.config.model_type == "qwen2_5_vl":
        named = ("input_ids", "image_grid_thw", "attention_mask", "mm_token_type_ids")
        return model.model.get_rope_index(**{k: inputs[k] for k in named if k in inputs})[0]
    return torch.arange(ids.shape[1]).expand(ids.shape)


def image_columns(ids: torch.Tensor, sizes: list[int]) -> list[list[int]]:
    """Columns of each image of one row."""
    columns = (ids == IMAGE).nonzero()[:, 0].tolist()
    images, start = [], 0
    for size in sizes:
        images.append(columns[start : start + size])
        start += size
    assert start == len(columns)
    return images


def question(ids: torch.Tensor) -> list[int]:
    """Without a tokenizer: every id that is no mark."""
    return [i for i in ids.tolist() if i >= NUMBER_OF_MARKS]


def kept_columns(
    model, inputs, sizes, ratio, pooled=False, query=None, **method
) -> list[list[int]]:
    """Columns of each row that survive: its text, and what the reference selects of each image.

    sizes: per row, the tokens of each image.
    """
    embeddings = merged_embeddings(model, inputs)
    table = model.get_input_embeddings().weight
    rows = []
    for b, ids in enumerate(inputs["input_ids"]):
        kept = {c for c in range(len(ids)) if ids[c] != IMAGE and inputs["attention_mask"][b, c]}
        images = image_columns(ids, sizes[b])
        if pooled and images:
            images = [[c for image in images for c in image]]
        for columns in images:
            k = min(len(columns), max(1, math.floor(ratio * len(columns) + 0.5)))
            words = table[torch.tensor(query or question(ids))]
            chosen, _ = reference.select(embeddings[b, columns], words, k, **{**DEFAULTS, **method})
            kept |= {columns[i] for i in chosen.tolist()}
        rows.append(sorted(kept))
    return rows


def pruned_logits(model, inputs: dict, rows: list[list[int]], positions=None) -> list[torch.Tensor]:
    """Logits (len(row), V) of each row alone, gathered by hand, without a cache."""
    embeddings = merged_embeddings(model, inputs)
    positions = all_positions(model, inputs) if positions is None else positions
    results = []
    for b, row in enumerate(rows):
        output = model.model.language_model(
            inputs_embeds=embeddings[b : b + 1, row],
            position_ids=positions[..., b : b + 1, row],
            attention_mask=torch.ones(1, len(row), dtype=torch.long),
            use_cache=False,
        )
        results.append(model.lm_head(output.last_hidden_state)[0])
    return results
