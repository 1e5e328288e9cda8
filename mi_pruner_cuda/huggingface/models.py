"""The table of what differs between models. Everything else here is the same for all of them."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from . import layout
from .wrapped import hint, unwrap

# Names that classes give to the same thing, first found first.
_BASES = ("model", "")
_LANGUAGE_MODELS = ("language_model", "text_model")
_IMAGE_TOKENS = ("image_token_id", "image_token_index")
_VIDEO_TOKENS = ("video_token_id", "video_token_index")


@dataclass(frozen=True)
class ModelSpec:
    """One row of the table.

    model_type: config.model_type.
    name: what people call it.
    images, videos: layouts (mi_pruner_cuda.huggingface.layout); videos is None where the class has
        none.
    marks: config attributes of ids that are never part of a question, beside the special tokens.
    one_placeholder: videos stand behind the image's id.
    attentions: implementations of attention that the class has and that are tested.
    writes: patterns of text that the processor writes around pictures and frames, beside their
        marks: never part of a question.
    notes: what to know about it.
    """

    model_type: str
    name: str
    images: Callable
    videos: Callable | None = None
    marks: tuple[str, ...] = ()
    one_placeholder: bool = False
    attentions: tuple[str, ...] = ("sdpa", "eager")
    writes: tuple[str, ...] = ()
    notes: str = ""


_QWEN_MARKS = ("vision_start_token_id", "vision_end_token_id", "vision_token_id")
_GLM_MARKS = (
    "image_start_token_id", "image_end_token_id", "video_start_token_id", "video_end_token_id",
)  # fmt: skip
_SMOLVLM_WRITES = (
    r"You are provided the following series of [a-z -]+ frames from a [\d:]+ \[H:MM:SS\] video\.",
    r"Frame from \d\d:\d\d:",
)
_GEMMA3_WRITES = (
    "Here is the original image", "and here are some crops to help you see better",
)  # fmt: skip
_BREAKS = "learned row breaks stay, outside the budget"
_TABLE = (
    ModelSpec("llava", "LLaVA-1.5", layout.same_size_or_rows),
    ModelSpec("llava_next", "LLaVA-NeXT", layout.any_resolution, notes=_BREAKS),
    ModelSpec(
        "llava_onevision", "LLaVA-OneVision", layout.any_resolution, layout.frames_and_a_break,
        notes=_BREAKS,
    ),
    ModelSpec("video_llava", "Video-LLaVA", layout.same_size, layout.frames_with_class_row),
    ModelSpec(
        "llava_next_video", "LLaVA-NeXT-Video", layout.any_resolution, layout.even_frames,
        notes=_BREAKS,
    ),
    ModelSpec("qwen2_vl", "Qwen2-VL", layout.grids, layout.grids, _QWEN_MARKS),
    ModelSpec("qwen2_5_vl", "Qwen2.5-VL", layout.grids, layout.grids, _QWEN_MARKS),
    ModelSpec(
        "qwen3_vl", "Qwen3-VL", layout.grids, layout.grids, _QWEN_MARKS,
        notes="DeepStack planes are cut alike",
    ),
    ModelSpec(
        "qwen3_vl_moe", "Qwen3-VL-MoE", layout.grids, layout.grids, _QWEN_MARKS,
        notes="DeepStack planes are cut alike",
    ),
    ModelSpec(
        "internvl", "InternVL", layout.tiles_in_a_row, writes=(r"Frame\d+: ",),
        notes="a video's frames are images of their own",
    ),
    ModelSpec("idefics3", "Idefics3", layout.tiles_in_rows),
    ModelSpec(
        "smolvlm", "SmolVLM", layout.tiles_in_rows, writes=_SMOLVLM_WRITES,
        notes="a video's frames are images of their own",
    ),
    ModelSpec(
        "gemma3", "Gemma 3", layout.same_size, writes=_GEMMA3_WRITES,
        notes="crops are images of their own",
    ),
    ModelSpec("paligemma", "PaliGemma", layout.same_size),
    ModelSpec(
        "mistral3", "Mistral 3 (Pixtral)", layout.rows_by_break, notes="row-break tokens stay"
    ),
    ModelSpec(
        "glm4v", "GLM-4V", layout.grids, layout.grids, _GLM_MARKS, one_placeholder=True,
        notes="images and video in one call: transformers refuses them",
    ),
    ModelSpec("aya_vision", "Aya Vision", layout.tiles_by_mark),
)  # fmt: skip
MODELS = {spec.model_type: spec for spec in _TABLE}


@dataclass(frozen=True)
class Parts:
    """The modules and ids of one model that pruning needs.

    video_token: None where videos stand behind the same id as images, or there are none.
    known: False for a model that is not in the table.
    """

    spec: ModelSpec
    model: nn.Module
    base: nn.Module
    language_model: nn.Module
    image_token: int
    video_token: int | None
    known: bool

    @property
    def placeholders(self) -> frozenset[int]:
        """Ids that stand for visual tokens."""
        return frozenset({self.image_token, self.video_token} - {None})


def find_parts(model) -> Parts:
    """Finds what pruning needs: in the table, or by the structure that the classes share.

    Args:
        model: a transformers model, or what wraps one (wrapped.unwrap).

    Raises:
        TypeError: not a transformers model, or a model without vision.
        ValueError: a vision model without a part that pruning needs, or a wrapper that does not
            leave the prompt alone.
    """
    model = unwrap(model)
    config = getattr(model, "config", None)
    if not isinstance(model, nn.Module) or getattr(config, "model_type", None) is None:
        raise TypeError(
            f"model: got {type(model).__name__}, allowed is a transformers vision-language model"
            + hint(model)
        )
    name = f"{type(model).__name__} (model_type {config.model_type!r})"
    if getattr(config, "vision_config", None) is None:
        raise TypeError(
            f"model: got {name}, which has no vision_config: there are no visual tokens to prune"
            + hint(model)
        )
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"model: got {name}, an encoder-decoder; allowed are models whose decoder reads image "
            "rows among those of the text"
        )
    base, decoder = _find_modules(model, name)
    image_token = image_token_of(config)
    if image_token is None:
        raise ValueError(
            f"model: got {name}; missing is config.{' or config.'.join(_IMAGE_TOKENS)}"
        )
    spec = MODELS.get(config.model_type)
    known = spec is not None
    if not known:
        spec = _generic(base, config, name)
    own = spec.videos is not None and not spec.one_placeholder
    video_token = _first(config, _VIDEO_TOKENS) if own else None
    return Parts(spec, model, base, decoder, image_token, video_token, known)


def image_token_of(config) -> int | None:
    """The id that stands for an image's tokens in a prompt; None for a model without one."""
    return _first(config, _IMAGE_TOKENS)


