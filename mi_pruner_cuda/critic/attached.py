"""The critic that attach was given, for a model."""

import os
from pathlib import Path

import torch

from .bilinear import FILE_NAME, Critic


def critic_for(critic, model) -> Critic | None:
    """What attach's argument stands for, checked against the model.

    Args:
        critic: None, a Critic, a float32 (D, D) matrix, a path, or "auto": FILE_NAME in the folder
            that the model was loaded from, None where it is not there.

    Raises:
        TypeError, ValueError, FileNotFoundError: naming the argument.
    """
    if isinstance(critic, str) and critic == "auto":
        critic = _beside(model)
    if critic is None:
        return None
    if isinstance(critic, (str, os.PathLike)):
        critic = Critic.load(critic)
    elif isinstance(critic, torch.Tensor):
        try:
            critic = Critic(critic)
        except (TypeError, ValueError) as error:
            raise type(error)(str(error).replace("matrix:", "critic:", 1)) from None
    elif not isinstance(critic, Critic):
        raise TypeError(
            f"critic: got {type(critic).__name__}, allowed is None, a Critic, a float32 (D, D) "
            'tensor, a path or "auto"'
        )
    width, kind = model.get_input_embeddings().weight.shape[1], model.config.model_type
    if critic.width != width:
        raise ValueError(
            f"critic: got width {critic.width}, allowed is that of the model's rows, {width}"
        )
    if critic.model_type not in ("", kind):
        raise ValueError(
            f"critic: got one fitted for {critic.model_type!r}, allowed is {kind!r}, the model's "
            "model_type"
        )
    return critic


def _beside(model) -> Path | None:
    folder = getattr(model.config, "_name_or_path", "") or ""
    path = Path(folder) / FILE_NAME
    return path if folder and path.is_file() else None
