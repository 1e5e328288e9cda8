"""The classes' own processors, small: they make pictures into pixels and prompts for the zoo's
models. Nothing is downloaded.

    kit = KITS["idefics3"]
    processor = kit.processor()
    inputs = kit.inputs(processor, ["one {} two"], [[picture(40, 72)]])
    kit.model()(**inputs)

Needs torchvision (python_tests/test_processors.py has the process for it) and num2words.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import PIL.Image
import tokenizers
import transformers
from zoo import FAMILIES
from zoo.prompt import (
    BREAK,
    END,
    FAKE,
    GLOBAL,
    IMAGE,
    START,
    VIDEO,
    VIDEO_END,
    VIDEO_START,
)

VOCABULARY = 512
_BASIC = {0: "<pad>", 1: "<s>", 2: "</s>", 12: "<|im_start|>", 13: "<|im_end|>"}
_FIRST_TILE = 20  # ids of the marks of tiles
_ROWS = 4  # of tiles, and columns
_SPOKEN = (
    "user\nassistant\nsystem\nYou are a helpful assistant.\n\n\nwhat colour is the red digit?\n\n"
    "one two three four USER: ASSISTANT: it is blue"
)
_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% elif c['type'] == 'video' %}VIDEO"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_NO_CHANGE = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}  # pixels stay fractions in [0, 1]


@dataclass(frozen=True)
class Kit:
    """One class with its processor.

    name: of the zoo's family.
    processor_class: by name.
    parts: () -> the processor's arguments but for its tokenizer.
    marks: id -> name of special tokens that the tokenizer lists as such.
    image, video: what a prompt has in place of a picture or film; video is None without any.
    named: attributes of the tokenizer -> their tokens.
    unlisted: id -> name of special tokens that are not in the tokenizer's all_special_tokens:
        Idefics3's processor replaces that list by three tokens of its own.
    """

    name: str
    processor_class: str
    parts: Callable
    marks: dict[int, str]
    image: str
    video: str | None = None
    named: dict[str, str] = field(default_factory=dict)
    unlisted: dict[int, str] = field(default_factory=dict)

    @property
    def template(self) -> str:
        """A chat template of the kind that most of these classes have."""
        return _CHAT.replace("IMAGE", self.image).replace("VIDEO", self.video or "")

    def model(self):
        """The zoo's model with a larger vocabulary."""
        return _model(self.name)

    def processor(self, template: str | None = None):
        """The class's own, with a new tokenizer."""
        tokenizer = self.tokenizer()
        build = getattr(transformers, self.processor_class)
        return build(tokenizer=tokenizer, chat_template=template, **self.parts())

    def tokenizer(self):
        """Byte-level BPE with the zoo's ids of special tokens; a pad on the left."""
        names = [f"<unused{i}>" for i in range(_FIRST_TILE + _ROWS**2)]
        for i, name in [*_BASIC.items(), *self.marks.items(), *self.unlisted.items()]:
            names[i] = name
        listed = set(_BASIC.values()) | set(self.marks.values())
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=_byte_pairs(names),
            pad_token="<pad>",
            bos_token="<s>",
            eos_token="</s>",
            padding_side="left",
            model_specific_special_tokens=self.named,
            extra_special_tokens=sorted(listed - set(self.named.values())),
        )

    def inputs(self, processor, texts: list[str], pictures=None, films=None, **more) -> dict:
        """What the processor returns.

        Args:
            texts: prompts, with {} in place of each picture and [] of each film.
            pictures: of each prompt.
            films: of each prompt, uint8 (frames, height, width, 3).
        """
        texts = [t.replace("{}", self.image).replace("[]", str(self.video)) for t in texts]
        given = {}
        if pictures is not None:
            given["images"] = pictures
        if films is not None:
            given["videos"] = [film for own in films for film in own]
        output = processor(text=texts, **given, padding=True, return_tensors="pt", **more)
        return dict(output)


@cache
def _model(name: str):
    family = FAMILIES[name]

    def config():
        model_class, config = family.config()
        config.get_text_config().vocab_size = VOCABULARY
        return model_class, config

    model = replace(family, config=config).build()
    model.generation_config.suppress_tokens = list(range(_FIRST_TILE + _ROWS**2))
    return model


def _byte_pairs(specials: list[str]) -> tokenizers.Tokenizer:
    """specials: of ids 0, 1, ...; line breaks merge into one token, as large vocabularies have."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=specials,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_SPOKEN] * 10, trainer)
    return tokenizer


def picture(height: int, width: int, seed: int = 0) -> PIL.Image.Image:
    """Red grows from left to right, green from top to bottom, 0 to 255; blue is noise."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[..., 0] = np.round((np.arange(width) + 0.5) / width * 255)
    pixels[..., 1] = np.round((np.arange(height)[:, None] + 0.5) / height * 255)
    pixels[..., 2] = np.random.default_rng(seed).integers(0, 256, (height, width))
    return PIL.Image.fromarray(pixels)


