"""The language model that both architectures have: its sizes, and how it starts."""

from __future__ import annotations

import torch
from vlm_prompt import FRAME_IDS


def text_settings(words: tuple[str, ...]) -> dict:
    """What the language models of both architectures have in common."""
    return {
        "vocab_size": len(words),
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "max_position_embeddings": 512,
        "initializer_range": 0.05,
        **FRAME_IDS,
    }


@torch.no_grad()
def match_contents(model) -> None:
    """Starts an untrained language model so that attention begins as a match of contents."""
    model.get_input_embeddings().weight.normal_(0, 0.7)
    for layer in model.model.language_model.layers:
        layer.self_attn.q_proj.weight.normal_(0, 0.065)
        layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
