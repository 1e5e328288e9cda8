"""GLM-4.1V: images of any size and video, with one placeholder for both."""

import torch
import transformers

from .family import Family, apart
from .prompt import (
    BOS,
    END,
    EOS,
    HIDDEN,
    IMAGE,
    PAD,
    START,
    TIME,
    VIDEO,
    VIDEO_END,
    VIDEO_START,
    Film,
    Layout,
    Picture,
    stacked_blocks,
)
from .qwen import FILM_SIZES, FRAMES, MERGE, PATCH, SIZES, films, image_layout, images, tokens_of
from .text import TEXT, before_transformers_5, rope_of_three_axes


def _config():
    config = transformers.Glm4vConfig(
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2,
            "image_size": 32, "patch_size": PATCH, "spatial_merge_size": MERGE,
            "temporal_patch_size": FRAMES, "out_hidden_size": HIDDEN,
        },
        text_config=TEXT | rope_of_three_axes(),
        image_token_id=IMAGE, video_token_id=VIDEO, image_start_token_id=START,
        image_end_token_id=END, video_start_token_id=VIDEO_START, video_end_token_id=VIDEO_END,
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
    )  # fmt: skip
    return transformers.Glm4vForConditionalGeneration, config


def _lay(visual: Picture | Film, single: bool) -> Layout:
    """A film's frames are images to the ids, each with its time after it."""
    if isinstance(visual, Picture):
        return image_layout(visual)
    t, h, w = tokens_of(visual)
    frame = [START, *[IMAGE] * (h * w), END, TIME]
    return Layout([VIDEO_START, *frame * t, VIDEO_END], stacked_blocks(t, h, w), (t, h, w))


def _modalities(ids: torch.Tensor) -> dict:
    """1 for placeholders of images, 2 for those of films; transformers 4 reads the ids instead."""
    if before_transformers_5():
        return {}
    film = (ids == VIDEO_START).cumsum(1) > (ids == VIDEO_END).cumsum(1)
    return {"mm_token_type_ids": ((ids == IMAGE) * (1 + film.int())).int()}


# The class counts every placeholder of the batch as an image and as a film: given both, it refuses.
GLM4V = Family(
    "glm4v", "glm4v", _config, _lay, apart(images, films), SIZES, FILM_SIZES, mixes=False,
    extra=_modalities,
)  # fmt: skip