def _generic(base: nn.Module, config, name: str) -> ModelSpec:
    """A row for a model that the table does not know. Each run of placeholders is an image."""
    if not callable(getattr(base, "get_image_features", None)):
        raise ValueError(
            f"model: got {name}; it is not in mi_pruner_cuda.huggingface.MODELS "
            f"({', '.join(sorted(MODELS))}), and missing for the generic way is "
            "get_image_features, by which classes that merge image rows into the text are known"
        )
    videos = layout.runs if _first(config, _VIDEO_TOKENS) is not None else None
    return ModelSpec(config.model_type, name, layout.runs, videos, _QWEN_MARKS + _GLM_MARKS)


def _find_modules(model: nn.Module, name: str) -> tuple[nn.Module, nn.Module]:
    """The module that merges images into the text, and the decoder within it."""
    paths = []
    for base_path in _BASES:
        base = _submodule(model, base_path)
        for decoder_path in _LANGUAGE_MODELS:
            decoder = None if base is None else _submodule(base, decoder_path)
            if decoder is not None:
                return base, decoder
            paths.append(f"{base_path}.{decoder_path}".strip("."))
    raise ValueError(
        f"model: got {name}; missing is its language model, looked for at {', '.join(paths)}"
    )


def _first(config, names: tuple[str, ...]) -> int | None:
    return next((v for n in names if (v := getattr(config, n, None)) is not None), None)


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    for name in filter(None, path.split(".")):
        module = getattr(module, name, None)
        if not isinstance(module, nn.Module):
            return None
    return module
