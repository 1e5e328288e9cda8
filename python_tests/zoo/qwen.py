"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: images of any size and video, rotary positions (t, h, w)."""

from collections.abc import Callable
from functools import partial

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
    SECONDS,
    START,
    TIME,
    VIDEO,
    Film,
    Layout,
    Picture,
    Shot,
    stacked_blocks,
)
from .text import TEXT, before_transformers_5, rope_of_three_axes

PATCH, MERGE, FRAMES = 4, 2, 2  # pixels; patches a side; frames of a temporal patch
SIZES = (Picture(24, 32), Picture(16, 24), Picture(32, 16))
FILM_SIZES = (Film(4, 16, 24), Film(6, 16, 16))

_IDS = {
    "image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START,
    "vision_end_token_id": END, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS,
}  # fmt: skip
_VISION = {
    "depth": 2, "hidden_size": 16, "num_heads": 2, "patch_size": PATCH,
    "spatial_merge_size": MERGE, "temporal_patch_size": FRAMES,
}  # fmt: skip


def grid_of(visual: Picture | Film) -> tuple[int, int, int]:
    """(t, h, w) in patches."""
    t = visual.frames // FRAMES if isinstance(visual, Film) else 1
    return t, visual.height // PATCH, visual.width // PATCH


def tokens_of(visual: Picture | Film) -> tuple[int, int, int]:
    """(t, h, w) in tokens."""
    t, h, w = grid_of(visual)
    return t, h // MERGE, w // MERGE


def image_layout(picture: Picture) -> Layout:
    _, h, w = tokens_of(picture)
    return Layout([START, *[IMAGE] * (h * w), END], stacked_blocks(1, h, w), (h, w))


def _whole_film(visual: Picture | Film, single: bool) -> Layout:
    """One run of placeholders, images and films alike."""
    if isinstance(visual, Picture):
        return image_layout(visual)
    t, h, w = tokens_of(visual)
    return Layout([START, *[VIDEO] * (t * h * w), END], stacked_blocks(t, h, w), (t, h, w))


def _frame_by_frame(visual: Picture | Film, single: bool) -> Layout:
    """Each frame of a film by itself, after its time, and all of it between one more pair of marks.

    The template writes the outer pair, the processor the rest.
    """
    if isinstance(visual, Picture):
        return image_layout(visual)
    t, h, w = tokens_of(visual)
    frame = [TIME, SECONDS, START, *[VIDEO] * (h * w), END]
    return Layout([START, *frame * t, END], stacked_blocks(t, h, w), (t, h, w))


def patches(shots: list[Shot], pixels: str, grid: str) -> dict:
    """Flat patches of all visuals (N, 3 * FRAMES * PATCH * PATCH) and the grid of each (n, 3)."""
    grids = torch.tensor([grid_of(shot.visual) for shot in shots])
    counts = grids.prod(1).tolist()
    rows = [shot.noise(n, 3 * FRAMES * PATCH**2) for shot, n in zip(shots, counts, strict=True)]
    return {pixels: torch.cat(rows), grid: grids}


images = partial(patches, pixels="pixel_values", grid="image_grid_thw")
films = partial(patches, pixels="pixel_values_videos", grid="video_grid_thw")


def _timed_films(shots: list[Shot]) -> dict:
    """Films with half a second to a temporal patch."""
    return films(shots) | {"second_per_grid_ts": torch.full((len(shots),), 0.5)}


def modalities(ids: torch.Tensor) -> dict:
    """1 for placeholders of images, 2 for those of films; transformers 4 reads the ids instead."""
    if before_transformers_5():
        return {}
    return {"mm_token_type_ids": ((ids == IMAGE) + 2 * (ids == VIDEO)).int()}


def _family(name: str, config: Callable, lay: Callable, films: Callable = films) -> Family:
    return Family(
        name, name, config, lay, apart(images, films), SIZES, FILM_SIZES, extra=modalities
    )


def _qwen2_config():
    config = transformers.Qwen2VLConfig(
        vision_config=_VISION | {"hidden_size": HIDDEN, "embed_dim": 16, "mlp_ratio": 2},
        text_config=TEXT | rope_of_three_axes(),
        **_IDS,
    )
    return transformers.Qwen2VLForConditionalGeneration, config


def _qwen2_5_config():
    vision = {"window_size": 16, "fullatt_block_indexes": [1], "intermediate_size": 32}
    config = transformers.Qwen2_5_VLConfig(
        vision_config=_VISION | vision | {"out_hidden_size": HIDDEN},
        text_config=TEXT | rope_of_three_axes(),
        **_IDS,
    )
    return transformers.Qwen2_5_VLForConditionalGeneration, config


# Two planes of visual embeddings are added after the first two decoder layers.
_DEEPSTACK = {
    "depth": 3, "deepstack_visual_indexes": [0, 1], "intermediate_size": 32,
    "out_hidden_size": HIDDEN, "num_position_embeddings": 16,
}  # fmt: skip
_QWEN3_TEXT = {"num_hidden_layers": 3, "head_dim": 8, **rope_of_three_axes(mrope_interleaved=True)}


def _qwen3_config():
    config = transformers.Qwen3VLConfig(
        vision_config=_VISION | _DEEPSTACK, text_config=TEXT | _QWEN3_TEXT, **_IDS
    )
    return transformers.Qwen3VLForConditionalGeneration, config


def _qwen3_moe_config():
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    config = transformers.Qwen3VLMoeConfig(
        vision_config=_VISION | _DEEPSTACK, text_config=TEXT | _QWEN3_TEXT | experts, **_IDS
    )
    return transformers.Qwen3VLMoeForConditionalGeneration, config


QWEN2_VL = _family("qwen2_vl", _qwen2_config, _whole_film)
QWEN2_5_VL = _family("qwen2_5_vl", _qwen2_5_config, _whole_film, _timed_films)
QWEN3_VL = _family("qwen3_vl", _qwen3_config, _frame_by_frame)
QWEN3_VL_MOE = _family("qwen3_vl_moe", _qwen3_moe_config, _frame_by_frame)
