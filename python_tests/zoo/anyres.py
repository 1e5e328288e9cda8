"""LLaVA-NeXT, LLaVA-NeXT-Video and LLaVA-OneVision: a base view, and tiles of the image whose rows
end with a learned newline."""

from collections.abc import Callable

import torch
import transformers

from .family import Family, apart
from .prompt import IMAGE, PAD, VIDEO, Film, Layout, Picture, Shot, stacked_blocks
from .text import TEXT, clip, llama, siglip

SIDE = 16  # pixels of a tile
TOKENS = 4  # a side of a tile
PINPOINTS = [[16, 32], [32, 16], [32, 32]]  # (height, width) in pixels that images are fitted into

# What each picture becomes, by hand: tiles (rows, columns), and tokens (rows, columns) of the tiles
# without the padding that fills the pinpoint.
_TILES = {
    Picture(16, 32): (1, 2),
    Picture(20, 32): (2, 2),
    Picture(32, 8): (2, 1),
}
_NEXT = {Picture(16, 32): (4, 8), Picture(20, 32): (6, 8), Picture(32, 8): (8, 2)}
# OneVision shrinks more than 2 tiles' worth of tokens: 6 x 8 of 2 * 16 is 1.22 times too long.
_ONEVISION = {**_NEXT, Picture(20, 32): (4, 6)}
_FILM = Film(2, SIDE, SIDE)


def base_and_rows(h: int, w: int) -> Layout:
    """The base view, then h rows of w tokens and a newline."""
    base = TOKENS**2
    breaks = [base + row * (w + 1) + w for row in range(h)]
    blocks = [(0, TOKENS, TOKENS), (base, h, w)]
    return Layout([IMAGE] * (base + h * (w + 1)), blocks, breaks=breaks)


def pooled_frames(film: Film, newline: bool) -> Layout:
    """2 x 2 tokens of each frame; one newline after the last, if any."""
    side = TOKENS // 2
    tokens = film.frames * side**2
    ids, breaks = [VIDEO] * (tokens + newline), [tokens] * newline
    return Layout(ids, stacked_blocks(film.frames, side, side), (film.frames, side, side), breaks)


def _next(visual: Picture | Film, single: bool) -> Layout:
    if isinstance(visual, Film):
        return pooled_frames(visual, newline=False)
    return base_and_rows(*_NEXT[visual])


def _onevision(visual: Picture | Film, single: bool) -> Layout:
    """Only the base view and one newline where there are several pictures."""
    if isinstance(visual, Film):
        return pooled_frames(visual, newline=True)
    if single:
        return base_and_rows(*_ONEVISION[visual])
    tokens = TOKENS**2
    blocks = stacked_blocks(1, TOKENS, TOKENS)
    return Layout([IMAGE] * (tokens + 1), blocks, (TOKENS, TOKENS), breaks=[tokens])


def _stack(shots: list[Shot], counts: list[int]) -> dict:
    """Views of each image (n, views, 3, SIDE, SIDE), filled up with zeros, and their sizes."""
    pixels = torch.zeros(len(shots), max(counts), 3, SIDE, SIDE)
    for views, shot, count in zip(pixels, shots, counts, strict=True):
        views[:count] = shot.noise(count, 3, SIDE, SIDE)
    sizes = [[shot.visual.height, shot.visual.width] for shot in shots]
    return {"pixel_values": pixels, "image_sizes": torch.tensor(sizes)}


def _views(picture: Picture) -> int:
    rows, columns = _TILES[picture]
    return 1 + rows * columns


def _images(shots: list[Shot]) -> dict:
    return _stack(shots, [_views(shot.visual) for shot in shots])


def _onevision_images(shots: list[Shot]) -> dict:
    """Pictures are tiled only where they are alone; the model is told how many an item has."""
    items = [shot.item for shot in shots]
    numbers = [items.count(item) for item in sorted(set(items))]
    counts = [_views(shot.visual) if shot.single else 1 for shot in shots]
    return _stack(shots, counts) | {"batch_num_images": torch.tensor(numbers)}


def _films(shots: list[Shot]) -> dict:
    """Frames of all films, which are equally many."""
    frames = [shot.noise(shot.visual.frames, 3, SIDE, SIDE) for shot in shots]
    return {"pixel_values_videos": torch.stack(frames)}


_MARKS = {"image_token_index": IMAGE, "pad_token_id": PAD, "image_grid_pinpoints": PINPOINTS}


def _next_config():
    config = transformers.LlavaNextConfig(vision_config=clip(SIDE), text_config=llama(), **_MARKS)
    return transformers.LlavaNextForConditionalGeneration, config


def _next_video_config():
    config = transformers.LlavaNextVideoConfig(
        vision_config=clip(SIDE), text_config=llama(), **_MARKS, video_token_index=VIDEO
    )
    return transformers.LlavaNextVideoForConditionalGeneration, config


def _onevision_config():
    config = transformers.LlavaOnevisionConfig(
        vision_config=siglip(SIDE),
        text_config=transformers.Qwen2Config(**TEXT),
        video_token_index=VIDEO,
        vision_aspect_ratio="anyres_max_2",
        **_MARKS,
    )
    return transformers.LlavaOnevisionForConditionalGeneration, config


def _family(name: str, config: Callable, lay: Callable, pixels: Callable, *films: Film) -> Family:
    return Family(name, name, config, lay, pixels, tuple(_TILES), films)


LLAVA_NEXT = _family("llava_next", _next_config, _next, lambda shots, batch: _images(shots))
LLAVA_NEXT_VIDEO = _family(
    "llava_next_video", _next_video_config, _next, apart(_images, _films), _FILM
)
LLAVA_ONEVISION = _family(
    "llava_onevision", _onevision_config, _onevision, apart(_onevision_images, _films), _FILM
)
