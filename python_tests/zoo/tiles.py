"""InternVL, Idefics3, SmolVLM and Aya Vision: square tiles, and the whole image as one more."""

import torch
import transformers

from .family import Family
from .prompt import (
    END,
    FAKE,
    GLOBAL,
    HIDDEN,
    IMAGE,
    LINE_BREAK,
    PAD,
    SECONDS,
    START,
    TILES,
    TIME,
    TWO_LINE_BREAKS,
    Film,
    Layout,
    Picture,
    Shot,
    stacked_blocks,
)
from .text import TEXT, VISION, llama, siglip

SIDE = 24  # pixels of a tile
TOKENS = 3  # a side of a tile: 6 x 6 patches of 4 x 4 pixels, four to a token
ONE = [IMAGE] * TOKENS**2
SIZES = (Picture(24, 48), Picture(24, 24), Picture(48, 24))
FILM_SIZES = (Film(2, SIDE, SIDE), Film(3, SIDE, SIDE))


def _tiles(visual: Picture | Film) -> tuple[int, int]:
    """(rows, columns) of tiles; (0, 0) where the image is one tile and there is no other view."""
    rows, columns = visual.height // SIDE, visual.width // SIDE
    return (0, 0) if rows * columns == 1 else (rows, columns)


def _views(visual: Picture | Film) -> int:
    """Tiles and the whole image after them, or frames."""
    if isinstance(visual, Film):
        return visual.frames
    rows, columns = _tiles(visual)
    return rows * columns + 1


def _layout(ids: list[int], visual: Picture | Film) -> Layout:
    """Views are not one grid together; frames are."""
    count = _views(visual)
    grid = (TOKENS, TOKENS) if count == 1 else None
    if isinstance(visual, Film):
        grid = (count, TOKENS, TOKENS)
    return Layout(ids, stacked_blocks(count, TOKENS, TOKENS), grid)


def _all_views(shots: list[Shot], batch: int) -> dict:
    """Views of all visuals, films too, in prompt order (N, 3, SIDE, SIDE)."""
    views = [shot.noise(_views(shot.visual), 3, SIDE, SIDE) for shot in shots]
    return {"pixel_values": torch.cat(views)}


def _internvl_config():
    config = transformers.InternVLConfig(
        vision_config={**VISION, "image_size": [SIDE, SIDE], "patch_size": [4, 4]},
        text_config=transformers.Qwen2Config(**TEXT),
        image_token_id=IMAGE,
        pad_token_id=PAD,
        image_seq_length=TOKENS**2,
        tie_word_embeddings=False,
    )
    return transformers.InternVLForConditionalGeneration, config


def _internvl(visual: Picture | Film, single: bool) -> Layout:
    """All tiles of a picture in one run; each frame of a film in one of its own, with its name."""
    if isinstance(visual, Picture):
        return _layout([START, *ONE * _views(visual), END], visual)
    frame = [TIME, START, *ONE, END, LINE_BREAK]
    return _layout((frame * visual.frames)[:-1], visual)


INTERNVL = Family(
    "internvl", "internvl", _internvl_config, _internvl, _all_views, SIZES, FILM_SIZES
)


def _idefics(visual: Picture | Film, single: bool) -> Layout:
    """A mark with the place before each tile, line breaks between rows, the whole image last.

    A frame of a film is one whole image after its time.
    """
    whole = [FAKE, GLOBAL, *ONE, FAKE]
    if isinstance(visual, Film):
        frames = [LINE_BREAK, TIME, SECONDS, *whole] * visual.frames
        return _layout([*frames, TWO_LINE_BREAKS], visual)
    rows, columns = _tiles(visual)
    if rows == 0:
        return _layout(whole, visual)
    ids = []
    for row in range(rows):
        for column in range(columns):
            ids += [FAKE, TILES[row * 2 + column], *ONE]
        ids.append(LINE_BREAK)
    # The last line break and the one before the whole image are one token of most vocabularies.
    return _layout([*ids[:-1], TWO_LINE_BREAKS, *whole], visual)


def _item_views(shots: list[Shot], batch: int) -> dict:
    """Views of each item (batch, views, 3, SIDE, SIDE), filled up with zeros, and a mask of the
    pixels that are there."""
    own = [[] for _ in range(batch)]
    for shot in shots:
        own[shot.item].extend(shot.noise(_views(shot.visual), 3, SIDE, SIDE))
    pixels = torch.zeros(batch, max(map(len, own)), 3, SIDE, SIDE)
    mask = torch.zeros(pixels[:, :, 0].shape, dtype=torch.long)
    for item, views in enumerate(own):
        for place, view in enumerate(views):
            pixels[item, place], mask[item, place] = view, 1
    return {"pixel_values": pixels, "pixel_attention_mask": mask}


_VISION = {**VISION, "image_size": SIDE, "patch_size": 4}


def _idefics3_config():
    config = transformers.Idefics3Config(
        vision_config=_VISION, text_config=llama(), image_token_id=IMAGE, pad_token_id=PAD,
        scale_factor=2,
    )  # fmt: skip
    return transformers.Idefics3ForConditionalGeneration, config


def _smolvlm_config():
    config = transformers.SmolVLMConfig(
        vision_config=_VISION, text_config=llama(), image_token_id=IMAGE, pad_token_id=PAD,
        scale_factor=2,
    )  # fmt: skip
    return transformers.SmolVLMForConditionalGeneration, config


IDEFICS3 = Family("idefics3", "idefics3", _idefics3_config, _idefics, _item_views, SIZES)
SMOLVLM = Family(
    "smolvlm", "smolvlm", _smolvlm_config, _idefics, _item_views, SIZES, FILM_SIZES, mixes=False
)  # its processor takes pictures or films


def _aya_config():
    config = transformers.AyaVisionConfig(
        vision_config=siglip(SIDE),
        # Like the real model, layers with a window and layers without rotary positions.
        text_config=transformers.Cohere2Config(
            **TEXT, layer_types=["sliding_attention", "full_attention"], sliding_window=16
        ),
        image_token_index=IMAGE,
        pad_token_id=PAD,
        alignment_intermediate_size=HIDDEN,
        tie_word_embeddings=False,
    )
    return transformers.AyaVisionForConditionalGeneration, config


def _aya(picture: Picture, single: bool) -> Layout:
    """A numbered mark before each tile, another before the whole image, which is last."""
    ids = [START]
    for tile in range(_views(picture) - 1):
        ids += [TILES[tile], *ONE]
    return _layout([*ids, GLOBAL, *ONE, END], picture)


AYA_VISION = Family("aya_vision", "aya_vision", _aya_config, _aya, _all_views, SIZES)