def film(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 (frames, height, width, 3); each frame is a picture with noise of its own."""
    return np.stack([np.asarray(picture(height, width, seed + i)) for i in range(frames)])


def _videos(name: str, **options):
    """A video processor by name; transformers has them with torchvision only."""
    return getattr(transformers, name)(**options)


def _clip(side: int):
    return transformers.CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, **_NO_CHANGE
    )


_PINPOINTS = [[16, 32], [32, 16], [32, 32]]
_CLIP_TOWER = {
    "patch_size": 4, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1,
}  # fmt: skip
_IMAGE = {IMAGE: "<image>"}
_IMAGE_AND_VIDEO = {IMAGE: "<image>", VIDEO: "<video>"}

LLAVA = Kit(
    "llava",
    "LlavaProcessor",
    lambda: {"image_processor": _clip(16), **_CLIP_TOWER},
    _IMAGE,
    "<image>",
)


def _pixtral(merge: int):
    return {
        "image_processor": transformers.PixtralImageProcessor(
            size={"longest_edge": 32}, patch_size={"height": 4, "width": 4}, **_NO_CHANGE
        ),
        "patch_size": 4,
        "spatial_merge_size": merge,
    }


_PIXTRAL_MARKS = {IMAGE: "[IMG]", BREAK: "[IMG_BREAK]", END: "[IMG_END]"}
LLAVA_PIXTRAL = Kit(
    "llava_pixtral",
    "PixtralProcessor",
    lambda: _pixtral(1),
    _PIXTRAL_MARKS,
    "[IMG]",
)
MISTRAL3 = replace(LLAVA_PIXTRAL, name="mistral3", parts=lambda: _pixtral(2))


def _llava_next():
    return transformers.LlavaNextImageProcessor(
        size={"shortest_edge": 16},
        crop_size={"height": 16, "width": 16},
        image_grid_pinpoints=_PINPOINTS,
        **_NO_CHANGE,
    )


LLAVA_NEXT = Kit(
    "llava_next",
    "LlavaNextProcessor",
    lambda: {"image_processor": _llava_next(), **_CLIP_TOWER},
    _IMAGE,
    "<image>",
)
_SQUARE_16 = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
LLAVA_NEXT_VIDEO = Kit(
    "llava_next_video",
    "LlavaNextVideoProcessor",
    lambda: {
        "image_processor": _llava_next(),
        "video_processor": _videos("LlavaNextVideoVideoProcessor", **_SQUARE_16, **_NO_CHANGE),
        **_CLIP_TOWER,
    },
    _IMAGE_AND_VIDEO,
    "<image>",
    "<video>",
)
VIDEO_LLAVA = Kit(
    "video_llava",
    "VideoLlavaProcessor",
    lambda: {
        "image_processor": transformers.VideoLlavaImageProcessor(**_SQUARE_16, **_NO_CHANGE),
        "video_processor": _videos("VideoLlavaVideoProcessor", **_SQUARE_16, **_NO_CHANGE),
        **_CLIP_TOWER,
    },
    _IMAGE_AND_VIDEO,
    "<image>",
    "<video>",
)
LLAVA_ONEVISION = Kit(
    "llava_onevision",
    "LlavaOnevisionProcessor",
    lambda: {
        "image_processor": transformers.LlavaOnevisionImageProcessor(
            size={"height": 16, "width": 16}, image_grid_pinpoints=_PINPOINTS, **_NO_CHANGE
        ),
        "video_processor": _videos(
            "LlavaOnevisionVideoProcessor", size={"height": 16, "width": 16}, **_NO_CHANGE
        ),
        "num_image_tokens": 16,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_2",
    },
    _IMAGE_AND_VIDEO,
    "<image>",
    "<video>",
)

_PATCHES = {
    "patch_size": 4, "temporal_patch_size": 2, "merge_size": 2, **_NO_CHANGE,
    "size": {"shortest_edge": 8 * 8, "longest_edge": 24 * 32},
}  # fmt: skip
_FILM_PATCHES = {**_PATCHES, "size": {"shortest_edge": 8 * 8, "longest_edge": 8 * 24 * 32}}


def _qwen(name: str, processor: str, videos: str, **options) -> Kit:
    return Kit(
        name,
        processor,
        lambda: {
            "image_processor": transformers.Qwen2VLImageProcessor(**_PATCHES),
            "video_processor": _videos(videos, **_FILM_PATCHES, **options),
        },
        {
            IMAGE: "<|image_pad|>", VIDEO: "<|video_pad|>", START: "<|vision_start|>",
            END: "<|vision_end|>",
        },
        "<|vision_start|><|image_pad|><|vision_end|>",
        "<|vision_start|><|video_pad|><|vision_end|>",
    )  # fmt: skip


_AS_IS = {"do_sample_frames": False}
QWEN2_VL = _qwen("qwen2_vl", "Qwen2VLProcessor", "Qwen2VLVideoProcessor", **_AS_IS)
QWEN2_5_VL = _qwen("qwen2_5_vl", "Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor", **_AS_IS)
QWEN3_VL = _qwen("qwen3_vl", "Qwen3VLProcessor", "Qwen3VLVideoProcessor", **_AS_IS)
QWEN3_VL_MOE = replace(QWEN3_VL, name="qwen3_vl_moe")

GLM4V = Kit(
    "glm4v",
    "Glm4vProcessor",
    lambda: {
        "image_processor": transformers.Glm4vImageProcessor(**_PATCHES),
        "video_processor": _videos("Glm4vVideoProcessor", **_FILM_PATCHES, **_AS_IS),
    },
    {
        IMAGE: "<|image|>", VIDEO: "<|video|>", START: "<|begin_of_image|>",
        END: "<|end_of_image|>", VIDEO_START: "<|begin_of_video|>", VIDEO_END: "<|end_of_video|>",
    },
    "<|begin_of_image|><|image|><|end_of_image|>",
    "<|begin_of_video|><|video|><|end_of_video|>",
)  # fmt: skip


def _tiled():
    return transformers.GotOcr2ImageProcessor(
        size={"height": 24, "width": 24}, crop_to_patches=True, min_patches=1, max_patches=6,
        **_NO_CHANGE,
    )  # fmt: skip


INTERNVL = Kit(
    "internvl",
    "InternVLProcessor",
    lambda: {
        "image_processor": _tiled(),
        "video_processor": _videos(
            "InternVLVideoProcessor", size={"height": 24, "width": 24}, **_AS_IS, **_NO_CHANGE
        ),
        "image_seq_length": 9,
    },
    {IMAGE: "<IMG_CONTEXT>", VIDEO: "<video>", START: "<img>", END: "</img>"},
    "<IMG_CONTEXT>",
    "<video>",
    named={
        "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>",
        "start_image_token": "<img>", "end_image_token": "</img>",
    },
)  # fmt: skip

_PLACES = {
    _FIRST_TILE + _ROWS * row + column: f"<row_{row + 1}_col_{column + 1}>"
    for row in range(_ROWS)
    for column in range(_ROWS)
}
_IDEFICS = {"size": {"longest_edge": 96}, "max_image_size": {"longest_edge": 24}}
IDEFICS3 = Kit(
    "idefics3",
    "Idefics3Processor",
    lambda: {
        "image_processor": transformers.Idefics3ImageProcessor(**_IDEFICS, **_NO_CHANGE),
        "image_seq_len": 9,
    },
    {IMAGE: "<image>", FAKE: "<fake_token_around_image>", END: "<end_of_utterance>"},
    "<image>",
    unlisted={GLOBAL: "<global-img>", **_PLACES},
)
SMOLVLM = replace(
    IDEFICS3,
    name="smolvlm",
    processor_class="SmolVLMProcessor",
    parts=lambda: {
        "image_processor": transformers.SmolVLMImageProcessor(**_IDEFICS, **_NO_CHANGE),
        "video_processor": _videos("SmolVLMVideoProcessor", **_IDEFICS, **_AS_IS, **_NO_CHANGE),
        "image_seq_len": 9,
    },
    video="<video>",
)

GEMMA3 = Kit(
    "gemma3",
    "Gemma3Processor",
    lambda: {
        "image_processor": transformers.Gemma3ImageProcessor(
            size={"height": 24, "width": 24}, **_NO_CHANGE
        ),
        "image_seq_length": 9,
    },
    {IMAGE: "<image_soft_token>", START: "<start_of_image>", END: "<end_of_image>"},
    "<start_of_image>",
    named={
        "image_token": "<image_soft_token>", "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    },
)  # fmt: skip


def _siglip():
    processor = transformers.SiglipImageProcessor(size={"height": 24, "width": 24}, **_NO_CHANGE)
    processor.image_seq_length = 36
    return processor


PALIGEMMA = Kit(
    "paligemma",
    "PaliGemmaProcessor",
    lambda: {"image_processor": _siglip()},
    _IMAGE,
    "<image>",
    named={"image_token": "<image>"},
)
AYA_VISION = Kit(
    "aya_vision",
    "AyaVisionProcessor",
    lambda: {
        "image_processor": _tiled(), "patch_size": 4, "img_size": 24, "downsample_factor": 2,
    },
    {
        IMAGE: "<|IMG_PATCH|>", START: "<|START_OF_IMG|>", END: "<|END_OF_IMG|>",
        GLOBAL: "TILE_GLOBAL", **{_FIRST_TILE + i: f"TILE_{i + 1}" for i in range(6)},
    },
    "<image>",
)  # fmt: skip

KITS = {
    kit.name: kit
    for kit in (
        LLAVA,
        LLAVA_PIXTRAL,
        LLAVA_NEXT,
        LLAVA_ONEVISION,
        VIDEO_LLAVA,
        LLAVA_NEXT_VIDEO,
        QWEN2_VL,
        QWEN2_5_VL,
        QWEN3_VL,
        QWEN3_VL_MOE,
        INTERNVL,
        IDEFICS3,
        SMOLVLM,
        GEMMA3,
        PALIGEMMA,
        MISTRAL3,
        GLM4V,
        AYA_VISION,
    )
}
