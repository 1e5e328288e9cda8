"""Gemma 3, PaliGemma and PaliGemma 2: visual tokens see each other in both directions."""

from collections.abc import Callable

import torch
import transformers

from .family import Family
from .prompt import (
    END,
    HIDDEN,
    IMAGE,
    PAD,
    START,
    TWO_LINE_BREAKS,
    VOCABULARY,
    Layout,
    Picture,
    Shot,
    stacked_blocks,
)
from .text import TEXT, siglip

SIDE = 24  # pixels
GEMMA3_TOKENS, PALIGEMMA_TOKENS = 3, 6  # a side; Gemma 3 pools 2 x 2 patches
_LAYERS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}


def _gemma3_config():
    config = transformers.Gemma3Config(
        vision_config=siglip(SIDE),
        text_config=transformers.Gemma3TextConfig(
            **TEXT, **_LAYERS, head_dim=8, query_pre_attn_scalar=8
        ),
        mm_tokens_per_image=GEMMA3_TOKENS**2,
        boi_token_index=START,
        eoi_token_index=END,
        image_token_index=IMAGE,
        pad_token_id=PAD,
        tie_word_embeddings=False,
    )
    return transformers.Gemma3ForConditionalGeneration, config


def _gemma3(picture: Picture, single: bool) -> Layout:
    side = GEMMA3_TOKENS
    ids = [TWO_LINE_BREAKS, START, *[IMAGE] * side**2, END, TWO_LINE_BREAKS]
    return Layout(ids, stacked_blocks(1, side, side), (side, side))


def _images(shots: list[Shot], batch: int) -> dict:
    return {"pixel_values": torch.stack([shot.noise(3, SIDE, SIDE) for shot in shots])}


GEMMA3 = Family(
    "gemma3",
    "gemma3",
    _gemma3_config,
    _gemma3,
    _images,
    (Picture(SIDE, SIDE),),
    extra=lambda ids: {"token_type_ids": (ids == IMAGE).long()},
)


def _paligemma_config(text):
    config = transformers.PaliGemmaConfig(
        vision_config=siglip(SIDE),
        text_config=text,
        image_token_index=IMAGE,
        vocab_size=VOCABULARY,
        projection_dim=HIDDEN,
        hidden_size=HIDDEN,
        pad_token_id=PAD,
        tie_word_embeddings=False,
    )
    return transformers.PaliGemmaForConditionalGeneration, config


def _paligemma(picture: Picture, single: bool) -> Layout:
    side = PALIGEMMA_TOKENS
    return Layout([IMAGE] * side**2, stacked_blocks(1, side, side), (side, side))


def _paligemma_family(name: str, text: Callable, **more) -> Family:
    """The whole prompt is a prefix, type 0, in which every token sees every other."""
    return Family(
        name,
        "paligemma",
        lambda: _paligemma_config(text()),
        _paligemma,
        _images,
        (Picture(SIDE, SIDE),),
        prefix=True,
        extra=lambda ids: {"token_type_ids": torch.zeros_like(ids)},
        **more,
    )


def _gemma():
    return transformers.GemmaConfig(**TEXT, head_dim=8)


def _gemma2():
    """Layers with a window, and capped logits."""
    return transformers.Gemma2Config(
        **TEXT, **_LAYERS, head_dim=8, query_pre_attn_scalar=8, attn_logit_softcapping=50.0,
        final_logit_softcapping=3.0,
    )  # fmt: skip


PALIGEMMA = _paligemma_family("paligemma", _gemma)
PALIGEMMA2 = _paligemma_family("paligemma2", _gemma2, attentions=("eager",))
