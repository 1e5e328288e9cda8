"""What the commands refuse before a model is loaded for it."""

import importlib.util
import os
import sys
from pathlib import Path

from ..output_path import same_file
from .errors import UserError

_PACKAGES = {"torch": "torch", "transformers": "transformers", "PIL": "Pillow"}


def check_installed(*modules: str) -> None:
    """Refuses to go on without one of these; keys of _PACKAGES."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise UserError(f"needs {_PACKAGES[module]}: pip install 'mi_pruner_cuda[demo]'")


def check_file(option: str, path: str, check) -> None:
    """check: raises for a path that cannot be written, which it calls "path"."""
    try:
        check(path)
    except (OSError, ValueError) as error:
        raise UserError(str(error).replace("path:", f"{option}:", 1)) from error


def check_separate(outputs: dict, inputs: dict) -> None:
    """Refuses one file for two purposes, however it is spelt or linked to.

    Args:
        outputs: paths by option; None where an option was not given.
        inputs: lists of paths by what they belong to.
    """
    outputs = {option: path for option, path in outputs.items() if path is not None}
    told = []
    for option, path in outputs.items():
        for other, taken in told:
            if same_file(path, taken):
                raise UserError(
                    f"{option}: {path} is the file of --{other} as well, allowed is another one"
                )
        for reader, files in inputs.items():
            if any(same_file(path, file) for file in files):
                raise UserError(f"{option}: {path} is read as {reader}, allowed is another file")
        for name, stream in (("output", sys.stdout), ("error", sys.stderr)):
            if _goes_to(stream, path):
                raise UserError(
                    f"{option}: {path} is where standard {name} goes, allowed is another file"
                )
        told.append((option, path))


def model_files(name: str) -> list:
    """What loading a model from a folder may read; nothing for an id."""
    folder = Path(os.path.expanduser(name))
    if not folder.is_dir():
        return []
    return [file for pattern in ("*", "*/*") for file in folder.glob(pattern) if file.is_file()]


def _goes_to(stream, path) -> bool:
    """Whether the shell has sent what is printed to this plain file."""
    try:
        return os.path.isfile(path) and os.path.samestat(os.stat(path), os.fstat(stream.fileno()))
    except (AttributeError, OSError, ValueError):  # no stream of the system's
        return False


def check_device(device: str) -> None:
    """Refuses a device that torch does not have."""
    import torch

    try:
        torch.empty(0, dtype=torch.float32, device=device)
    except (RuntimeError, AssertionError, UnicodeError) as error:  # the second: without CUDA
        first = (str(error).splitlines() or [""])[0]
        raise UserError(f"device: {device} is not available: {first}") from error
