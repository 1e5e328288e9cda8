"""LLaVA with its two towers, CLIP (one size) and Pixtral (any size), Mistral 3, and Video-LLaVA."""

import torch
import transformers

from .family import Family, apart
from .prompt import (
    BREAK,
    END,
    IMAGE,
    PAD,
    VIDEO,
    Film,
    Layout,
    Picture,
    Shot,
    stacked_blocks,
)
from .text import TEXT, before_transformers_5, clip, llama, pixtral

PATCH = 4
SIDE = 16  # pixels of a CLIP image
TOKENS = SIDE // PATCH  # a side


def _llava_config():
    config = transformers.LlavaConfig(
        vision_config=clip(SIDE), text_config=llama(), image_token_index=IMAGE, pad_token_id=PAD
    )
    return transformers.LlavaForConditionalGeneration, config


def _one_square(picture: Picture, single: bool) -> Layout:
    return Layout([IMAGE] * TOKENS**2, stacked_blocks(1, TOKENS, TOKENS), (TOKENS, TOKENS))


def _squares(shots: list[Shot], batch: int = 0) -> dict:
    return {"pixel_values": torch.stack([shot.noise(3, SIDE, SIDE) for shot in shots])}


LLAVA = Family("llava", "llava", _llava_config, _one_square, _squares, (Picture(SIDE, SIDE),))


def _pixtral_config():
    config = transformers.LlavaConfig(
        vision_config=pixtral(),
        text_config=llama(),
        image_token_index=IMAGE,
        pad_token_id=PAD,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return transformers.LlavaForConditionalGeneration, config


def _rows_with_breaks(picture: Picture, patch: int) -> Layout:
    """A row break after each row of the image, an end mark after the last.

    The breaks are text: their embeddings come from the vocabulary.
    """
    h, w = picture.height // patch, picture.width // patch
    ids = ([IMAGE] * w + [BREAK]) * h
    return Layout([*ids[:-1], END], stacked_blocks(1, h, w), (h, w))


def _padded_images(shots: list[Shot], batch: int) -> dict:
    """Images padded with zeros, at the bottom and on the right, to the largest of the batch."""
    sizes = [(shot.visual.height, shot.visual.width) for shot in shots]
    height, width = (max(sides) for sides in zip(*sizes, strict=True))
    pixels = torch.zeros(len(shots), 3, height, width)
    for image, shot, (h, w) in zip(pixels, shots, sizes, strict=True):
        image[:, :h, :w] = shot.noise(3, h, w)
    return {"pixel_values": pixels, "image_sizes": torch.tensor(sizes)}


LLAVA_PIXTRAL = Family(
    "llava_pixtral",
    "llava",
    _pixtral_config,
    lambda picture, single: _rows_with_breaks(picture, PATCH),
    _padded_images,
    (Picture(12, 16), Picture(20, 8), Picture(16, 16)),
)


def _mistral3_config():
    config = transformers.Mistral3Config(
        vision_config=pixtral(),
        text_config=transformers.MistralConfig(**TEXT, head_dim=8, sliding_window=None),
        image_token_index=IMAGE,
        pad_token_id=PAD,
        tie_word_embeddings=False,
    )
    return transformers.Mistral3ForConditionalGeneration, config


MISTRAL3 = Family(
    "mistral3",
    "mistral3",
    _mistral3_config,
    lambda picture, single: _rows_with_breaks(picture, 2 * PATCH),  # four patches to a token
    _padded_images,
    (Picture(24, 32), Picture(32, 16), Picture(24, 24)),
)


def _squares_by_name(shots: list[Shot]) -> dict:
    """Video-LLaVA's pictures, which transformers 4 calls by another name than all other classes."""
    pixels = _squares(shots)["pixel_values"]
    return {"pixel_values_images" if before_transformers_5() else "pixel_values": pixels}


def _video_llava_config():
    config = transformers.VideoLlavaConfig(
        vision_config=clip(SIDE), text_config=llama(), image_token_index=IMAGE,
        video_token_index=VIDEO, pad_token_id=PAD,
    )  # fmt: skip
    return transformers.VideoLlavaForConditionalGeneration, config


def _squares_with_class_tokens(visual: Picture | Film, single: bool) -> Layout:
    """A frame of a film keeps its class token, in front; a picture does not."""
    if isinstance(visual, Picture):
        return _one_square(visual, single)
    frame = 1 + TOKENS**2
    blocks = []
    for first in range(0, visual.frames * frame, frame):
        blocks += [(first, 1, 1), (first + 1, TOKENS, TOKENS)]
    return Layout([VIDEO] * (visual.frames * frame), blocks)


def _square_films(shots: list[Shot]) -> dict:
    """Frames of all films, which are equally many."""
    frames = [shot.noise(shot.visual.frames, 3, SIDE, SIDE) for shot in shots]
    return {"pixel_values_videos": torch.stack(frames)}


VIDEO_LLAVA = Family(
    "video_llava",
    "video_llava",
    _video_llava_config,
    _squares_with_class_tokens,
    apart(_squares_by_name, _square_films),
    (Picture(SIDE, SIDE),),
    (Film(2, SIDE, SIDE),),
)
