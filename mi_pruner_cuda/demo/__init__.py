"""The small vision-language model that ships with the package, and the scenes it was trained on."""

from __future__ import annotations

import pathlib

_HERE = pathlib.Path(__file__).resolve().parent


def model_path() -> pathlib.Path:
    """The directory of the shipped checkpoint, for ``from_pretrained``."""
    return _existing(_HERE / "model", "config.json")


def scene_path() -> pathlib.Path:
    """A rendered held-out scene; its questions and answers lie beside it in ``scene.json``."""
    return _existing(_HERE / "scene.png")


def _existing(path: pathlib.Path, member: str = "") -> pathlib.Path:
    if not (path / member).exists():
        raise FileNotFoundError(
            f"{path / member} is missing: reinstall the package, or train the model again, in the "
            "source repository, with "
            "`python bench/quality/train_vlm.py --output mi_pruner_cuda/demo/model`"
        )
    return path
