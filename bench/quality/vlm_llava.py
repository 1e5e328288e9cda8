"""The LLaVA of the demo and the study: a CLIP tower, a projector and a Llama; 2.76 M weights."""

from __future__ import annotations

import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
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

try:  # transformers 5 keeps the variant that needs no torchvision under its own name
    from transformers.models.clip.image_processing_pil_clip import (
        CLIPImageProcessorPil as ClipImages,
    )
except ImportError:
    from transformers import CLIPImageProcessor as ClipImages

MARKS = ()
BEFORE, AFTER = ("<s>", "user", ":"), ()


def _configuration(words: tuple[str, ...]) -> LlavaConfig:
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=scenes.IMAGE_SIZE,
        patch_size=scenes.PATCH,
        projection_dim=128,
        hidden_act="gelu_pytorch_tanh",
    )
    text = LlamaConfig(
        **text_settings(words), head_dim=64, tie_word_embeddings=False, rope_theta=1e6
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        image_seq_length=PATCHES,
        tie_word_embeddings=False,
        **FRAME_IDS,
    )


def _grid_waves(width: int) -> torch.Tensor:
    """2-D sine and cosine position codes of the patch grid."""
    frequency = 0.01 ** (torch.arange(width // 4) / (width // 4))
    angle = torch.arange(float(scenes.GRID))[:, None] * frequency
    line = torch.cat([angle.sin(), angle.cos()], 1)
    grid = (scenes.GRID, scenes.GRID, width // 2)
    rows, columns = line[:, None].expand(grid), line[None].expand(grid)
    return torch.cat([rows, columns], -1).reshape(PATCHES, width)


@torch.no_grad()
def build_model(words: tuple[str, ...]) -> LlavaForConditionalGeneration:
    """The untrained model, started so that attention begins as a match of contents."""
    model = LlavaForConditionalGeneration(_configuration(words))
    tower = model.model.vision_tower
    tower = getattr(tower, "vision_model", tower)
    positions = tower.embeddings.position_embedding.weight
    positions[1:] = 0.5 * _grid_waves(positions.shape[1])
    match_contents(model)
    projector = model.model.multi_modal_projector
    for linear in (projector.linear_1, projector.linear_2):
        nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
    return model


def build_processor(words: tuple[str, ...]) -> LlavaProcessor:
    """A word-level tokenizer with the chat template, and CLIP's image normalisation."""
    side = scenes.IMAGE_SIZE
    images = ClipImages(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=list(CLIP_MEAN),
        image_std=list(CLIP_STD),
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=build_tokenizer(words, additional_special_tokens=["<image>"]),
        patch_size=scenes.PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template("<image>"),
    )


def visual_rows(model: LlavaForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """(B, 3, 224, 224) -> (B, 256, 192): rows as the language model gets them."""
    features = model.model.vision_tower(pixel_values=pixels).last_hidden_state[:, 1:]
    return model.model.multi_modal_projector(features)


def seeing(model: LlavaForConditionalGeneration) -> tuple[nn.Module, ...]:
    """The vision side."""
    return model.model.vision_tower, model.model.multi_modal_projector


def positions(index: torch.Tensor) -> torch.Tensor:
    """(L,) -> (1, L): one axis."""
    return index[None]


def stored_name(name: str) -> str:
    """A parameter's name in the original LLaVA checkpoints, which every version can read."""
    if name.startswith("lm_head."):
        return "language_model." + name
    name = name.removeprefix("model.")
    name = name.replace("language_model.", "language_model.model.", 1)
    tower = "vision_tower.vision_model."
    return name if name.startswith(tower) else name.replace("vision_tower.", tower, 1)


def spell_config(config: dict) -> None:
    """Settings that transformers 4 looks for elsewhere."""
    config["architectures"] = ["LlavaForConditionalGeneration"]
    config["text_config"]["rope_theta"] = 1e6  # transformers 5 reads rope_parameters instead


def spell_tokenizer(config: dict) -> None:
    config.pop("extra_special_tokens", None)  # transformers 4 expects a mapping under this name
    config["additional_special_tokens"] = ["<image>"]
