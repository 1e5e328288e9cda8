"""A picture and a text as a model's inputs."""

from collections.abc import Mapping

import torch

from ..huggingface.turn import user_turn
from ..picture import to_picture


def model_inputs(pair, processor, model) -> dict:
    """The inputs of one pair, on the model's device and, where they are floats, in its dtype.

    Args:
        pair: (picture, text), the picture as mi_pruner_cuda.plot takes one: a Pillow image, a path
            or an array; or a mapping of the model's inputs, made beforehand.
        processor: writes the prompt of (picture, text), with its chat template if it has one.

    Raises:
        TypeError, ValueError, FileNotFoundError: naming what is wrong with the pair.
    """
    if not isinstance(pair, Mapping):
        pair = _write(pair, processor)
    return {name: _place(value, model) for name, value in pair.items()}


def _write(pair, processor):
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[1], str):
        raise TypeError(
            f"got {type(pair).__name__}, allowed is (picture, text) or a mapping of model inputs"
        )
    if processor is None:
        raise ValueError("got (picture, text) without a processor, allowed are model inputs there")
    picture, text = to_picture(pair[0]), pair[1]
    marker = getattr(processor, "image_token", None)
    if marker and marker in text:
        raise ValueError(f"text: it contains {marker!r}, which stands for an image")
    return user_turn([picture], text, processor)


def _place(value, model):
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(model.device, model.dtype if value.is_floating_point() else None)
