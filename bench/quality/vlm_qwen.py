"""The Qwen2.5-VL of the study: of the LLaVA's size, with rotary positions on three axes.

Its tower has rotary positions only and merges no patches, so that a 224 x 224 picture gives the
LLaVA's 256 tokens.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLTextConfig,
)
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from vlm_prompt import (
    CLIP_MEAN,
    CLIP_STD,
    FRAME_IDS,
    IMAGE,
    PATCHES,
    build_tokenizer,
    chat_template,
)
from vlm_text import match_contents, text_settings

from mi_pruner_cuda.demo import scenes

MARKS = ("<vision_start>", "<vision_end>", "<video>")
BEFORE, AFTER = ("<s>", "user", ":", "<vision_start>"), ("<vision_end>",)


def _configuration(words: tuple[str, ...]) -> Qwen2_5_VLConfig:
    vision = Qwen2_5_VLVisionConfig(
        depth=4,
        hidden_size=128,
        intermediate_size=344,  # gated: three matrices, together as large as the LLaVA's two
        num_heads=4,
        patch_size=scenes.PATCH,
        spatial_merge_size=1,
        temporal_patch_size=1,
        out_hidden_size=192,
        fullatt_block_indexes=[0, 1, 2, 3],
        initializer_range=0.05,
    )
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
    text = Qwen2_5_VLTextConfig(**text_settings(words), rope_parameters=rope)
    start, end, video = (words.index(mark) for mark in MARKS)
    return Qwen2_5_VLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=IMAGE,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=False,
        **FRAME_IDS,
    )


@torch.no_grad()
def build_model(words: tuple[str, ...]) -> Qwen2_5_VLForConditionalGeneration:
    """The untrained model, started as the LLaVA is: attention begins as a match of contents."""
    model = Qwen2_5_VLForConditionalGeneration(_configuration(words))
    match_contents(model)
    for part in model.model.visual.merger.mlp:
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
    return model


def build_processor(words: tuple[str, ...]):
    """A word-level tokenizer with the chat template, and Qwen's image processor.

    Qwen2_5_VLProcessor insists on a video processor, which needs torchvision; PaddleOCR-VL's does
    the same for pictures alone.
    """
    # transformers 5 only; the LLaVA is trained with 4.57 as well.
    from transformers import PaddleOCRVLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    pixels = scenes.IMAGE_SIZE**2
    images = Qwen2VLImageProcessorPil(
        size={"shortest_edge": pixels, "longest_edge": pixels},
        image_mean=list(CLIP_MEAN),
        image_std=list(CLIP_STD),
        patch_size=scenes.PATCH,
        temporal_patch_size=1,
        merge_size=1,
    )
    tokenizer = build_tokenizer(
        words,
        extra_special_tokens=list(MARKS),
        model_specific_special_tokens={"image_token": "<image>"},
    )
    return PaddleOCRVLProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        chat_template=chat_template("<vision_start><image><vision_end>"),
    )


def visual_rows(model: Qwen2_5_VLForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """(B, 3, 224, 224) -> (B, 256, 192): rows as the language model gets them."""
    count, grid, patch = len(pixels), scenes.GRID, scenes.PATCH
    cut = pixels.view(count, 3, grid, patch, grid, patch).permute(0, 2, 4, 1, 3, 5)
    shape = torch.tensor([[1, grid, grid]], device=pixels.device).expand(count, -1)
    output = model.model.visual(cut.reshape(count * PATCHES, -1), grid_thw=shape)
    return output.pooler_output.view(count, PATCHES, -1)


def seeing(model: Qwen2_5_VLForConditionalGeneration) -> tuple[nn.Module, ...]:
    """The vision side."""
    return (model.model.visual,)


def positions(index: torch.Tensor) -> torch.Tensor:
    """(L,) -> (3, 1, L): time, height and width; text behind the picture goes on at the largest
    position + 1."""
    first = len(BEFORE)
    patch = index - first
    inside = (patch >= 0) & (patch < PATCHES)
    text = torch.where(patch < 0, index, index - PATCHES + scenes.GRID)
    down = patch.div(scenes.GRID, rounding_mode="floor")
    axes = (torch.zeros_like(index), down, patch % scenes.GRID)
    return torch.stack([torch.where(inside, first + axis, text) for axis in axes])[:, None]


def stored_name(name: str) -> str:
    """A parameter's name in the checkpoint: the model's own."""
    return name


def spell_config(config: dict) -> None:
    config["architectures"] = ["Qwen2_5_VLForConditionalGeneration"]


def spell_tokenizer(config: dict) -> None:
    """Nothing is spelled otherwise."""
