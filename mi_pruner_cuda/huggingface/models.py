"""The table of what differs between models. Everything else here is the same for all of them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class ImageShape:
    """tokens: how many placeholders; grid: (t, h, w) or (h, w) in tokens, None if unknown."""

    tokens: int
    grid: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Call:
    """The arguments of one forward of the vision-and-language model (not all of them are always
    there).

    input_ids: (B, L) int64.
    inputs: every argument by name.
    """

    input_ids: torch.Tensor | None
    inputs: dict

    def features(self) -> list[torch.Tensor] | None:
        """Rows of each image where generate has encoded them (transformers 5), else None."""
        output = (self.inputs.get("mm_encoder_outputs") or {}).get("image")
        rows = getattr(output, "pooler_output", None)
        return None if rows is None else list(rows)

    def check_whole(self) -> None:
        """Refuses a chunk of a prompt: the question may lie in another.

        Nothing in the call names chunked prefill; its features lack what the encoder returned
        beside them.

        Raises:
            ValueError.
        """
        output = (self.inputs.get("mm_encoder_outputs") or {}).get("image")
        if output is not None and getattr(output, "last_hidden_state", None) is None:
            raise ValueError(
                "mm_encoder_outputs: got image features without the encoder's last_hidden_state, "
                "as chunked prefill makes them; pruning needs the whole prompt at once: pass "
                "prefill_chunk_size=None, and pixel_values rather than features of your own"
            )

    def vision_tensors(self) -> list[torch.Tensor]:
        """Which images these are: generate passes the same tensors at every step."""
        features = self.features()
        pixels = self.inputs.get("pixel_values")
        return features if features is not None else [] if pixels is None else [pixels]


@dataclass(frozen=True)
class ModelSpec:
    """One row of the table.

    model_type: config.model_type.
    base: path from the model to the module that merges images into the text; "" if it is the model.
    language_model: path from the base to the decoder that runs on the merged embeddings.
    image_token: names of the config attribute that holds the placeholder's id, first found first.
    other_visual: config attributes of placeholders that are kept whole (video, for now).
    marks: config attributes of ids that are never part of a question, beside the special tokens.
    image_shapes: (call, config, placeholders in the call) -> the shape of each image, in order.
    position_axes: 1, or 3 where a token's position is (t, h, w).
    """

    model_type: str
    image_token: tuple[str, ...]
    image_shapes: Callable
    base: tuple[str, ...] = ("model", "")
    language_model: str = "language_model"
    other_visual: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    position_axes: int = 1


def llava_images(call: Call, config, placeholders: int) -> list[ImageShape]:
    """Images of the vision tower's one size, or of image_sizes (in pixels) where a tower takes any.

    The row breaks of the latter (Pixtral) are text to the model, and stay.
    """
    vision, features = config.vision_config, call.features()
    sizes, pixels = call.inputs.get("image_sizes"), call.inputs.get("pixel_values")
    if sizes is not None:
        grids = [(h // vision.patch_size, w // vision.patch_size) for h, w in sizes.tolist()]
        return [ImageShape(h * w, (h, w)) for h, w in grids]
    if features is not None:
        counts = [rows.shape[0] for rows in features]
    else:
        images = 0 if pixels is None else pixels.shape[0]
        counts = [placeholders // images] * images if images else []
    side = vision.image_size // vision.patch_size
    square = (side, side) if vision.model_type != "pixtral" else None
    return [ImageShape(n, square if n == side * side else None) for n in counts]


def grid_images(call: Call, config, placeholders: int) -> list[ImageShape]:
    """Images of any size, described by image_grid_thw (in patches, before merging).

    generate of transformers 5 has used the grid up when the forward comes; then only the counts are
    known here, and the grid is read off the positions.
    """
    grid = call.inputs.get("image_grid_thw")
    features = call.features()
    if grid is None:
        return [ImageShape(rows.shape[0]) for rows in features or []]
    merge = config.vision_config.spatial_merge_size
    shapes = [(t, h // merge, w // merge) for t, h, w in grid.tolist()]
    return [ImageShape(t * h * w, (t, h, w)) for t, h, w in shapes]


_TABLE = (
    ModelSpec(
        model_type="llava",
        image_token=("image_token_id", "image_token_index"),
        image_shapes=llava_images,
    ),
    ModelSpec(
        model_type="qwen2_5_vl",
        image_token=("image_token_id",),
        image_shapes=grid_images,
        other_visual=("video_token_id",),
        marks=("vision_start_token_id", "vision_end_token_id", "vision_token_id"),
        position_axes=3,
    ),
)
MODELS = {spec.model_type: spec for spec in _TABLE}


@dataclass(frozen=True)
class Parts:
    """The modules and ids of one model that pruning needs."""

    spec: ModelSpec
    model: nn.Module
    base: nn.Module
    language_model: nn.Module
    image_token: int
    other_visual: frozenset[int]


def find_parts(model) -> Parts:
    """Looks the model up in the table.

    Raises:
        TypeError: not a transformers model, or a model without vision.
        ValueError: a vision model that the table does not know, or one without a part that it
            needs.
    """
    config = getattr(model, "config", None)
    if not isinstance(model, nn.Module) or getattr(config, "model_type", None) is None:
        raise TypeError(
            f"model: got {type(model).__name__}, allowed is a transformers vision-language model"
        )
    name = f"{type(model).__name__} (model_type {config.model_type!r})"
    if getattr(config, "vision_config", None) is None:
        raise TypeError(
            f"model: got {name}, which has no vision_config: there are no visual tokens to prune"
        )
    spec = MODELS.get(config.model_type)
    if spec is None:
        raise ValueError(
            f"model: got {name}; missing is its entry in mi_pruner_cuda.huggingface.MODELS, which "
            f"knows {', '.join(sorted(MODELS))}"
        )
    for path in spec.base:
        base = _submodule(model, path)
        decoder = None if base is None else _submodule(base, spec.language_model)
        if decoder is not None:
            break
    else:
        paths = [f"{path}.{spec.language_model}".strip(".") for path in spec.base]
        raise ValueError(
            f"model: got {name}; missing is its language model, looked for at {', '.join(paths)}"
        )
    image_token = next(
        (v for v in (getattr(config, a, None) for a in spec.image_token) if v is not None), None
    )
    if image_token is None:
        raise ValueError(
            f"model: got {name}; missing is config.{' or config.'.join(spec.image_token)}"
        )
    others = (getattr(config, attribute, None) for attribute in spec.other_visual)
    return Parts(
        spec, model, base, decoder, image_token, frozenset(v for v in others if v is not None)
    )


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    for name in filter(None, path.split(".")):
        module = getattr(module, name, None)
        if not isinstance(module, nn.Module):
            return None
    return module
